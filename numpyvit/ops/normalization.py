"""Normalisation of vectors: by mean and variance, or by the root mean square alone."""

from __future__ import annotations

from numpyvit.backend import Array, array_module
from numpyvit.ops.types import Needs, OpResult


def layer_norm(x: Array, weight: Array, bias: Array, /, eps: float = 1e-6) -> OpResult:
    """`(x - mean) / sqrt(var + eps) * weight + bias` over the last axis (Ba et al. 2016).

    `x` (..., D), `weight` and `bias` (D,); the variance is the population's. Sums along rows are
    products with a vector of 1/D, which BLAS does several times faster than a reduction. The price:
    a mean is rounded, and a row of equal values v comes out as 0 only to D * spacing(v) / sqrt(eps)
    and as 1 at most; in float32, 48 times 300.3 become 0.03.
    """
    width = x.shape[-1]
    if weight.shape != (width,) or bias.shape != (width,):
        raise ValueError(
            f"[layer_norm] expected inputs of width {len(weight)} for a weight {weight.shape} "
            f"and a bias {bias.shape}, got {x.shape}"
        )
    xp = array_module(x, weight, bias)
    average = xp.full((width, 1), 1 / width, x.dtype)
    flat = x.reshape(-1, width)
    normalised = flat - flat @ average
    rstd = (normalised * normalised) @ average
    rstd += eps
    xp.sqrt(rstd, out=rstd)
    xp.reciprocal(rstd, out=rstd)
    normalised *= rstd
    y = normalised * weight
    y += bias

    def pullback(dy: Array, needs: Needs = (True, True, True)) -> tuple[Array | None, ...]:
        dy = dy.reshape(-1, width)
        dx = dweight = dbias = None
        if needs[1]:
            dweight = xp.einsum("ij,ij->j", dy, normalised)
        if needs[2]:
            dbias = xp.ones(len(dy), dy.dtype) @ dy
        if needs[0]:  # rstd * (g - mean(g) - normalised * mean(g * normalised)), g = dy * weight
            dx = dy * weight
            projection = (dx * normalised) @ average
            dx -= dx @ average
            dx -= normalised * projection
            dx *= rstd
            dx = dx.reshape(x.shape)
        return dx, dweight, dbias

    return y.reshape(x.shape), pullback


def rms_norm(x: Array, weight: Array, /, eps: float = 1e-6) -> OpResult:
    """`x / sqrt(mean(x^2) + eps) * weight` over the last axis (Zhang and Sennrich 2019, eq. 4).

    `x` (..., D), `weight` (D,).
    """
    width = x.shape[-1]
    if weight.shape != (width,):
        raise ValueError(
            f"[rms_norm] expected inputs of width {len(weight)} for a weight {weight.shape}, "
            f"got {x.shape}"
        )
    xp = array_module(x, weight)
    average = xp.full((width, 1), 1 / width, x.dtype)
    flat = x.reshape(-1, width)
    rstd = (flat * flat) @ average
    rstd += eps
    xp.sqrt(rstd, out=rstd)
    xp.reciprocal(rstd, out=rstd)
    normalised = flat * rstd
    y = normalised * weight

    def pullback(dy: Array, needs: Needs = (True, True)) -> tuple[Array | None, ...]:
        dy = dy.reshape(-1, width)
        dx = dweight = None
        if needs[1]:
            dweight = xp.einsum("ij,ij->j", dy, normalised)
        if needs[0]:  # rstd * (g - normalised * mean(g * normalised)), g = dy * weight
            dx = dy * weight
            dx -= normalised * ((dx * normalised) @ average)
            dx *= rstd
            dx = dx.reshape(x.shape)
        return dx, dweight

    return y.reshape(x.shape), pullback
