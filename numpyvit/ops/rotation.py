"""Rotary positions: pairs of channels turned by an angle that stands for a place."""

from __future__ import annotations

from numpyvit.backend import Array, array_module
from numpyvit.ops.types import OpResult


def rotate(x: Array, /, turns: Array) -> OpResult:
    """Pairs of channels turned as complex numbers: (..., N, C), kept (Su et al. 2021, section 3.2).

    `turns` (P, M), complex numbers of length 1, are multiplied with the last P of the N tokens and
    the first M of the pairs of channels (0, 1), (2, 3), ...; all else passes. Raises ValueError
    where there are not as many of both, or C is odd.
    """
    xp = array_module(x)
    turns = xp.asarray(turns, xp.result_type(x.dtype, xp.complex64))
    tokens, pairs = turns.shape
    if x.ndim < 2 or x.shape[-1] % 2 or tokens > x.shape[-2] or 2 * pairs > x.shape[-1]:
        raise ValueError(
            f"[rotate] expected (..., N, C) with at least {tokens} tokens and {2 * pairs} "
            f"channels, in pairs, got {x.shape}"
        )
    first = x.shape[-2] - tokens

    def turned(x: Array, turns: Array) -> Array:
        y = xp.array(x, order="C")
        part = y.view(turns.dtype)[..., first:, :pairs]
        xp.multiply(part, turns, out=part)
        return y

    # The way back turns by the same angle the other way.
    return turned(x, turns), lambda dy: (turned(dy, turns.conj()),)
