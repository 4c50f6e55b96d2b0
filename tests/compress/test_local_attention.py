"""Attention to patches near by, against full attention with a mask written out in PyTorch."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit import Tensor, gradients, no_grad
from numpyvit.backend import to_device
from numpyvit.nn import Attention, Block, LayerNorm, Mlp, local, use_generator
from numpyvit.nn.local import LocalAttention, Locality

CASES = [
    Locality((4, 4), 2, "window"),
    Locality((4, 6), 3, "window", shift=1),
    Locality((5, 4), 3, "window"),
    Locality((4, 5), 3),
    Locality((11, 9), 5),
    Locality((3, 3), 3),
    Locality((3, 4), 1),
]
each_case = pytest.mark.parametrize("locality", CASES, ids=str)


@pytest.fixture(params=[2, 8], autouse=True)
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbourhoods in many small tiles, and in one."""
    monkeypatch.setattr(local, "_TILE", request.param)


def may_look(locality: Locality, asks: tuple[int, int], asked: tuple[int, int]) -> bool:
    """By the definition, one axis at a time."""
    for length, a, b in zip(locality.grid, asks, asked, strict=True):
        if locality.kind == "window":
            away = locality.size - locality.shift
            if (a + away) // locality.size != (b + away) // locality.size:
                return False
        else:
            first = a - locality.size // 2
            while first < 0:
                first += 1
            while first + locality.size > length:
                first -= 1
            if not first <= b < first + locality.size:
                return False
    return True


def mask_of(locality: Locality, front: int) -> np.ndarray:
    places = [(r, c) for r in range(locality.grid[0]) for c in range(locality.grid[1])]
    mask = np.ones((front + len(places),) * 2, bool)
    mask[front:, front:] = [[may_look(locality, a, b) for b in places] for a in places]
    return mask


def torchs(torch: ModuleType, state: dict[str, Any], x: Any, mask: np.ndarray, heads: int) -> Any:
    b, n, d = x.shape
    qkv = x @ state["qkv.weight"].T + state["qkv.bias"]
    q, k, v = qkv.reshape(b, n, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) / (d // heads) ** 0.5
    weights = scores.masked_fill(~torch.tensor(mask), -torch.inf).softmax(-1)
    y = (weights @ v).transpose(1, 2).reshape(b, n, d)
    return y @ state["proj.weight"].T + state["proj.bias"], weights


@each_case
@pytest.mark.parametrize("front", [0, 2])
def test_local_attention_is_full_attention_with_a_mask(
    locality: Locality,
    front: int,
    torch: ModuleType,
    device: str,
    dtype: np.dtype,
    rng: np.random.Generator,
) -> None:
    ours = LocalAttention(6, 2, locality, rng=rng).to(dtype, device)
    tokens = front + locality.grid[0] * locality.grid[1]
    x = rng.standard_normal((2, tokens, 6)).astype(dtype)
    x.setflags(write=False)
    dy = rng.standard_normal(x.shape).astype(dtype)
    state = {
        name: torch.tensor(Tensor(parameter.data).numpy(), requires_grad=True)
        for name, parameter in ours.named_parameters()
    }
    theirs_x = torch.tensor(x, requires_grad=True)
    expected, _ = torchs(torch, state, theirs_x, mask_of(locality, front), 2)
    expected.backward(torch.tensor(dy))

    ours_x = Tensor(to_device(x, device), requires_grad=True)
    y = ours(ours_x)
    assert_close(y, expected)
    found = gradients(y, [ours_x, *ours.parameters()], to_device(dy, device))
    for name, gradient, leaf in zip(["x", *state], found, [theirs_x, *state.values()], strict=True):
        assert_close(gradient, leaf.grad, op=name)


@each_case
def test_the_weights_are_zero_where_nobody_may_look(
    locality: Locality, torch: ModuleType, rng: np.random.Generator
) -> None:
    ours = LocalAttention(6, 2, locality, rng=rng).to("float64")
    x = rng.standard_normal((1, 1 + locality.grid[0] * locality.grid[1], 6))
    maps: list[Tensor] = []
    with no_grad():
        y = ours(Tensor(x), maps)
        state = {name: torch.tensor(array) for name, array in ours.state_dict().items()}
        expected, weights = torchs(torch, state, torch.tensor(x), mask_of(locality, 1), 2)
        assert_close(ours(Tensor(x)), y)
    assert_close(y, expected)
    assert_close(maps[0], weights)
    assert ((maps[0].data != 0) == mask_of(locality, 1)).all()


@pytest.mark.parametrize("keep", [1, 2, 4])
def test_a_block_computes_the_first_tokens_alone(
    keep: int, device: str, rng: np.random.Generator
) -> None:
    attention = LocalAttention(6, 2, Locality((4, 4), 3), rng=rng)
    block = Block(6, attention, Mlp(6, 12, rng=rng)).to("float64", device)
    x = Tensor(to_device(rng.standard_normal((2, 18, 6)), device), requires_grad=True)
    whole, cut = block(x)[:, :keep], block(x, None, keep)
    assert_close(cut, whole)
    dy = to_device(rng.standard_normal(cut.shape), device)
    sources = [x, *block.parameters()]
    pairs = zip(gradients(cut, sources, dy), gradients(whole, sources, dy), strict=True)
    for found, expected in pairs:
        assert_close(found, expected)


def test_a_neighbourhood_as_large_as_the_grid_is_full_attention(rng: np.random.Generator) -> None:
    full = Attention(6, 2, qk_norm=LayerNorm, rng=rng).to("float64")
    near = LocalAttention.of(full, Locality((5, 5), 5))
    x = Tensor(rng.standard_normal((2, 26, 6)), requires_grad=True)
    assert_close(near(x), full(x))
    dy = rng.standard_normal(x.shape)
    sources = [x, *full.parameters()]  # of both
    pairs = zip(gradients(near(x), sources, dy), gradients(full(x), sources, dy), strict=True)
    for found, expected in pairs:
        assert_close(found, expected)


def test_dropout_is_drawn_in_training_only_and_repeatable(rng: np.random.Generator) -> None:
    near = LocalAttention(6, 2, Locality((4, 4), 3), attention_dropout=0.3, rng=rng)
    x = Tensor(rng.standard_normal((2, 17, 6)).astype("float32"))

    def output(seed: int) -> np.ndarray:
        with use_generator(np.random.default_rng(seed)), no_grad():
            return near(x).data

    assert_same_bits(output(1), output(1))
    assert (output(1) != output(2)).any()
    near.eval()
    assert_same_bits(output(1), output(2))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 5}, r"\[Locality\] expected a size of at most 4 on a grid of 4 x 6 patches"),
        ({"size": 2}, r"expected an odd size, got 2; take 1 or 3"),
        ({"size": 0}, r"'size' must be positive"),
        ({"size": 3, "kind": "windows"}, r"unknown kind 'windows'"),
        ({"size": 3, "shift": 1}, r"expected a shift from 0"),
        ({"size": 2, "kind": "window", "shift": 2}, r"expected a shift from 0"),
        ({"size": 3.0}, r"of whole numbers, got \(4, 6\), 3.0 and 0"),
        ({"size": 2, "kind": "window", "shift": 0.5}, r"of whole numbers, got .* 2 and 0.5"),
        ({"size": 3, "grid": (4,)}, r"expected a grid \(rows, columns\).*got \(4,\)"),
        ({"size": 3, "grid": 4}, r"expected a grid \(rows, columns\).*got 4"),
    ],
)
def test_squares_that_cannot_be_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Locality(**{"grid": (4, 6), **fields})


def test_fewer_tokens_than_patches_are_refused(rng: np.random.Generator) -> None:
    near = LocalAttention(6, 2, Locality((4, 4), 3), rng=rng)
    with pytest.raises(ValueError, match="expected at least 4 x 4 tokens, got 15"):
        near(Tensor(rng.standard_normal((1, 15, 6)).astype("float32")))


def test_the_printed_layer_says_who_looks_at_whom(rng: np.random.Generator) -> None:
    near = LocalAttention(6, 2, Locality((4, 6), 3), rng=rng)
    assert "num_heads=2, neighbourhood 3x3 of 4x6" in repr(near)
