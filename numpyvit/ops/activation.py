"""Pointwise nonlinearities, and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

from numpyvit.backend import Array, array_module, stretches
from numpyvit.ops.special import erf
from numpyvit.ops.types import OpResult


def relu(x: Array, /) -> OpResult:
    """`max(x, 0)`; the slope at 0 is 0."""
    return array_module(x).maximum(x, 0), lambda dy: (dy * (x > 0),)


def sigmoid(x: Array, /) -> OpResult:
    """`1 / (1 + exp(-x))`, through tanh, which cannot overflow."""
    y = _sigmoid(x)
    return y, lambda dy: (dy * y * (1 - y),)


def silu(x: Array, /) -> OpResult:
    """`x * sigmoid(x)` (Elfwing et al. 2018; also called swish)."""
    gate = _sigmoid(x)
    y = x * gate
    return y, lambda dy: (dy * (gate + y * (1 - gate)),)


def quick_gelu(x: Array, /) -> OpResult:
    """`x * sigmoid(1.702 x)`, an estimate of GELU (Hendrycks and Gimpel 2016), as CLIP has it."""
    gate = _sigmoid(1.702 * x)
    y = x * gate
    return y, lambda dy: (dy * (gate + 1.702 * y * (1 - gate)),)


def gelu(x: Array, /, recorded: bool = True) -> OpResult:
    """Exact GELU (Hendrycks and Gimpel 2016): `x * P(Z <= x)` = `x * (1 + erf(x / sqrt 2)) / 2`."""
    xp = array_module(x)
    y = xp.empty(x.shape, x.dtype)
    slope = xp.empty(x.shape, x.dtype) if recorded else y
    for x_, y_, slope_ in stretches(x, y, slope):
        cdf = xp.multiply(x_, math.sqrt(0.5))
        erf(cdf, out=cdf)
        cdf += 1
        cdf *= 0.5
        if recorded:  # slope = cdf + x * density
            xp.multiply(x_, x_, out=slope_)
            slope_ *= -0.5
            xp.exp(slope_, out=slope_)
            slope_ *= 1 / math.sqrt(2 * math.pi)
            slope_ *= x_
            slope_ += cdf
        xp.multiply(x_, cdf, out=y_)
    return y, _along(slope)


def gelu_tanh(x: Array, /, recorded: bool = True) -> OpResult:
    """GELU's tanh form: `x * gate`, `gate = (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2`.

    Up to 4.7e-4 away from the exact form; the one that Flax and the tiny CIFAR ViT use.
    """
    xp = array_module(x)
    linear, cubic = math.sqrt(2 / math.pi), math.sqrt(2 / math.pi) * 0.044715
    y = xp.empty(x.shape, x.dtype)
    slope = xp.empty(x.shape, x.dtype) if recorded else y
    for x_, y_, slope_ in stretches(x, y, slope):
        xp.multiply(x_, x_, out=slope_)  # products: x**3 alone would take longer than the rest
        gate = xp.multiply(slope_, cubic)
        gate += linear
        gate *= x_
        xp.tanh(gate, out=gate)
        gate *= 0.5
        gate += 0.5
        xp.multiply(x_, gate, out=y_)
        if recorded:
            # slope = gate + x gate'. It is a sigmoid, and x gate = y, so
            # x gate' = y (1 - gate) 2 (linear + 3 cubic x^2).
            slope_ *= 6 * cubic
            slope_ += 2 * linear
            slope_ *= y_
            slope_ *= 1 - gate
            slope_ += gate
    return y, _along(slope)


def _along(slope: Array) -> Callable[[Array], tuple[Array]]:
    """The pullback of a pointwise function from its slope, in the slope's place."""

    def pullback(dy: Array) -> tuple[Array]:
        xp = array_module(slope, dy)
        return (xp.multiply(slope, dy, out=slope),)

    return pullback


def softmax(x: Array, /, axis: int = -1) -> OpResult:
    """Normalised exponentials along `axis`; same shape as `x`."""
    xp = array_module(x)
    y = xp.exp(x - x.max(axis, keepdims=True))  # shifted, so exp cannot overflow
    y /= y.sum(axis, keepdims=True)

    def pullback(dy: Array) -> tuple[Array]:
        dx = dy * y
        dx -= y * dx.sum(axis, keepdims=True)
        return (dx,)

    return y, pullback


def log_softmax(x: Array, /, axis: int = -1) -> OpResult:
    """`log(softmax(x))`, without forming the softmax; same shape as `x`."""
    xp = array_module(x)
    y = x - x.max(axis, keepdims=True)
    y -= xp.log(xp.exp(y).sum(axis, keepdims=True))

    def pullback(dy: Array) -> tuple[Array]:
        dx = xp.exp(y)
        dx *= -dy.sum(axis, keepdims=True)
        dx += dy
        return (dx,)

    return y, pullback


def _sigmoid(x: Array) -> Array:
    xp = array_module(x)
    y = xp.asarray(x * 0.5)  # a product of arrays without axes is a number
    xp.tanh(y, out=y)
    y += 1
    y *= 0.5
    return y
