"""Arithmetic and elementary functions, element by element, with NumPy's broadcasting."""

from __future__ import annotations

from numpyvit.backend import Array, array_module
from numpyvit.ops.types import Needs, OpResult, sum_to


def add(a: Array, b: Array, /) -> OpResult:
    """`a + b`."""

    def pullback(dy: Array, needs: Needs = (True, True)) -> tuple[Array | None, ...]:
        return (sum_to(dy, a) if needs[0] else None, sum_to(dy, b) if needs[1] else None)

    return a + b, pullback


def subtract(a: Array, b: Array, /) -> OpResult:
    """`a - b`."""

    def pullback(dy: Array, needs: Needs = (True, True)) -> tuple[Array | None, ...]:
        return (sum_to(dy, a) if needs[0] else None, -sum_to(dy, b) if needs[1] else None)

    return a - b, pullback


def multiply(a: Array, b: Array, /) -> OpResult:
    """`a * b`."""

    def pullback(dy: Array, needs: Needs = (True, True)) -> tuple[Array | None, ...]:
        return (
            sum_to(dy * b, a) if needs[0] else None,
            sum_to(dy * a, b) if needs[1] else None,
        )

    return a * b, pullback


def divide(a: Array, b: Array, /) -> OpResult:
    """`a / b`."""
    y = a / b

    def pullback(dy: Array, needs: Needs = (True, True)) -> tuple[Array | None, ...]:
        return (
            sum_to(dy / b, a) if needs[0] else None,
            sum_to(-dy * y / b, b) if needs[1] else None,
        )

    return y, pullback


def power(a: Array, b: Array, /) -> OpResult:
    """`a ** b`. Small whole exponents are products: NumPy's general power is 200 times slower."""
    xp = array_module(a, b)
    y = a * a * a if _is_number(b, 3) else a**b

    def pullback(dy: Array, needs: Needs = (True, True)) -> tuple[Array | None, ...]:
        da = db = None
        if needs[0]:
            # Where b is 0 the slope is 0, also at 0: 0**-1 is never formed.
            slope = a * a if _is_number(b, 3) else a ** (b - 1 + (b == 0))
            da = sum_to(dy * b * slope, a)
        if needs[1]:
            base = xp.asarray(a, y.dtype)
            log_a = xp.log(xp.where(base > 0, base, 1))  # d(0**b)/db is 0; log 0 is never formed
            db = sum_to(dy * y * log_a, b)
        return da, db

    return y, pullback


def negative(x: Array, /) -> OpResult:
    """`-x`."""
    return -x, lambda dy: (-dy,)


def exp(x: Array, /) -> OpResult:
    """`e ** x`."""
    y = array_module(x).exp(x)
    return y, lambda dy: (dy * y,)


def log(x: Array, /) -> OpResult:
    """Natural logarithm."""
    return array_module(x).log(x), lambda dy: (dy / x,)


def sqrt(x: Array, /) -> OpResult:
    """Square root."""
    y = array_module(x).sqrt(x)
    return y, lambda dy: (dy / (2 * y),)


def tanh(x: Array, /) -> OpResult:
    """Hyperbolic tangent."""
    y = array_module(x).tanh(x)
    return y, lambda dy: (dy * (1 - y * y),)


def absolute(x: Array, /) -> OpResult:
    """`|x|`; the slope at 0 is 0, as in PyTorch."""
    xp = array_module(x)
    return xp.abs(x), lambda dy: (dy * xp.sign(x),)


def where(condition: Array, a: Array, b: Array, /) -> OpResult:
    """`a` where `condition` (a boolean array) holds, else `b`."""
    xp = array_module(condition, a, b)

    def pullback(dy: Array, needs: Needs = (False, True, True)) -> tuple[Array | None, ...]:
        return (
            None,
            sum_to(xp.where(condition, dy, 0), a) if needs[1] else None,
            sum_to(xp.where(condition, 0, dy), b) if needs[2] else None,
        )

    return xp.where(condition, a, b), pullback


def _is_number(value: Array, number: int) -> bool:
    return isinstance(value, int | float) and value == number
