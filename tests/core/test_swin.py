"""The Swin Transformer: its windows by hand, and the whole model against PyTorch."""

from __future__ import annotations

import importlib
import json
import math
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from core.cupy_like import CuPyLike
from tolerances import as_numpy, assert_close, assert_same_bits

from numpyvit import Tensor, functional, gradients, no_grad
from numpyvit.backend import to_device
from numpyvit.check import check_op
from numpyvit.models import (
    SWIN_VARIANTS,
    SwinConfig,
    SwinTransformer,
    count_multiply_adds,
    count_parameters,
)
from numpyvit.nn import (
    LayerNorm,
    PatchMerging,
    WindowAttention,
    Windows,
    inverse_order,
    merging_order,
    use_generator,
)
from numpyvit.ops import windows as ops
from numpyvit.threads import limit_threads

SMALL = SwinConfig(
    image_size=24,
    patch_size=2,
    num_classes=5,
    embed_dim=8,
    depths=(2, 3),
    num_heads=(2, 4),
    window_size=3,
)
# Grids of 12 and 6 tokens, windows of 3: nothing is padded, every second block is shifted. Then
# what differs: windows that do not divide the grid, grids smaller than a window, odd grids.
CONFIGS: dict[str, dict[str, Any]] = {
    "shifted": {},
    "the last grid is one window": {"window_size": 6, "depths": (2, 1, 1), "num_heads": (1, 2, 4)},
    "a window shrinks to the grid": {"window_size": 8},
    "a grid is padded to the window": {"window_size": 8, "padding": "before_shift"},
    "padded after the shift": {"window_size": 5, "qkv_bias": False},
    "padded before the shift": {"window_size": 5, "padding": "before_shift"},
    "an odd grid": {
        "image_size": 22,
        "window_size": 4,
        "depths": (2, 2, 2),
        "num_heads": (1, 2, 2),
    },
    "an odd grid, padded before": {"image_size": 22, "window_size": 4, "padding": "before_shift"},
    "other choices": {
        "activation": "gelu_tanh",
        "mlp_ratio": 2.5,
        "in_channels": 1,
        "num_classes": 0,
        "norm_eps": 1e-3,
    },
}

# As timm 1.0.29 and torchvision 0.28.0 count them; multiply-adds are torchvision's, and of the rest
# the paper's (tables 1 and 7: 47.0, 34.5 and 103.9).
PUBLISHED = {
    "swin_tiny_patch4_window7_224": (28_288_354, 4.491),
    "swin_small_patch4_window7_224": (49_606_258, 8.741),
    "swin_base_patch4_window7_224": (87_768_224, 15.431),
    "swin_base_patch4_window12_384": (87_903_584, 47.1),
    "swin_large_patch4_window7_224": (196_532_476, 34.5),
    "swin_large_patch4_window12_384": (196_735_516, 103.9),
}


def built(dtype: Any = "float64", scale: float = 0.1, **changes: Any) -> SwinTransformer:
    """A small model with weights of a size that training gives them."""
    model = SwinTransformer(SMALL.replace(**changes), rng=np.random.default_rng(0)).to(dtype)
    rng = np.random.default_rng(5)
    for parameter in model.parameters():
        parameter.data += (scale * rng.standard_normal(parameter.shape)).astype(dtype)
    return model


def a_batch(model: SwinTransformer, count: int = 2, device: str = "cpu") -> tuple[Any, Any]:
    rng, config = np.random.default_rng(1), model.config
    shape = (count, config.in_channels, config.image_size, config.image_size)
    images = rng.standard_normal(shape).astype(model.dtype)
    labels = rng.integers(0, max(config.num_classes, config.num_features), count) % 5
    return to_device(images, device), to_device(labels, device)


@pytest.fixture
def oracle(torch: ModuleType) -> ModuleType:
    return importlib.import_module("core.torch_swin")  # not before PyTorch is known to be there


@pytest.fixture
def leaves(torch: ModuleType) -> Any:
    return importlib.import_module("core.torch_vit").leaves


def torchs(torch: ModuleType, array: Any, **options: Any) -> Any:
    return torch.tensor(as_numpy(array), **options)


# The whole model.


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_attention_and_hidden_states_are_pytorchs(
    name: str, oracle: ModuleType, leaves: Any, torch: ModuleType, dtype: np.dtype, device: str
) -> None:
    model = built(dtype, **CONFIGS[name]).to(device)
    images, _ = a_batch(model, device=device)
    expected = oracle.forward(leaves(model.state_dict()), torchs(torch, images), model.config)
    assert_close(model(images), expected["logits"])
    out = model(images, return_attention=True, return_hidden_states=True)
    assert_close(out.logits, expected["logits"])
    for part in ("attention", "hidden_states"):
        for ours, theirs in zip(getattr(out, part), expected[part], strict=True):
            assert_close(ours, theirs)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_loss_and_every_gradient_are_pytorchs(
    name: str, oracle: ModuleType, leaves: Any, torch: ModuleType, dtype: np.dtype, device: str
) -> None:
    model = built(dtype, **CONFIGS[name]).to(device)
    images, labels = a_batch(model, device=device)
    state = leaves(model.state_dict())
    theirs = torchs(torch, images, requires_grad=True)
    expected = oracle.loss(state, theirs, torchs(torch, labels), model.config)
    expected.backward()

    ours = Tensor(images, requires_grad=True)
    loss = functional.cross_entropy(model(ours), labels)
    loss.backward()
    assert_close(loss, expected)
    assert_close(ours.grad, theirs.grad)
    for name, parameter in model.named_parameters():
        assert_close(parameter.grad, state[name].grad, op=name)


def test_a_mask_of_minus_100_is_not_one_of_minus_infinity(
    oracle: ModuleType, leaves: Any, torch: ModuleType
) -> None:
    model = built()
    for block in model.blocks:  # scores of some hundred, so that -100 does not always win
        block.attn.qkv.weight.data *= 60
    images, _ = a_batch(model)
    out = model(images, return_attention=True)
    apart = np.tile(model.blocks[1].attn.windows.apart, (len(images), 1, 1))
    assert out.attention[1].numpy().swapaxes(0, 1)[:, apart].max() > 0.1
    state, pictures = leaves(model.state_dict()), torchs(torch, images)
    assert_close(model(images), oracle.forward(state, pictures, model.config)["logits"])


def test_asking_for_intermediates_changes_no_dropout(dtype: np.dtype) -> None:
    model = built(dtype, attention_dropout=0.3, dropout=0.2, drop_path=0.1)
    images, _ = a_batch(model)
    with use_generator(np.random.default_rng(3)):
        plain = model(images)
    with use_generator(np.random.default_rng(3)):
        watched = model(images, return_attention=True).logits
    assert_close(plain, watched)
    with use_generator(np.random.default_rng(4)):
        assert np.abs(model(images).data - plain.data).max() > 0.01
    model.eval()
    assert_same_bits(model(images), model(images))


def test_the_bits_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "_PIECE", 500)
    model = built("float32")
    images, labels = a_batch(model, 3)

    def gradients_of_it() -> list[Any]:
        return gradients(functional.cross_entropy(model(images), labels), model.parameters())

    with limit_threads(1):
        alone = gradients_of_it()
    for one, several in zip(alone, gradients_of_it(), strict=True):
        assert_same_bits(one, several)


def test_an_image_does_not_depend_on_its_batch() -> None:
    model = built()
    images, _ = a_batch(model, 3)
    assert_close(model(images[1:2]), model(images).data[1:2])


def test_tokens_come_out_row_by_row() -> None:
    model = built(image_size=24, depths=(2,), num_heads=(2,))  # ends with shifted windows
    images, _ = a_batch(model)
    tokens = model.forward_features(images)
    assert tokens.shape == (2, 144, 8)
    states = model(images, return_hidden_states=True).hidden_states
    assert_close(tokens, model.norm(states[-1]))
    assert_close(model.forward_head(tokens), model(images))
    assert_close(model.forward_features(images, keep=3), tokens.data[:, :3])


def test_only_neighbours_are_seen_without_a_shift_and_all_with_it() -> None:
    def reach(depth: int) -> Any:
        model = built(depths=(depth,), num_heads=(2,))
        images, _ = a_batch(model, 1)
        with no_grad():
            before = model.forward_features(images).data
            images[0, :, :2, :2] += 1  # the first patch
            changed = (model.forward_features(images).data != before).any(-1)
        return changed.reshape(12, 12)

    first = np.zeros((12, 12), bool)
    first[:3, :3] = True
    np.testing.assert_array_equal(reach(1), first)
    # Shifted windows begin at token 1, so that the first token is with the last ones, but apart.
    first[:4, :4] = True
    np.testing.assert_array_equal(reach(2), first)


def test_stochastic_depth_rises_over_all_blocks() -> None:
    model = built(depths=(2, 3), drop_path=0.4)
    rates = [block.drop_path.p for block in model.blocks]
    np.testing.assert_array_equal(rates, [0.4 * i / 4 for i in range(5)])


def test_parameters_have_timms_names_and_layouts() -> None:
    model = built(depths=(1, 1))
    shapes = {name: array.shape for name, array in model.state_dict().items()}
    block = {
        "norm1.weight": (8,),
        "norm1.bias": (8,),
        "attn.relative_position_bias_table": (25, 2),
        "attn.qkv.weight": (24, 8),
        "attn.qkv.bias": (24,),
        "attn.proj.weight": (8, 8),
        "attn.proj.bias": (8,),
        "norm2.weight": (8,),
        "norm2.bias": (8,),
        "mlp.fc1.weight": (32, 8),
        "mlp.fc1.bias": (32,),
        "mlp.fc2.weight": (8, 32),
        "mlp.fc2.bias": (8,),
    }
    second = {name for name in shapes if name.startswith("layers.1.blocks.0.")}
    assert {name.removeprefix("layers.1.blocks.0.") for name in second} == set(block)
    assert {name: shape for name, shape in shapes.items() if name not in second} == {
        "patch_embed.proj.weight": (8, 3, 2, 2),
        "patch_embed.proj.bias": (8,),
        "patch_embed.norm.weight": (8,),
        "patch_embed.norm.bias": (8,),
        **{f"layers.0.blocks.0.{name}": shape for name, shape in block.items()},
        "layers.1.downsample.norm.weight": (32,),
        "layers.1.downsample.norm.bias": (32,),
        "layers.1.downsample.reduction.weight": (16, 32),
        "norm.weight": (16,),
        "norm.bias": (16,),
        "head.fc.weight": (5, 16),
        "head.fc.bias": (5,),
    }


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_the_variants_have_the_published_sizes(name: str, published: tuple[int, float]) -> None:
    config, (parameters, billions) = SWIN_VARIANTS[name], published
    assert count_parameters(config) == parameters
    digits = len(str(billions).partition(".")[2])
    assert round(count_multiply_adds(config) / 1e9, digits) == billions


def test_the_cifar_model_is_of_the_tiny_vits_size() -> None:
    config = SWIN_VARIANTS["swin_cifar_patch2_32"]
    assert count_parameters(config) == SwinTransformer(config).num_parameters() == 134_262
    assert config.windows(0, shifted=True).shift == config.windows(1, shifted=True).shift == 2


def test_multiply_adds_are_those_of_the_matrix_products() -> None:
    def products(n: int, d: int, depth: int) -> int:
        return depth * (n * 12 * d * d + 2 * n * 9 * d)

    expected = 144 * 12 * 8 + products(144, 8, 2) + 36 * 32 * 16 + products(36, 16, 3) + 16 * 5
    assert count_multiply_adds(SMALL) == expected
    # Windows of 5 have 225 places in a grid of 12 x 12, and each gets a query, a key and a value.
    padded = SMALL.replace(window_size=5, depths=(1,), num_heads=(2,))
    expected = 144 * 12 * 8 + 225 * 3 * 64 + 2 * 225 * 25 * 8 + 144 * 9 * 64 + 8 * 5
    assert count_multiply_adds(padded) == expected


# The configuration.


def test_the_norms_have_the_epsilon_of_the_published_models() -> None:
    model = SwinTransformer(SwinConfig(image_size=32, depths=(1, 1), num_heads=(3, 6)))
    norms = [module for _, module in model.named_modules() if isinstance(module, LayerNorm)]
    assert len(norms) == 1 + 2 + 1 + 2 + 1
    assert {norm.eps for norm in norms} == {1e-5}


def test_a_config_survives_json() -> None:
    assert SwinConfig(**json.loads(json.dumps(SMALL.to_dict()))) == SMALL


def test_equal_sides_are_one_number_as_for_a_vit() -> None:
    for pair in ((24, 24), [24, 24]):
        assert SMALL.replace(image_size=pair) == SMALL.replace(image_size=24)
    with pytest.raises(ValueError, match="a whole number as image_size"):
        SMALL.replace(image_size=(24, 32))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depths": (2,)}, "num_heads for 1 stages"),
        ({"depths": ()}, "whole numbers, one a stage, as depths"),
        ({"depths": 4}, "as depths, got 4"),
        ({"depths": (2, 0)}, "'depth' must be positive"),
        ({"depths": (2, True)}, "as depths"),
        ({"num_heads": (2, 3)}, "3 heads divide, got 16"),
        ({"window_size": 0}, "'window_size' must be positive"),
        ({"window_size": 3.5}, "a whole number as window_size"),
        ({"image_size": 25}, "multiple of patch_size 2, got 25"),
        ({"mlp_ratio": 1e-9}, "'hidden_width' must be positive but got 0"),
        ({"mlp_ratio": math.inf}, "a finite number as mlp_ratio"),
        ({"qkv_bias": 1}, "True or False as qkv_bias"),
        ({"drop_path": 1.0}, "0 <= drop_path < 1"),
        ({"num_classes": -1}, "num_classes >= 0"),
        ({"activation": "gleu"}, "did you mean 'gelu'"),
        ({"padding": "before"}, "did you mean 'before_shift'"),
        ({"window": 3}, "did you mean 'window_size'"),
        ({"image_size": 2}, "at least 2 patches a side for 1 mergings, got 1"),
        ({"image_size": 1 << 50}, "image_size <= 16384, got 1125899906842624"),
        ({"image_size": 514}, "num_patches <= 65536, got 66049"),
        ({"window_size": 10**9}, "window_size <= 256, got"),
        ({"depths": (1000, 1)}, "depth <= 1000, got 1001"),
        ({"depths": (1,) * 9, "num_heads": (1,) * 9}, "stages <= 8, got 9"),
        ({"embed_dim": 1 << 30}, "embed_dim <= 16384, got"),
        ({"mlp_ratio": 1e300}, "mlp_ratio <= 1024, got 1e[+]300"),
        ({"num_classes": 1 << 40}, "num_classes <= 16777216, got"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SMALL.replace(**changes)


def test_images_of_another_kind_are_refused() -> None:
    model = built()
    with pytest.raises(ValueError, match=r"expected images \(B, 3, 24, 24\)"):
        model(np.zeros((1, 3, 32, 32)))
    with pytest.raises(TypeError, match="dtype float64, got float32"):
        model(np.zeros((1, 3, 24, 24), np.float32))


# Windows.


def test_windows_are_cut_row_by_row() -> None:
    np.testing.assert_array_equal(
        Windows(4, 2).order.reshape(4, 4),
        [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]],
    )
    np.testing.assert_array_equal(Windows(4, 2, 1).order[:4], [5, 6, 9, 10])
    np.testing.assert_array_equal(Windows(4, 2, 1).order[-4:], [15, 12, 3, 0])


def test_a_grid_is_padded_after_or_before_the_shift() -> None:
    after, before = Windows(3, 2, 1), Windows(3, 2, 1, pad_first=True)
    np.testing.assert_array_equal(
        after.order.reshape(4, 4), [[4, 5, 7, 8], [3, -1, 6, -1], [1, 2, -1, -1], [0, -1, -1, -1]]
    )
    np.testing.assert_array_equal(
        before.order.reshape(4, 4), [[4, 5, 7, 8], [-1, 3, -1, 6], [-1, -1, 1, 2], [-1, -1, -1, 0]]
    )
    for windows in (after, before):
        assert (windows.order[windows.order_back] == np.arange(9)).all()


def test_tokens_from_both_ends_of_the_grid_are_apart() -> None:
    assert Windows(4, 2).apart is None
    apart = Windows(4, 2, 1).apart
    assert not apart[0].any()
    sides = np.array([0, 1, 0, 1])  # of the window at the right: its columns
    np.testing.assert_array_equal(apart[1], sides[:, None] != sides)
    np.testing.assert_array_equal(apart[3], ~np.eye(4, dtype=bool))


def test_four_neighbours_are_merged_columns_last() -> None:
    np.testing.assert_array_equal(merging_order(4)[:2], [[0, 4, 1, 5], [2, 6, 3, 7]])
    np.testing.assert_array_equal(merging_order(3)[[1, 3]], [[2, 5, -1, -1], [8, -1, -1, -1]])
    merge = PatchMerging(2).to("float64")
    x = np.random.default_rng(0).standard_normal((1, 16, 2))
    four = merge.norm(Tensor(x[:, [0, 4, 1, 5]].reshape(1, 8)))
    assert_close(merge(Tensor(x), merging_order(4)).data[:, 0], merge.reduction(four))


def test_windows_and_attention_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="shift from 0 to below the window's 2 tokens, got 2"):
        Windows(4, 2, 2)
    attention = WindowAttention(8, 2, Windows(4, 2))
    with pytest.raises(ValueError, match="expected 4 x 4 tokens, got 9"):
        attention(Tensor(np.zeros((1, 9, 8), np.float32)))
    with pytest.raises(ValueError, match=r"table of 9 rows for 2 x 2 tokens, got 25"):
        ops.relative_bias(np.zeros((25, 2)), (2, 2))
    with pytest.raises(ValueError, match=r"bias \(2, 4, 4\), got \(1, 1, 4, 24\)"):
        ops.window_attention(np.zeros((1, 1, 4, 24)), np.zeros((3, 4, 4)), 2)


# The ops.

APART = np.zeros((3, 4, 4), bool)
APART[2, :2, 2:] = APART[2, 2:, :2] = True
DROPPED = {"apart": APART, "num_heads": 2, "dropout": 0.3}
OPS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "rearrange": (ops.rearrange, ((2, 5, 3),), {"order": np.array([3, -1, 0, 4])}),
    "relative_bias": (ops.relative_bias, ((25, 2),), {"grid": (3, 3)}),
    "attention": (ops.window_attention, ((2, 3, 4, 12), (2, 4, 4)), {"num_heads": 2}),
    "mask": (ops.window_attention, ((2, 3, 4, 12), (2, 4, 4)), {"num_heads": 2, "apart": APART}),
    "dropout": (ops.window_attention, ((2, 3, 4, 12), (2, 4, 4)), DROPPED),
    "large scores": (
        lambda x, b, /, **settings: ops.window_attention(40 * x, b, **settings),
        ((1, 3, 4, 12), (2, 4, 4)),
        {"num_heads": 2, "apart": APART},
    ),
}


@pytest.mark.parametrize("piece", [1, 20, 100, 1 << 17])
@pytest.mark.parametrize("kept", [0, 1 << 24])
@pytest.mark.parametrize("name", [name for name in OPS if name != "large scores"])
def test_the_gradients_of_an_op_agree_with_differences(
    name: str, kept: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "_PIECE", piece)  # windows, images or heads at a time
    monkeypatch.setattr(ops, "_MOST_KEPT", kept)
    op, shapes, settings = OPS[name]
    rng = np.random.default_rng(0)
    if "dropout" in settings:
        settings = {**settings, "rng": np.random.default_rng(1)}
    assert check_op(op, [rng.standard_normal(shape) for shape in shapes], settings, rng=rng).ok


@pytest.mark.parametrize("factor", [1.0, 8.0, 15.0])
def test_fused_attention_is_that_of_its_parts(
    factor: float, torch: ModuleType, dtype: np.dtype, device: str
) -> None:
    rng = np.random.default_rng(0)
    qkv = (factor * rng.standard_normal((2, 3, 4, 12))).astype(dtype)
    bias = rng.standard_normal((2, 4, 4)).astype(dtype)
    dy = rng.standard_normal((2, 3, 4, 4)).astype(dtype)
    y, pullback = ops.window_attention(to_device(qkv, device), to_device(bias, device), 2, APART)
    dqkv, dbias = pullback(to_device(dy, device))

    leaf, leaf_bias = (torch.tensor(array, requires_grad=True) for array in (qkv, bias))
    q, k, v = leaf.reshape(2, 3, 4, 3, 2, 2).permute(3, 0, 1, 4, 2, 5)
    mask = torch.tensor(np.where(APART, -100.0, 0.0).astype(dtype))[:, None]
    weights = (q @ k.transpose(-1, -2) / 2**0.5 + leaf_bias + mask).softmax(-1)
    expected = (weights @ v).transpose(2, 3).reshape(2, 3, 4, 4)
    expected.backward(torch.tensor(dy))
    # Scores of some thousand are rounded to 1e-4 in float32, and exp makes that a relative error.
    if dtype == np.float64 or factor == 1:
        assert_close(y, expected)
        assert_close(dqkv, leaf.grad)
        assert_close(dbias, leaf_bias.grad)
    assert np.isfinite(as_numpy(dqkv)).all()


@pytest.mark.parametrize("shift", [-500.0, -100.0, 100.0, 500.0])
def test_scores_that_are_all_far_from_zero_weigh_as_those_near_it(
    shift: float, dtype: np.dtype
) -> None:
    rng = np.random.default_rng(0)
    qkv = rng.standard_normal((2, 3, 4, 12)).astype(dtype)
    bias = np.round(rng.standard_normal((2, 4, 4)) * 16).astype(dtype) / 16
    dy = rng.standard_normal((2, 3, 4, 4)).astype(dtype)
    near, far = (ops.window_attention(qkv, b, 2, APART) for b in (bias, bias + dtype.type(shift)))
    for ours, expected in zip((far[0], *far[1](dy)), (near[0], *near[1](dy)), strict=True):
        # In float32 a score of 500 is good to 3e-5, and so are the weights.
        assert_close(ours, expected, scale=(1 + abs(shift)) * float(np.linalg.norm(expected)))


@pytest.mark.parametrize("name", OPS)
def test_an_op_calls_nothing_that_cupy_lacks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op, shapes, settings = OPS[name]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in shapes]

    def run() -> list[Any]:
        noise = {"rng": np.random.default_rng(1)} if "dropout" in settings else {}
        value, pullback = op(*arrays, **settings, **noise)
        return [value, *pullback(np.ones_like(value))]

    expected = run()
    for module in list(sys.modules.values()):
        name = getattr(module, "__name__", "")
        if name.startswith("numpyvit.ops.") and hasattr(module, "array_module"):
            monkeypatch.setattr(module, "array_module", lambda *_: CuPyLike())
    for ours, theirs in zip(run(), expected, strict=True):
        assert_close(ours, theirs)


def test_an_inverse_order_says_where_tokens_stand() -> None:
    np.testing.assert_array_equal(inverse_order(np.array([3, -1, 0]), 4), [2, -1, -1, 0])
