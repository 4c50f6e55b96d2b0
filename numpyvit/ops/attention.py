"""Scaled dot-product attention, fused: softmax(q k^T * scale + bias) v (Vaswani et al. 2017).

The matrix of N x N weights is by far the largest thing here, so it is passed over as rarely as
possible. It is never normalised: with E = exp(scores) and row sums r, the output is (E v) / r, and
in the gradient every 1/r moves onto an (N, K) array as well. The softmax's own gradient needs the
row sums of (weights * dweights), which equal those of (output * doutput), K values a row, not N.
"""

from __future__ import annotations

import math

from numpyvit.backend import Array, Generator, array_module, matmul_into
from numpyvit.ops.regularization import keep_mask
from numpyvit.ops.types import Needs, OpResult, sum_to

_SAFE_EXPONENT = 30.0  # exp of +-30 is far from float32's limits: no row needs shifting


def attention(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    /,
    scale: float | None = None,
    dropout: float = 0.0,
    rng: Generator | None = None,
) -> OpResult:
    """Attention of queries `q` (..., N, K) to keys `k` (..., M, K) with values `v` (..., M, V).

    `bias`, broadcast to (..., N, M), is added to the scaled scores. `scale` is K**-0.5 by default;
    `dropout` zeroes weights with that probability and needs `rng`. Returns (..., N, V).
    """
    _check_shapes(q, k, v)
    xp = array_module(q, k, v, bias)
    y = xp.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    backward = _attend(q, k, v, bias, y, scale, dropout, rng)

    def pullback(dy: Array, needs: Needs = (True,) * 4) -> tuple[Array | None, ...]:
        dq, dk, dv = (
            xp.empty(array.shape, array.dtype) if need else None
            for array, need in zip((q, k, v), needs, strict=False)
        )
        bias_needed = bias is not None and needs[3]
        dscores = backward(dy, dq, dk, dv, bias_needed)
        dbias = sum_to(dscores, bias) if bias_needed else None
        return (dq, dk, dv, dbias)[: len(needs)]

    return y, pullback


def packed_attention(
    qkv: Array,
    /,
    num_heads: int,
    dropout: float = 0.0,
    rng: Generator | None = None,
    num_queries: int | None = None,
) -> OpResult:
    """Self-attention on one projection: `qkv` (B, N, 3*D), rows [q heads | k heads | v heads].

    Queries, keys and values stay strided views of `qkv`, their gradients are written into views of
    one array, and the output (B, N, D) has its heads merged without a copy. With `num_queries` M
    only the first M tokens ask, and the output is (B, M, D).
    """
    b, n, width = qkv.shape
    d = width // 3
    if d * 3 != width or d % num_heads:
        raise ValueError(
            f"[packed_attention] expected a last axis of 3 * {num_heads} heads * head width, "
            f"got {width}"
        )
    xp = array_module(qkv)
    asking = n if num_queries is None else num_queries
    q, k, v = _heads_of(qkv, 3, num_heads)
    y = xp.empty((b, asking, d), qkv.dtype)
    backward = _attend(
        q[:, :, :asking], k, v, None, _heads_of(y, 1, num_heads)[0], None, dropout, rng
    )

    def pullback(dy: Array) -> tuple[Array]:
        dqkv = xp.empty(qkv.shape, qkv.dtype)
        dqkv[:, asking:, :d] = 0
        dq, dk, dv = _heads_of(dqkv, 3, num_heads)
        backward(_heads_of(dy, 1, num_heads)[0], dq[:, :, :asking], dk, dv, False)
        return (dqkv,)

    return y, pullback


def _heads_of(packed: Array, parts: int, num_heads: int) -> Array:
    """Views of `parts` arrays side by side in one: b n (parts h k) -> parts b h n k."""
    b, n, width = packed.shape
    split = packed.reshape(b, n, parts, num_heads, width // (parts * num_heads))
    return split.transpose(2, 0, 3, 1, 4)


def _attend(q, k, v, bias, y, scale, dropout, rng):  # type: ignore[no-untyped-def]
    """Write attention into `y`; return a function (dy, dq, dk, dv, scores_needed) to go back.

    That function fills dq, dk and dv, leaves out those that are None, and returns the gradient of
    the scores, which is also the bias's; None where only dv is wanted.
    """
    xp = array_module(q)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q = xp.multiply(q, scale, out=xp.empty(q.shape, q.dtype))  # contiguous, whatever q was
    k_t = xp.ascontiguousarray(k.swapaxes(-1, -2))
    exp_scores = _stable_exp(q @ k_t, bias)
    ones = xp.ones(k.shape[-2], q.dtype)
    inverse_sum = (1 / (exp_scores @ ones))[..., None]
    kept = exp_scores
    if dropout:
        keep = keep_mask(exp_scores.shape, dropout, rng, like=q)
        kept = exp_scores * keep
        inverse_keep = 1 / (1 - dropout)
    weighted = kept @ v
    weighted *= inverse_sum * inverse_keep if dropout else inverse_sum
    y[...] = weighted

    def backward(
        dy: Array, dq: Array | None, dk: Array | None, dv: Array | None, scores_needed: bool
    ) -> Array | None:
        scaled = dy * (inverse_sum * inverse_keep if dropout else inverse_sum)
        if dv is not None:
            matmul_into(kept.swapaxes(-1, -2), scaled, dv)
        if dq is None and dk is None and not scores_needed:
            return None
        row_sum = xp.einsum("...k,...k->...", dy, weighted)[..., None]
        row_sum *= inverse_sum
        dscores = scaled @ xp.ascontiguousarray(v.swapaxes(-1, -2))
        if dropout:
            dscores *= keep
        dscores -= row_sum
        dscores *= exp_scores
        if dq is not None:
            xp.multiply(dscores @ k, scale, out=dq)
        if dk is not None:
            matmul_into(dscores.swapaxes(-1, -2), q, dk)
        return dscores

    return backward


def _stable_exp(scores: Array, bias: Array | None) -> Array:
    """Exp of the scores, in place, each row shifted by its maximum where that is needed."""
    xp = array_module(scores)
    if bias is not None:
        scores += bias
    if scores.size and not (scores.min() > -_SAFE_EXPONENT and scores.max() < _SAFE_EXPONENT):
        scores -= scores.max(-1, keepdims=True)
    return xp.exp(scores, out=scores)


def _check_shapes(q: Array, k: Array, v: Array) -> None:
    fits = q.shape[-1] == k.shape[-1] and k.shape[:-1] == v.shape[:-1]
    if not (fits and q.shape[:-2] == k.shape[:-2] and math.prod(q.shape) > 0):
        raise ValueError(
            "[attention] expected q (..., N, K), k (..., M, K) and v (..., M, V) with equal "
            f"leading axes, got {q.shape}, {k.shape} and {v.shape}"
        )
