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
    b, c, *sides = x.shape
    if num_groups < 1 or c % num_groups or not weight.shape == bias.shape == (c,):
        raise ValueError(
            f"[group_norm] expected inputs (B, C, ...) whose C is a multiple of {num_groups} "
            f"groups, and a weight and a bias (C,), got {x.shape}, {weight.shape} and {bias.shape}"
        )
    xp = array_module(x, weight, bias)
    count = math.prod(sides)
    average = xp.full((1, count), num_groups / (c * count), x.dtype)

    def group_means(values: Array) -> Array:  # b n c -> b 1 c, the same for all of a group
        sums = (average @ values).reshape(b, 1, num_groups, c // num_groups).sum(-1)
        return xp.repeat(sums, c // num_groups, -1)

    normalised = xp.moveaxis(x, 1, -1).reshape(b, count, c)
    normalised = normalised - group_means(normalised)
    rstd = 1 / xp.sqrt(group_means(normalised * normalised) + eps)
    normalised *= rstd
    y = normalised * weight
    y += bias

    def back(rows: Array) -> Array:  # b n c -> b c ...
        return xp.moveaxis(rows.reshape(b, *sides, c), -1, 1)

    def pullback(dy: Array, needs: Needs = (True, True, True)) -> tuple[Array | None, ...]:
        dy = xp.moveaxis(dy, 1, -1).reshape(b, count, c)
        dx = dweight = dbias = None
        if needs[1]:
            dweight = xp.einsum("ij,ij->j", dy.reshape(-1, c), normalised.reshape(-1, c))
        if needs[2]:
            dbias = xp.ones(b * count, dy.dtype) @ dy.reshape(-1, c)
        if needs[0]:  # as layer_norm's
            dx = dy * weight
            projection = group_means(dx * normalised)
            dx -= group_means(dx)
            dx -= normalised * projection
            dx *= rstd
            dx = back(dx)
        return dx, dweight, dbias

    return back(y), pullback
