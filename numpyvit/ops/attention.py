"""Scaled dot-product attention, fused: softmax(q k^T * scale + bias) v (Vaswani et al. 2017).

The matrices of N x M weights are by far the largest thing here. They are worked on a few heads at a
time, so that they stay in a core's cache from one pass to the next, and passed over as rarely as
possible. They are never normalised: with E = exp(scores) and row sums r, the output is (E v) / r,
and in the gradient every 1/r moves onto an (N, K) array as well. The softmax's own gradient needs
the row sums of (weights * dweights), which equal those of (output * doutput), K values a row.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numpyvit.backend import Array, Generator, array_module, device_of, matmul_into
from numpyvit.ops.regularization import keep_mask
from numpyvit.ops.small_products import product, right_side, transposed
from numpyvit.ops.tiled_attention import Piece, TiledAttention, pieces, softmax_slopes
from numpyvit.ops.types import Needs, OpResult, sum_to
from numpyvit.threads import most_threads, run_tiles

_SAFE_EXPONENT = 30.0  # exp of +-30 is far from float32's limits: no row needs shifting
# Weights worked on at a time: with their gradients they fit a core's cache. Where several threads
# work, larger pieces pay, as each call then takes longer than to pass on the interpreter's lock.
_PIECE = 1 << 17
_MOST_KEPT = 1 << 24  # weights; where there are more, they are computed a second time


def attention(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    /,
    scale: float | None = None,
    dropout: float = 0.0,
    rng: Generator | None = None,
    recorded: bool = True,
) -> OpResult:
    """Attention of queries `q` (..., N, K) to keys `k` (..., M, K) with values `v` (..., M, V).

    `bias`, broadcast to (..., N, M), is added to the scaled scores. `scale` is K**-0.5 by default;
    `dropout` zeroes weights with that probability and needs `rng`. Returns (..., N, V).
    """
    _check_shapes(q, k, v)
    xp = array_module(q, k, v, bias)
    y = xp.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    backward = _attend(q, k, v, bias, y, _Settings(scale, dropout, rng, recorded))

    def pullback(dy: Array, needs: Needs = (True,) * 4) -> tuple[Array | None, ...]:
        dq, dk, dv = (
            xp.empty(array.shape, array.dtype) if need else None
            for array, need in zip((q, k, v), needs, strict=False)
        )
        bias_needed = bias is not None and needs[3]
        dscores = xp.empty((*q.shape[:-1], k.shape[-2]), q.dtype) if bias_needed else None
        backward(dy, dq, dk, dv, dscores)
        dbias = sum_to(dscores, bias) if bias_needed else None
        return (dq, dk, dv, dbias)[: len(needs)]

    return y, pullback


def packed_attention(
    qkv: Array,
    bias: Array | None = None,
    /,
    *,
    num_heads: int,
    dropout: float = 0.0,
    rng: Generator | None = None,
    num_queries: int | None = None,
    recorded: bool = True,
) -> OpResult:
    """Self-attention on one projection: `qkv` (B, N, 3*D), rows [q heads | k heads | v heads].

    Queries, keys and values stay strided views of `qkv`, their gradients are written into views of
    one array, and the output (B, N, D) has its heads merged without a copy. With `num_queries` M
    only the first M tokens ask, and the output is (B, M, D). `bias`, broadcast to (B, H, M, N), is
    added to the scaled scores.
    """
    b, n, width = qkv.shape
    d = width // 3
    if d * 3 != width or d % num_heads:
        raise ValueError(
            f"[packed_attention] expected a last axis of 3 * {num_heads} heads * head width, "
            f"got {width}"
        )
    xp = array_module(qkv, bias)
    asking = n if num_queries is None else num_queries
    q, k, v = _heads_of(qkv, 3, num_heads)
    y = xp.empty((b, asking, d), qkv.dtype)
    asked, merged = q[:, :, :asking], _heads_of(y, 1, num_heads)[0]
    backward = _attend(asked, k, v, bias, merged, _Settings(None, dropout, rng, recorded))

    def pullback(dy: Array, needs: Needs = (True, True)) -> tuple[Array | None, ...]:
        dqkv = dq = dk = dv = None
        if needs[0]:
            dqkv = xp.empty(qkv.shape, qkv.dtype)
            dqkv[:, asking:, :d] = 0
            dq, dk, dv = _heads_of(dqkv, 3, num_heads)
            dq = dq[:, :, :asking]
        bias_needed = bias is not None and needs[1]
        dscores = xp.empty((b, num_heads, asking, n), qkv.dtype) if bias_needed else None
        backward(_heads_of(dy, 1, num_heads)[0], dq, dk, dv, dscores)
        return (dqkv, sum_to(dscores, bias) if bias_needed else None)[: len(needs)]

    return y, pullback


def _heads_of(packed: Array, parts: int, num_heads: int) -> Array:
    """Views of `parts` arrays side by side in one: b n (parts h k) -> parts b h n k."""
    b, n, width = packed.shape
    split = packed.reshape(b, n, parts, num_heads, width // (parts * num_heads))
    return split.transpose(2, 0, 3, 1, 4)


class _Settings(NamedTuple):
    """Those of an op."""

    scale: float | None
    dropout: float
    rng: Generator | None
    recorded: bool


def _attend(q, k, v, bias, y, settings):  # type: ignore[no-untyped-def]
    """Write attention into `y`; return a function (dy, dq, dk, dv, dscores) to go back.

    Only if `recorded` may it be called. It fills the gradients, those of the scores as well, and
    leaves out what is None.
    """
    scale, dropout, rng, recorded = settings
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    shape = (*q.shape[:-1], k.shape[-2])
    bias = None if bias is None else array_module(bias).broadcast_to(bias, shape)
    on_cpu = device_of(q) == "cpu"
    if on_cpu and math.prod(shape) > _MOST_KEPT:
        tiled = TiledAttention(q, k, v, bias, y, scale=scale, dropout=dropout, rng=rng)
        tiled.forward()
        return tiled.backward
    keep = keep_mask(shape, dropout, rng, like=q) if dropout else None
    cuts = pieces(shape[:-2], _piece(math.prod(shape)) / math.prod(shape[-2:])) if on_cpu else [()]
    ways_back: list[Any] = [None] * len(cuts)
    # In one array, as the system clears and hands out large ones in large pages.
    weights = array_module(q).empty(shape, q.dtype) if recorded else None

    def forward(index: int) -> None:
        parts = _parts(cuts[index], weights, q, k, v, bias, y, keep)
        way_back = _attend_at_once(scale, dropout, *parts)
        if recorded:
            ways_back[index] = way_back

    def backward(*gradients: Array | None) -> None:
        run_tiles(lambda i: ways_back[i](*_parts(cuts[i], *gradients)), len(cuts))

    run_tiles(forward, len(cuts))
    return backward


def _piece(weights: int) -> float:
    """How many of the weights to work on at a time; the bits do not depend on it."""
    if most_threads() == 1:
        return _PIECE
    return max(2 * _PIECE, min(weights / most_threads(), 4 * _PIECE))


def _parts(piece: Piece, *arrays: Array | None) -> list[Array | None]:
    return [None if array is None else array[piece] for array in arrays]


def _attend_at_once(scale, dropout, weights, *arrays):  # type: ignore[no-untyped-def]
    """`_attend` for a piece, with all weights in memory and kept for the way back."""
    q, k, v, bias, y, keep = arrays
    xp = array_module(q)
    weights = product(q, transposed(k, scale), out=weights)
    _stable_exp(weights, bias)
    inverse_sum = 1 / (weights @ xp.ones(k.shape[-2], q.dtype))[..., None]
    kept = weights if keep is None else weights * keep
    inverse = inverse_sum if keep is None else inverse_sum * (1 / (1 - dropout))
    xp.multiply(product(kept, right_side(v)), inverse, out=y)

    def backward(
        dy: Array, dq: Array | None, dk: Array | None, dv: Array | None, dscores: Array | None
    ) -> None:
        scaled = dy * inverse
        if dv is not None:
            matmul_into(kept.swapaxes(-1, -2), scaled, dv)
        if dq is None and dk is None and dscores is None:
            return
        row_sum = xp.einsum("...k,...k->...", dy, y)[..., None] * inverse_sum
        # Scaling K values a row is cheaper than N, but the bias's gradient is not scaled.
        early = scale if dscores is None else 1.0
        row_sum *= early
        slopes = product(scaled, transposed(v, early))
        softmax_slopes(slopes, row_sum, weights, None if keep is None else kept)
        if dscores is not None:
            dscores[...] = slopes
            slopes *= scale
        if dq is not None:
            product(slopes, right_side(k), out=dq)
        if dk is not None:
            matmul_into(slopes.swapaxes(-1, -2), q, dk)

    return backward


def _stable_exp(scores: Array, bias: Array | None) -> None:
    """Exp of the scores, in place, each row shifted by its maximum where that row needs it."""
    xp = array_module(scores)
    if bias is not None:
        scores += bias
    if scores.size and not (scores.min() > -_SAFE_EXPONENT and scores.max() < _SAFE_EXPONENT):
        largest, smallest = scores.max(-1, keepdims=True), scores.min(-1, keepdims=True)
        safe = (smallest > -_SAFE_EXPONENT) & (largest < _SAFE_EXPONENT)
        scores -= xp.where(safe, 0, largest)
    xp.exp(scores, out=scores)


def _check_shapes(q: Array, k: Array, v: Array) -> None:
    fits = q.shape[-1] == k.shape[-1] and k.shape[:-1] == v.shape[:-1]
    if not (
        fits and q.shape[:-2] == k.shape[:-2] and math.prod((*q.shape, *k.shape, *v.shape)) > 0
    ):
        raise ValueError(
            "[attention] expected q (..., N, K), k (..., M, K) and v (..., M, V) with equal "
            f"leading axes, got {q.shape}, {k.shape} and {v.shape}"
        )
