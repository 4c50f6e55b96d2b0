"""Sums, means, variances and maxima along axes."""

from __future__ import annotations

import math

from numpyvit.backend import Array, array_module
from numpyvit.ops.types import OpResult

Axis = int | tuple[int, ...] | None


def sum(x: Array, /, axis: Axis = None, keepdims: bool = False) -> OpResult:
    """Sum along `axis` (all axes by default)."""
    xp = array_module(x)

    def pullback(dy: Array) -> tuple[Array]:
        return (xp.broadcast_to(_restore_axes(dy, x, axis, keepdims), x.shape),)

    return x.sum(axis, keepdims=keepdims), pullback


def mean(x: Array, /, axis: Axis = None, keepdims: bool = False) -> OpResult:
    """Mean along `axis` (all axes by default)."""
    xp = array_module(x)
    count = _count(x, axis)

    def pullback(dy: Array) -> tuple[Array]:
        return (xp.broadcast_to(_restore_axes(dy, x, axis, keepdims) / count, x.shape),)

    return x.mean(axis, keepdims=keepdims), pullback


def var(x: Array, /, axis: Axis = None, correction: int = 1, keepdims: bool = False) -> OpResult:
    """Variance along `axis`: squared deviations over `count - correction`, as in PyTorch."""
    degrees = _count(x, axis) - correction
    if degrees <= 0:
        raise ValueError(
            f"[var] expected more than {correction} values along axis {axis}, "
            f"got shape {x.shape}; pass correction=0 for the population variance"
        )
    centred = x - x.mean(axis, keepdims=True)

    def pullback(dy: Array) -> tuple[Array]:
        return (_restore_axes(dy, x, axis, keepdims) * centred * (2 / degrees),)

    return (centred * centred).sum(axis, keepdims=keepdims) / degrees, pullback


def max(x: Array, /, axis: Axis = None, keepdims: bool = False) -> OpResult:
    """Largest value along `axis`; equal maxima share the gradient evenly (PyTorch's amax)."""
    y = x.max(axis, keepdims=keepdims)

    def pullback(dy: Array) -> tuple[Array]:
        is_max = (x == _restore_axes(y, x, axis, keepdims)).astype(x.dtype)
        is_max /= is_max.sum(axis, keepdims=True)
        is_max *= _restore_axes(dy, x, axis, keepdims)
        return (is_max,)

    return y, pullback


def _restore_axes(reduced: Array, x: Array, axis: Axis, keepdims: bool) -> Array:
    """`reduced` with the axes that a reduction of `x` removed put back with length 1."""
    if keepdims:
        return reduced
    xp = array_module(x)
    if axis is None:
        return xp.reshape(reduced, (1,) * x.ndim)
    return xp.expand_dims(reduced, axis)


def _count(x: Array, axis: Axis) -> int:
    if axis is None:
        return x.size
    axes = axis if isinstance(axis, tuple) else (axis,)
    return math.prod(x.shape[axis] for axis in axes)
