"""Matrix products: general, and the linear layer's."""

from __future__ import annotations

from numpyvit.backend import Array, array_module
from numpyvit.ops.types import Needs, OpResult, sum_to


def matmul(a: Array, b: Array, /) -> OpResult:
    """`a @ b` over the last two axes, the others broadcast; vectors as in NumPy."""
    if 1 in (a.ndim, b.ndim):
        return _matmul_with_vector(a, b)

    def pullback(dy: Array, needs: Needs = (True, True)) -> tuple[Array | None, ...]:
        return (
            sum_to(dy @ b.swapaxes(-1, -2), a) if needs[0] else None,
            sum_to(a.swapaxes(-1, -2) @ dy, b) if needs[1] else None,
        )

    return a @ b, pullback


def linear(x: Array, weight: Array, bias: Array | None = None, /) -> OpResult:
    """`x @ weight.T + bias`: (..., in) -> (..., out), weight (out, in), bias (out,).

    All leading axes go through one matrix product, and so does each gradient: as an einsum the
    weight's would take five times as long.
    """
    if x.shape[-1] != weight.shape[1] or (bias is not None and bias.shape != weight.shape[:1]):
        raise ValueError(
            f"[linear] expected inputs of width {weight.shape[1]} and a bias {weight.shape[:1]} "
            f"for a weight {weight.shape}, got {x.shape} and {getattr(bias, 'shape', None)}"
        )
    xp = array_module(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])
    y = flat @ weight.T
    if bias is not None:
        y += bias

    def pullback(dy: Array, needs: Needs = (True, True, True)) -> tuple[Array | None, ...]:
        dy = dy.reshape(-1, len(weight))
        dx = (dy @ weight).reshape(x.shape) if needs[0] else None
        dweight = dy.T @ flat if needs[1] else None
        dbias = None
        if bias is not None and needs[2]:
            dbias = xp.ones(len(dy), dy.dtype) @ dy
        return (dx, dweight, dbias)[: len(needs)]

    return y.reshape(*x.shape[:-1], len(weight)), pullback


def _matmul_with_vector(a: Array, b: Array) -> OpResult:
    """A vector takes part as a row on the left, as a column on the right."""
    matrix_a = a[None, :] if a.ndim == 1 else a
    matrix_b = b[:, None] if b.ndim == 1 else b
    y, inner = matmul(matrix_a, matrix_b)
    shape = y.shape
    if b.ndim == 1:
        shape = shape[:-1]
    if a.ndim == 1:  # its row stands before the last axis, if there is one left
        shape = (*shape[:-2], *shape[-1:]) if b.ndim > 1 else shape[:-1]

    def pullback(dy: Array, needs: Needs = (True, True)) -> tuple[Array | None, ...]:
        da, db = inner(dy.reshape(y.shape), needs)
        return (
            None if da is None else da.reshape(a.shape),
            None if db is None else db.reshape(b.shape),
        )

    return y.reshape(shape), pullback
