"""Attention in pieces, in tiles and at once: the same function, whatever the size of the parts."""

from __future__ import annotations

import itertools
import math
import sys
import tracemalloc
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close

from numpyvit import ops, threads
from numpyvit.check import check_op
from numpyvit.ops import small_products
from numpyvit.ops.tiled_attention import TiledAttention, pieces

ATTENTION = sys.modules["numpyvit.ops.attention"]
TILED = sys.modules["numpyvit.ops.tiled_attention"]

# Leading axes, queries, keys: one tile and many, edges that do not fit, blocks of unequal length.
SHAPES = [((), 3, 4), ((2,), 23, 17), ((2, 3), 9, 31), ((1,), 1, 40), ((1, 2), 40, 1), ((9,), 5, 6)]

each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.fixture
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 4 queries and 6 keys, for matrices of any size."""
    monkeypatch.setattr(ATTENTION, "_MOST_KEPT", 0)
    monkeypatch.setattr(TILED, "_TILE_QUERIES", 4)
    monkeypatch.setattr(TILED, "_TILE_KEYS", 6)
    monkeypatch.setattr(TILED, "_BLOCK_TILES", 2)


@pytest.fixture(params=["at once", "in pieces", "in tiles"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "in pieces":
        monkeypatch.setattr(ATTENTION, "_PIECE", 1)
    elif request.param == "in tiles":
        request.getfixturevalue("tiles")
    return request.param


@pytest.fixture(params=["small products", "whole products"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products split into parts of a few rows, or as they are, whatever the machine prefers."""
    split = request.param == "small products"
    monkeypatch.setattr(small_products, "small_products_are_fast", lambda: split)
    monkeypatch.setattr(small_products, "_SMALL", 200)
    monkeypatch.setattr(small_products, "_WORTH_COPYING", 1)


def draw(rng: np.random.Generator, shape: Any, dtype: np.dtype, bias: bool = False) -> list[Any]:
    """q, k, v, dy, and a bias if asked for."""
    lead, n, m = shape
    sizes = [(*lead, n, 4), (*lead, m, 4), (*lead, m, 5), (*lead, n, 5)]
    return [
        rng.standard_normal(size).astype(dtype) for size in ([*sizes, (n, m)] if bias else sizes)
    ]


def run(q: Any, k: Any, v: Any, dy: Any, bias: Any = None, **given: Any) -> list[Any]:
    y, pullback = ops.attention(q, k, v, bias, **given)
    return [y, *pullback(dy, (True,) * (3 if bias is None else 4))]


def composed(
    q: Any, k: Any, v: Any, dy: Any, bias: Any = None, factor: Any = None, scale: Any = None
) -> list[Any]:
    """Attention and its gradients from simpler ops; `factor` multiplies the weights."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = scale * (q @ k.swapaxes(-1, -2))
    weights, back = ops.softmax(scores if bias is None else scores + bias)
    factor = np.ones((), q.dtype) if factor is None else factor
    dscores = back(dy @ v.swapaxes(-1, -2) * factor)[0]
    gradients = [
        scale * (dscores @ k),
        scale * (dscores.swapaxes(-1, -2) @ q),
        (weights * factor).swapaxes(-1, -2) @ dy,
    ]
    if bias is not None:
        gradients.append(dscores.reshape(-1, *bias.shape).sum(0))
    return [(weights * factor) @ v, *gradients]


def assert_all_close(found: list[Any], expected: list[Any], dtype: Any = None) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        # A gradient may be zero but for rounding, as with one key; then dy's size counts.
        assert_close(ours, theirs, dtype, scale=max(float(np.linalg.norm(theirs)), 1.0))


@each_shape
@pytest.mark.parametrize("with_bias", [False, True])
def test_every_path_is_the_composition_of_simpler_ops(
    shape: Any, with_bias: bool, path: str, products: None, dtype: np.dtype
) -> None:
    rng = np.random.default_rng(1)
    arrays = draw(rng, shape, dtype, with_bias)
    precise = [array.astype(np.float64) for array in arrays]
    assert_all_close(run(*arrays, scale=0.7), composed(*precise, scale=0.7), dtype)


@each_shape
def test_every_path_is_pytorchs(
    shape: Any, path: str, products: None, dtype: np.dtype, torch: ModuleType
) -> None:
    *arrays, dy = draw(np.random.default_rng(2), shape, dtype)
    tensors = [torch.tensor(array).requires_grad_() for array in arrays]
    y = torch.nn.functional.scaled_dot_product_attention(*tensors)
    gradients = torch.autograd.grad(y, tensors, torch.tensor(dy))
    assert_all_close(run(*arrays, dy), [a.detach().numpy() for a in (y, *gradients)])


@pytest.mark.parametrize("size", [10.0, 300.0])
def test_large_scores_are_safe_on_every_path(size: float, path: str, dtype: np.dtype) -> None:
    q, k, v, dy = draw(np.random.default_rng(3), ((2,), 13, 17), dtype)
    arrays = [size * q, k, v, dy]
    precise = [array.astype(np.float64) for array in arrays]
    found, expected = run(*arrays), composed(*precise)
    assert all(np.isfinite(array).all() for array in found)
    if dtype == np.float64:  # float32 rounds scores of thousands by more than the table allows
        assert_all_close(found, expected)


def test_scores_far_below_zero_are_safe_on_every_path(path: str, dtype: np.dtype) -> None:
    q, k, v, dy = draw(np.random.default_rng(4), ((2,), 13, 17), dtype)
    plain = run(q, k, v, dy)
    for offset in (-2000, 2000):  # the softmax does not feel a constant
        bias = np.full((13, 17), offset, dtype)
        found = run(q, k, v, dy, bias)[:4]
        assert_all_close(found, plain) if dtype == np.float64 else None
        assert all(np.isfinite(array).all() for array in found)


def test_masked_keys_get_no_weight_on_any_path(path: str) -> None:
    q, k, v, dy = draw(np.random.default_rng(5), ((2,), 13, 17), np.dtype("float64"))
    mask = np.where(np.arange(17) < 11, 0.0, -np.inf)
    found = run(q, k, v, dy, np.broadcast_to(mask, (13, 17)))
    short = run(q, k[:, :11], v[:, :11], dy)
    for ours, theirs in zip(found[:2], short[:2], strict=True):
        assert_close(ours, theirs)
    for ours, theirs in zip(found[2:4], short[2:], strict=True):
        assert_close(ours[:, :11], theirs)
        assert not ours[:, 11:].any()


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_a_query_that_may_look_at_nothing_gets_nan_and_the_others_their_value(path: str) -> None:
    q, k, v, _dy = draw(np.random.default_rng(6), ((2,), 13, 17), np.dtype("float64"))
    mask = np.zeros((13, 17))
    mask[3] = -np.inf
    y, _ = ops.attention(q, k, v, mask)
    others = np.arange(13) != 3
    assert np.isnan(y[:, 3]).all()
    assert_close(y[:, others], ops.attention(q, k, v)[0][:, others])


@each_shape
def test_dropout_masks_weights_and_gradients_alike_on_every_path(
    shape: Any, path: str, dtype: np.dtype
) -> None:
    q, k, v, dy = draw(np.random.default_rng(7), shape, dtype)
    seeded = {"dropout": 0.3}
    # With values of 1 at one key each, the output is the weights themselves.
    each_key = np.broadcast_to(np.eye(shape[2], dtype=dtype), (*shape[0], shape[2], shape[2]))
    kept, _ = ops.attention(q, k, each_key, rng=np.random.default_rng(8), **seeded)
    factor = (kept != 0) / 0.7
    found = run(q, k, v, dy, rng=np.random.default_rng(8), **seeded)
    precise = [array.astype(np.float64) for array in (q, k, v, dy)]
    assert_all_close(found, composed(*precise, factor=factor), dtype)


def test_dropout_in_tiles_keeps_the_share_it_should(tiles: None) -> None:
    q, k = np.zeros((2, 4, 61, 3)), np.zeros((2, 4, 53, 3))
    each_key = np.broadcast_to(np.eye(53), (2, 4, 53, 53))
    kept, _ = ops.attention(q, k, each_key, dropout=0.2, rng=np.random.default_rng(9))
    share = np.count_nonzero(kept) / kept.size
    assert abs(share - 0.8) < 4 * math.sqrt(0.8 * 0.2 / kept.size)
    tiles_of_mask = (kept[..., :60, :48] != 0).reshape(8, 15, 4, 8, 6).swapaxes(2, 3)
    masks = {tile.tobytes() for tile in tiles_of_mask.reshape(-1, 24)}
    assert len(masks) > 0.9 * 8 * 15 * 8  # tiles differ


@each_shape
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_bits_do_not_depend_on_the_number_of_threads(
    shape: Any, dropout: float, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: 3)
    arrays = draw(np.random.default_rng(10), shape, np.dtype("float32"), bias=True)
    arrays[0].reshape(-1, arrays[0].shape[-1])[0] *= 200  # scores that need a shift, in one row
    results = []
    for count in (1, 2, 3):
        with threads.limit_threads(count), threads.single_threaded_blas():
            rng = np.random.default_rng(11)
            results.append(run(*arrays, dropout=dropout, rng=rng))
    for several in results[1:]:
        for one, other in zip(results[0], several, strict=True):
            np.testing.assert_array_equal(one, other)


def test_only_what_is_needed_is_computed_in_tiles(tiles: None) -> None:
    q, k, v, dy, bias = draw(np.random.default_rng(12), ((2,), 13, 17), np.dtype("float64"), True)
    whole = run(q, k, v, dy, bias)[1:]
    for needs in itertools.product((False, True), repeat=4):
        found = ops.attention(q, k, v, bias)[1](dy, needs)
        for need, ours, expected in zip(needs, found, whole, strict=True):
            assert (ours is not None) == need
            if need:
                assert_close(ours, expected)


@pytest.mark.parametrize("asking", [None, 1, 7])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_on_every_path_agree_with_differences(
    asking: int | None, dropout: float, path: str, rng: np.random.Generator
) -> None:
    qkv = rng.standard_normal((2, 13, 36))
    qkv.setflags(write=False)
    given = {"num_heads": 3, "num_queries": asking, "dropout": dropout}
    given["rng"] = np.random.default_rng(13) if dropout else None
    check_op(ops.packed_attention, [qkv], given, rng=rng)


def peak_of_tiles(tokens: int) -> int:
    """Bytes of the largest moment of a forward and a backward pass."""
    q = np.zeros((1, tokens, 4), np.float32)
    tracemalloc.start()
    try:
        y, gradients = np.empty_like(q), [np.empty_like(q) for _ in range(3)]
        tiled = TiledAttention(q, q, q, None, y, scale=0.5)
        tiled.forward()
        tiled.backward(q, *gradients, None)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_tiles_take_memory_that_grows_with_the_tokens_alone(
    tiles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = peak_of_tiles(500), peak_of_tiles(1000)
    assert many < 2.5 * few
    assert many < 1000 * 1000 * 4 / 5


def test_without_a_way_back_the_bits_are_the_same(path: str, rng: np.random.Generator) -> None:
    q, k, v, _ = draw(rng, ((2, 3), 9, 31), np.dtype(np.float32))
    kept, free = (ops.attention(q, k, v, recorded=recorded)[0] for recorded in (True, False))
    np.testing.assert_array_equal(kept, free)


def test_without_a_way_back_no_weights_are_kept() -> None:
    q = np.zeros((64, 256, 8), np.float32)
    peaks = []
    for recorded in (True, False):
        tracemalloc.start()
        with threads.limit_threads(1):
            ops.attention(q, q, q, recorded=recorded)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] > 64 * 256 * 256 * 4 > 2 * peaks[1]


@pytest.mark.parametrize(
    ("shape", "heads", "sizes"),
    [
        ((), 5, [1]),
        ((7,), 3, [3, 3, 1]),
        ((7,), 0.1, [1] * 7),
        ((3, 4), 8, [8, 4]),
        ((3, 4), 100, [12]),
        ((2, 4), 2, [2] * 4),
        ((2, 1, 3), 1, [1] * 6),
    ],
)
def test_pieces_cover_every_head_once(shape: Any, heads: float, sizes: list[int]) -> None:
    covered = np.zeros((*shape, 1))
    found = pieces(shape, heads)
    assert [covered[piece].size for piece in found] == sizes
    for piece in found:
        covered[piece] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize("rows", [1, 15, 16, 37])
def test_a_product_in_parts_is_the_product(rows: int, products: None, dtype: np.dtype) -> None:
    rng = np.random.default_rng(14)
    a, b = (rng.standard_normal(size).astype(dtype) for size in [(2, 3, rows, 5), (2, 3, 5, 7)])
    assert_close(small_products.product(a, small_products.right_side(b)), a @ b)
    transposed = small_products.transposed(b, 0.5)
    assert_close(transposed, 0.5 * b.swapaxes(-1, -2))
    out = np.zeros((2, rows, 3, 7), dtype).swapaxes(1, 2)
    assert small_products.product(a, b, out=out) is out
    assert_close(out, a @ b)


def test_rows_start_at_cache_lines(dtype: np.dtype) -> None:
    for shape in [(3, 4, 16), (5, 7), (1, 33)]:
        array = small_products.empty_rows(shape, like=np.zeros((), dtype))
        assert array.shape == shape
        starts = [array[place].ctypes.data for place in np.ndindex(*shape[:-1])]
        assert not any(start % 64 for start in starts)
