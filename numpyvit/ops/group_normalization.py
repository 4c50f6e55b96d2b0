"""Group normalisation: what images of channels have in place of statistics of a batch."""

from __future__ import annotations

import math

from numpyvit.backend import Array, array_module
from numpyvit.ops.types import Needs, OpResult


def group_norm(
    x: Array, weight: Array, bias: Array, /, num_groups: int, eps: float = 1e-5
) -> OpResult:
    """Groups of channels brought to mean 0 and variance 1, an image at a time (Wu and He 2018).

    `x` (B, C, ...), then scaled by `weight` and shifted by `bias` (C,); neighbouring channels are a
    group, and the variance is the population's. Channels are last in memory, as `conv2d` leaves
    them.
    """
    b, c, *sides = x.shape if x.ndim > 1 else (0, 0)
    if num_groups < 1 or not c or c % num_groups or not weight.shape == bias.shape == (c,):
        raise ValueError(
            f"[group_norm] expected inputs (B, C, ...) whose C is a multiple of {num_groups} "
            f"groups, and a weight and a bias (C,), got {x.shape}, {weight.shape} and {bias.shape}"
        )
    xp = array_module(x, weight, bias)
    width, count = c // num_groups, math.prod(sides)
    ones = xp.ones((1, count), x.dtype)

    def group_means(sums: Array) -> Array:  # from sums over places, b 1 c: the same for a group
        means = sums.reshape(b, 1, num_groups, width).sum(-1)
        means /= width * count
        return xp.repeat(means, width, -1)

    rows = xp.moveaxis(x, 1, -1).reshape(b, count, c)
    centred = rows - group_means(ones @ rows)
    squares = xp.einsum("bnc,bnc->bc", centred, centred)[:, None]
    rstd = 1 / xp.sqrt(group_means(squares) + eps)
    y = centred * (rstd * weight)
    y += bias

    def back(rows: Array) -> Array:  # b n c -> b c ...
        return xp.moveaxis(rows.reshape(b, *sides, c), -1, 1)

    def pullback(dy: Array, needs: Needs = (True, True, True)) -> tuple[Array | None, ...]:
        dy = xp.moveaxis(dy, 1, -1).reshape(b, count, c)
        sums = ones @ dy
        products = xp.einsum("bnc,bnc->bc", dy, centred)[:, None] * rstd
        dx = None
        if needs[0]:  # rstd * (g - mean(g) - normalised * mean(g * normalised)), g = dy * weight
            dx = dy * (rstd * weight)
            dx -= centred * (rstd * rstd * group_means(products * weight))
            dx -= rstd * group_means(sums * weight)
            dx = back(dx)
        dweight = products.sum((0, 1)) if needs[1] else None
        dbias = sums.sum((0, 1)) if needs[2] else None
        return dx, dweight, dbias

    return back(y), pullback
