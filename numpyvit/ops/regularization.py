"""Dropout of values, and of whole residual branches."""

from __future__ import annotations

import math

from numpyvit.backend import Array, Generator, array_module
from numpyvit.ops.types import OpResult

_STEPS = 1 << 16  # a mask compares 16 random bits a value with a threshold: p to 1 part in 65,536
_LARGEST = (1 << 64) - 1


def dropout(x: Array, /, p: float, rng: Generator) -> OpResult:
    """Zero each value with probability `p` and scale the rest by 1/(1-p) (Srivastava et al. 2014).

    Same shape and dtype as `x`. The mask is drawn on the CPU, so a seed means the same everywhere.
    """
    keep = keep_mask(x.shape, p, rng, like=x)
    return _masked(x, keep, 1 / (1 - p))


def drop_path(x: Array, /, p: float, rng: Generator) -> OpResult:
    """Zero whole samples, axis 0 of `x`, with probability `p` and scale the rest by 1/(1-p).

    Stochastic depth (Huang et al. 2016) when `x` is the output of a residual branch.
    """
    keep = keep_mask((x.shape[0],) + (1,) * (x.ndim - 1), p, rng, like=x)
    return _masked(x, keep, 1 / (1 - p))


def keep_mask(shape: tuple[int, ...], p: float, rng: Generator, *, like: Array) -> Array:
    """Booleans of `shape`, False with probability `p`, in the library of the array `like`.

    Random bits against a threshold: three times faster than uniform floats.
    """
    if not 0 <= p < 1:
        raise ValueError(f"[dropout] expected a probability 0 <= p < 1, got {p}")
    count = math.prod(shape)
    # Four 16-bit numbers in each, from any bit generator: raw ones may hold 32 bits only.
    raw = rng.integers(0, _LARGEST, (count + 3) // 4, "uint64", endpoint=True)
    bits = raw.view("<u2")[:count].reshape(shape)
    return array_module(like).asarray(bits >= min(round(p * _STEPS), _STEPS - 1))


def _masked(x: Array, keep: Array, scale: float) -> OpResult:
    y = x * keep
    y *= scale

    def pullback(dy: Array) -> tuple[Array]:
        dx = dy * keep
        dx *= scale
        return (dx,)

    return y, pullback
