"""The kinds of positions; whole models with each are compared with PyTorch in test_vit_parity."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit import Tensor, gradients, load_pretrained
from numpyvit.check import check_op
from numpyvit.models import Labelling, VisionTransformer, ViTConfig, load_model, save_model
from numpyvit.nn import HeadwiseAttention, RelativeBias, Rotary, SincosPositions, sincos_positions
from numpyvit.ops.windows import relative_bias
from numpyvit.weights import resize_bias_table, resized

GRID = (2, 3)
WAVES = (math.sin, math.cos)
KINDS = ("all", "patches", "none", "sincos", "sincos_mae", "relative", "rotary")

each_kind = pytest.mark.parametrize("kind", KINDS)


def built(kind: str, dtype: Any = np.float64, **changes: Any) -> VisionTransformer:
    """A model whose weights are of the size of trained ones."""
    sizes: dict[str, Any] = {"image_size": (8, 12), "patch_size": 4, "embed_dim": 16}
    config = ViTConfig(
        **{**sizes, "depth": 2, "num_heads": 2, "num_classes": 5, "positions": kind, **changes}
    )
    rng = np.random.default_rng(0)
    model = VisionTransformer(config, rng=rng).to(dtype).eval()
    for parameter in model.parameters():
        parameter.data += (0.2 * rng.standard_normal(parameter.shape)).astype(dtype)
    return model


def pictures(dtype: Any = np.float64, shape: tuple[int, int] = (8, 12)) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((3, 3, *shape)).astype(dtype)


# Fixed ones.


@pytest.mark.parametrize(("form", "steps"), [("mae", 4), ("big_vision", 3)])
def test_sincos_positions_are_the_published_formula(form: str, steps: int) -> None:
    expected = []
    for row, column in itertools.product(range(GRID[0]), range(GRID[1])):
        rates = [10000 ** (-i / steps) for i in range(4)]
        expected.append(
            [wave(at * rate) for at in (column, row) for wave in WAVES for rate in rates]
        )
    assert_close(sincos_positions(GRID, 16, form), np.array(expected))


def test_the_two_published_forms_differ_by_a_little() -> None:
    forms = [sincos_positions(14, 768, form) for form in ("mae", "big_vision")]
    assert 0.02 < abs(forms[0] - forms[1]).max() < 0.03


@each_kind
def test_only_what_is_learned_is_a_parameter(kind: str) -> None:
    added = {
        "all": {"pos_embed": (1, 7, 16)},
        "patches": {"pos_embed": (1, 6, 16)},
        "relative": {
            f"blocks.{i}.attn.rel_pos.relative_position_bias_table": (18, 2) for i in (0, 1)
        },
    }
    shapes = {name: array.shape for name, array in built(kind).state_dict().items()}
    plain = built("none").state_dict().keys()
    assert {name: shape for name, shape in shapes.items() if name not in plain} == added.get(
        kind, {}
    )


@each_kind
def test_a_model_computes_in_its_own_precision(kind: str, dtype: np.dtype) -> None:
    model = built(kind, dtype)
    logits = model(pictures(dtype))
    found = gradients(logits.sum(), model.parameters())
    assert {logits.dtype, *(gradient.dtype for gradient in found)} == {dtype}
    other = np.dtype("float32" if dtype == np.float64 else "float64")
    assert model.to(other)(pictures(other)).dtype == other
    assert model.to(dtype)(pictures(dtype)).dtype == dtype


@each_kind
def test_the_last_block_may_compute_the_class_token_alone(kind: str) -> None:
    for changes in ({}, {"qk_norm": True}, {"num_registers": 2}):
        model, images = built(kind, **changes), pictures()
        assert_close(model(images), model.forward_head(model.forward_features(images)))


@each_kind
def test_attention_that_is_shown_is_that_which_is_computed(kind: str) -> None:
    model, images = built(kind), pictures()
    output = model(images, return_attention=True)
    assert_close(output.logits, model(images))
    assert_close(output.attention[1].sum(-1), np.ones((3, 2, 7)))


@each_kind
def test_a_model_comes_back_from_a_file(kind: str, tmp_path: Path) -> None:
    model, images = built(kind, np.float32, image_size=8), pictures(np.float32, (8, 8))
    path = tmp_path / "model.npz"
    save_model(path, "tiny", model, Labelling(class_names=tuple("abcde")))
    assert_same_bits(load_model(path).model(images), model(images))
    assert_same_bits(load_pretrained(path).model(images), model(images))


@each_kind
def test_a_model_gets_another_size_from_its_file_or_in_memory(kind: str, tmp_path: Path) -> None:
    model, images = built(kind, np.float32, image_size=8), pictures(np.float32, (16, 16))
    path = tmp_path / "model.npz"
    save_model(path, "tiny", model, Labelling(class_names=tuple("abcde")))
    larger = load_pretrained(path, image_size=16).model
    assert larger.config.positions == kind
    assert_same_bits(larger(images), resized(model, 16)(images))


@pytest.mark.parametrize("kind", ["none", "sincos", "relative", "rotary"])
def test_without_learned_positions_only_the_grid_tells_where_a_patch_is(kind: str) -> None:
    model = built(kind, pooling="avg", final_norm=False)
    patches = pictures().reshape(3, 3, 2, 4, 3, 4)
    moved = patches[:, :, ::-1, :, ::-1].reshape(3, 3, 8, 12)  # the patches in another order
    same = np.allclose(model(pictures()).data, model(moved).data)
    assert same == (kind == "none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": "sincos", "embed_dim": 6}, "an embed_dim that 4 divides, 8 at least, got 6"),
        ({"positions": "sincos", "embed_dim": 4}, "an embed_dim that 4 divides, 8 at least, got 4"),
        (
            {"positions": "sincos_mae", "embed_dim": 6},
            "an embed_dim that 4 divides, 4 at least, got 6",
        ),
        (
            {"positions": "rotary", "embed_dim": 12},
            r"a head width \(embed_dim / num_heads\) that 4 divides, 4 at least, got 6; take",
        ),
        ({"positions": "rotation"}, "unknown positions 'rotation'; known: .*rotary"),
    ],
)
def test_widths_and_names_that_cannot_be_are_refused(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViTConfig(num_heads=2, depth=1, **{"embed_dim": 16, **changes})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sincos_positions((2, 2), 8, "big"), "unknown form 'big'; known: mae, big_vision"),
        (lambda: sincos_positions((2, 2), 6), "a width that 4 divides, 4 at least, got 6"),
        (lambda: RelativeBias((0, 2), 2), "'rows' must be positive but got 0"),
        (lambda: RelativeBias((2, 2), 0), "'num_heads' must be positive but got 0"),
    ],
)
def test_positions_that_cannot_be_made_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# What attention is told.


@pytest.mark.parametrize("in_front", [0, 1, 3])
def test_the_relative_bias_is_looked_up_pair_by_pair(in_front: int) -> None:
    layer = RelativeBias(GRID, 2, in_front)
    table, bias = layer.relative_position_bias_table.data, layer.bias()
    assert bias.shape == (2, 6 + in_front, 6 + in_front)
    places = [None] * in_front + list(itertools.product(range(2), range(3)))
    for (i, query), (j, key) in itertools.product(enumerate(places), enumerate(places)):
        if query and key:
            row = (query[0] - key[0] + 1) * 5 + query[1] - key[1] + 2
        else:
            row = 15 + (2 if query is key is None else 1 if key is None else 0)
        assert_same_bits(bias.data[:, i, j], table[row])


@pytest.mark.parametrize("in_front", [0, 2])
def test_the_gradient_of_a_relative_bias_agrees_with_differences(in_front: int) -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal((15 + 3 * bool(in_front), 2))
    assert check_op(relative_bias, [table], {"grid": GRID, "in_front": in_front}, rng=rng).ok


def test_a_table_of_another_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="18 rows for 2 x 3 tokens and 1 in front, got 15"):
        relative_bias(np.zeros((15, 2)), GRID, 1)


def test_a_relative_table_is_resized_as_pytorch_resizes_pictures(torch: ModuleType) -> None:
    table = np.random.default_rng(0).standard_normal((15 + 3, 2))
    found = resize_bias_table(table, (4, 3), GRID)
    picture = torch.tensor(table[:15].T.reshape(1, 2, 3, 5))
    expected = torch.nn.functional.interpolate(picture, (7, 5), mode="bicubic")
    assert_close(found[:35], expected[0].flatten(1).T)
    assert_same_bits(found[35:], table[15:])
    assert_same_bits(resize_bias_table(table, GRID, GRID), table)


def test_turned_queries_and_keys_know_only_how_far_they_lie_apart() -> None:
    rng = np.random.default_rng(0)
    q, k = (np.broadcast_to(rng.standard_normal(8), (1, 20, 8)) for _ in range(2))
    turned = [Rotary((4, 5), 8).turn(Tensor(x), 1).data[0] for x in (q, k)]
    scores = (turned[0] @ turned[1].T).reshape(4, 5, 4, 5)
    assert_close(scores[1, 1, 2, 3], scores[2, 2, 3, 4])
    assert abs(scores[1, 1, 2, 3] - scores[2, 3, 1, 1]) > 0.1  # and in which direction


def test_tokens_in_front_and_values_are_not_turned() -> None:
    x = np.random.default_rng(0).standard_normal((2, 8, 24))  # two heads of q, k and v
    y = Rotary(GRID, 4).turn(Tensor(x), 4).data
    assert_same_bits(y[:, :2], x[:, :2])
    assert_same_bits(y[..., 16:], x[..., 16:])
    assert_same_bits(y[:, 2, :16], x[:, 2, :16])  # the first patch stands at 0, 0
    assert (y[:, 3:, :16] != x[:, 3:, :16]).any((0, 1)).all()
    packed, by_head = x[:, :, :16].reshape(2, 8, 4, 4), y[:, :, :16].reshape(2, 8, 4, 4)
    for head in range(4):
        alone = Rotary(GRID, 4).turn(Tensor(packed[:, :, head]), 1)
        assert_close(by_head[:, :, head], alone)


def test_a_frozen_table_costs_no_gradient() -> None:
    model = built("relative")
    tables = [block.attn.rel_pos.relative_position_bias_table for block in model.blocks]
    weight = model.blocks[0].attn.qkv.weight
    (expected,) = gradients(model(pictures()).sum(), [weight])
    for table in tables:
        table.requires_grad = False
    (found,) = gradients(model(pictures()).sum(), [weight])
    assert_same_bits(found, expected)


def test_attention_that_knows_of_positions_has_no_headwise_form() -> None:
    with pytest.raises(ValueError, match="got Rotary and qk_norm=False"):
        HeadwiseAttention.from_fused(built("rotary").blocks[0].attn)


def test_constants_are_made_once_for_a_precision() -> None:
    positions = SincosPositions(GRID, 16, "mae")
    patches = Tensor(np.zeros((1, 6, 16), np.float32))
    assert positions.waves.like(patches) is positions.waves.like(patches)
    placed = positions.add([], patches, None)
    assert_close(placed.data[0], sincos_positions(GRID, 16), np.float32)
