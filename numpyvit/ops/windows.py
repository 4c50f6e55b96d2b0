"""What windows of tokens need: another order of tokens, a bias by distance, attention inside."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

from numpyvit.backend import Array, Generator, array_module, device_of, matmul_into
from numpyvit.ops.regularization import keep_mask
from numpyvit.ops.small_products import product, right_side, transposed
from numpyvit.ops.tiled_attention import Piece, pieces, softmax_slopes
from numpyvit.ops.types import Needs, OpResult
from numpyvit.threads import run_tiles

APART = -100.0  # added to the scores of tokens that do not belong together (Liu et al. 2021)

_SAFE_EXPONENT = 30.0  # exp of +-30 is far from float32's limits: no row needs shifting
# Weights worked on at a time: with their gradients they fit a core's cache. A constant, because the
# bias's gradient is a sum over pieces, whose bits must not depend on the number of threads.
_PIECE = 1 << 17
_MOST_KEPT = 1 << 24  # weights; where there are more, they are computed a second time


def rearrange(x: Array, /, order: Array) -> OpResult:
    """Tokens in another order: (B, N, C) -> (B, M, C), token j of the result is `order[j]` of `x`.

    `order` (M,) holds integers; -1 gives zeros. None is taken twice, so that the gradient is a
    rearrangement as well: tokens that were left out get zeros.
    """
    xp = array_module(x)
    order = xp.asarray(order)

    def pullback(dy: Array) -> tuple[Array]:
        return (_taken(dy, inverse_order(order, x.shape[1])),)

    return _taken(x, order), pullback


def inverse_order(order: Array, count: int) -> Array:
    """Where each of `count` tokens stands in `order`, -1 for those that are not in it."""
    xp = array_module(order)
    inverse = xp.full(count, -1, order.dtype)
    places = xp.arange(len(order), dtype=order.dtype)
    inverse[order[order >= 0]] = places[order >= 0]
    return inverse


def _taken(x: Array, order: Array) -> Array:
    y = array_module(x).take(x, order, axis=1)  # -1 takes the last token
    if (order < 0).any():
        y[:, order < 0] = 0
    return y


def relative_bias(table: Array, /, grid: tuple[int, int], in_front: int = 0) -> OpResult:
    """What is added to the scores by how far two tokens lie apart: (R, H) -> (H, N, N).

    Tokens of a `grid` of h x w that lie `dy` rows and `dx` columns apart (query minus key) share
    row (dy + h - 1)(2w - 1) + dx + w - 1 of the table's (2h - 1)(2w - 1) (Liu et al. 2021, equation
    4). Where there are tokens `in_front`, it has three more: for what these ask of the grid, for
    what the grid asks of them, and for what they ask of each other (Bao et al. 2022, BEiT). Raises
    ValueError for another table.
    """
    (h, w), (rows, heads) = grid, table.shape
    places = (2 * h - 1) * (2 * w - 1)
    if rows != (expected := places + 3 * bool(in_front)):
        raise ValueError(
            f"[relative_bias] expected a table of {expected} rows for {h} x {w} tokens"
            f"{f' and {in_front} in front' * bool(in_front)}, got {rows}; resize the table or "
            "choose another grid"
        )
    xp = array_module(table)
    y = xp.take(table.T, relative_index(xp, grid, in_front), axis=1)

    def pullback(dy: Array) -> tuple[Array]:
        # h (r c) (s d) -> h c d r s: sums where r - s is the same, then where c - d is
        inside = dy[:, in_front:, in_front:]
        by_rows = inside.reshape(heads, h, w, h, w).transpose(0, 2, 4, 1, 3)
        by_columns = _sums_along_diagonals(by_rows).transpose(0, 3, 1, 2)
        dtable = _sums_along_diagonals(by_columns).reshape(heads, places)
        if in_front:
            asking, asked = dy[:, :in_front], dy[:, in_front:, :in_front]
            parts = asking[:, :, in_front:], asked, asking[:, :, :in_front]
            three = xp.stack([part.sum((1, 2)) for part in parts], axis=1)
            dtable = xp.concatenate([dtable, three], axis=1)
        return (dtable.T,)

    return y, pullback


@functools.lru_cache(16)  # (N, N) each: all layers of a few models share them
def relative_index(xp: Any, grid: tuple[int, int], in_front: int = 0) -> Array:
    """The table's row for each pair of tokens (N, N); `xp` is the array library."""
    dy, dx = (xp.arange(side)[:, None] - xp.arange(side) + side - 1 for side in grid)
    n, places = grid[0] * grid[1], (2 * grid[0] - 1) * (2 * grid[1] - 1)
    index = xp.full((in_front + n, in_front + n), places + 2)
    index[:in_front, in_front:] = places
    index[in_front:, :in_front] = places + 1
    steps = dy[:, None, :, None] * (2 * grid[1] - 1) + dx[:, None]  # r c s d
    index[in_front:, in_front:] = steps.reshape(n, n)
    return index


def _sums_along_diagonals(x: Array) -> Array:
    """(..., w, w) -> (..., 2w-1): the sum of all x[i, j] with the same i - j, smallest first."""
    w = x.shape[-1]
    # With rows of 2w, each row read in steps of 2w - 1 stands one place further to the right.
    wide = array_module(x).zeros((*x.shape[:-1], 2 * w), x.dtype)
    wide[..., :w] = x[..., ::-1]
    flat = wide.reshape(*x.shape[:-2], 2 * w * w)[..., : w * (2 * w - 1)]
    return flat.reshape(*x.shape[:-1], 2 * w - 1).sum(-2)


def window_attention(
    qkv: Array,
    bias: Array,
    /,
    num_heads: int,
    apart: Array | None = None,
    dropout: float = 0.0,
    rng: Generator | None = None,
) -> OpResult:
    """Self-attention inside each of W windows, fused: (B, W, N, 3*D) -> (B, W, N, D).

    `qkv` is one projection, rows [q heads | k heads | v heads]; `bias` (H, N, N) is added to the
    scaled scores of all windows, and APART where `apart` (W, N, N) is True (no token is apart from
    itself). Queries, keys and values stay views of `qkv`, and the heads come out merged.
    """
    b, w, n, width = qkv.shape
    _check(qkv, bias, num_heads)
    xp = array_module(qkv, bias)
    y = xp.empty((b, w, n, width // 3), qkv.dtype)
    shape = (b, w, num_heads, n, n)
    together = None if apart is None else _together(xp, apart, shape, qkv.dtype)
    keep = keep_mask(shape, dropout, rng, like=qkv) if dropout else None  # type: ignore[arg-type]
    heads = (*_heads_of(qkv, 3, num_heads), *_heads_of(y, 1, num_heads))
    views = (*heads, xp.broadcast_to(bias, shape), together, keep)
    on_cpu = device_of(qkv) == "cpu"
    cuts = pieces(shape[:3], _PIECE / (n * n)) if on_cpu else list[Piece]([()])
    is_kept = math.prod(shape) <= _MOST_KEPT
    ways_back: list[Any] = [None] * len(cuts)

    def forward(index: int) -> None:
        way_back = _attend(dropout, *_parts(cuts[index], views))
        ways_back[index] = way_back if is_kept else None

    def pullback(dy: Array, needs: Needs = (True, True)) -> tuple[Array | None, ...]:
        dqkv = xp.empty(qkv.shape, qkv.dtype) if needs[0] else None
        dheads = (None,) * 3 if dqkv is None else _heads_of(dqkv, 3, num_heads)
        gradients = (*_heads_of(dy, 1, num_heads), *dheads)
        dbiases: list[Array | None] = [None] * len(cuts)

        def backward(index: int) -> None:
            if not is_kept:  # writes the same output a second time
                ways_back[index] = _attend(dropout, *_parts(cuts[index], views))
            dbiases[index] = ways_back[index](*_parts(cuts[index], gradients), needs[1])
            ways_back[index] = None

        run_tiles(backward, len(cuts))
        return dqkv, _sum_up(dbiases, cuts, bias) if needs[1] else None

    run_tiles(forward, len(cuts))
    return y, pullback


def _check(qkv: Array, bias: Array, num_heads: int) -> None:
    n, width = qkv.shape[-2:]
    if qkv.ndim != 4 or width % (3 * num_heads) or bias.shape != (num_heads, n, n):
        raise ValueError(
            f"[window_attention] expected (B, W, N, 3 * {num_heads} heads * head width) and a bias "
            f"{(num_heads, n, n)}, got {qkv.shape} and {bias.shape}"
        )


def _heads_of(packed: Array, parts: int, num_heads: int) -> Array:
    """Views of `parts` arrays side by side in one: b w n (parts h k) -> parts b w h n k."""
    *outer, width = packed.shape
    split = packed.reshape(*outer, parts, num_heads, width // (parts * num_heads))
    return split.transpose(3, 0, 1, 4, 2, 5)


def _together(xp: Any, apart: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """1 where two tokens belong together, 0 where they are apart: (B, W, H, N, N), broadcast."""
    return xp.broadcast_to((~xp.asarray(apart)).astype(dtype)[:, None], shape)


def _parts(piece: Piece, arrays: Iterable[Array | None]) -> list[Array | None]:
    return [None if array is None else array[piece] for array in arrays]


def _sum_up(dbiases: list[Any], cuts: list[Piece], bias: Array) -> Array:
    """The gradient of the bias out of those of the pieces, each for some or for all heads."""
    total = array_module(bias).zeros(bias.shape, bias.dtype)
    for dbias, piece in zip(dbiases, cuts, strict=True):
        heads = piece[2] if len(piece) == 3 else slice(None)
        total[heads] += dbias
    return total


def _attend(dropout, q, k, v, y, bias, together, keep):  # type: ignore[no-untyped-def]
    """Write the attention of some windows into `y`; return the way back from `dy`.

    It fills dq, dk and dv, all or none of them, and gives the gradient of the bias if wanted.
    """
    xp = array_module(q)
    scale = q.shape[-1] ** -0.5
    weights = _exp(product(q, transposed(k, scale)), bias, together)
    inverse_sum = 1 / (weights @ xp.ones(k.shape[-2], q.dtype))[..., None]
    kept = weights if keep is None else weights * keep
    inverse = inverse_sum if keep is None else inverse_sum * (1 / (1 - dropout))
    xp.multiply(product(kept, right_side(v)), inverse, out=y)

    def backward(
        dy: Array, dq: Array | None, dk: Array | None, dv: Array | None, bias_needed: bool
    ) -> Array | None:
        scaled = dy * inverse
        row_sum = xp.einsum("...k,...k->...", dy, y)[..., None] * inverse_sum
        row_sum *= scale
        if dv is not None:
            matmul_into(kept.swapaxes(-1, -2), scaled, dv)
        # Scaling K values a row is cheaper than N; the bias's gradient is scaled back, once summed.
        slopes = product(scaled, transposed(v, scale))
        softmax_slopes(slopes, row_sum, weights, None if keep is None else kept)
        if dq is not None:
            product(slopes, right_side(k), out=dq)
            matmul_into(slopes.swapaxes(-1, -2), q, dk)
        if not bias_needed:
            return None
        dbias = slopes.reshape(-1, *slopes.shape[-3:]).sum(0)
        dbias /= scale
        return dbias

    return backward


def _exp(scores: Array, bias: Array, together: Array | None) -> Array:
    """Exp of the scores, in place, each row shifted by its maximum unless no row needs that.

    Where no score is far from 0, what APART leaves of a weight is below float64's precision (e^-40
    of its row at most), and 0 in its stead spares the slow arithmetic of tiny float32 numbers.
    """
    xp = array_module(scores)
    scores += bias
    # A token is never apart from itself, so the diagonal says that no row is small as a whole.
    own = scores.diagonal(0, -2, -1)
    if own.min() > -_SAFE_EXPONENT and scores.max() < _SAFE_EXPONENT:
        xp.exp(scores, out=scores)
        if together is not None:
            scores *= together
        return scores
    if together is not None:
        scores += APART * (1 - together)
    scores -= scores.max(-1, keepdims=True)
    return xp.exp(scores, out=scores)
