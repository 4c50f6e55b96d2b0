"""Gradient clipping: by the norm of all gradients together, or value by value."""

from __future__ import annotations

import math
from collections.abc import Iterable

from numpyvit.backend import Array, array_module
from numpyvit.tensor import Tensor


def clip_grad_norm_(
    params: Tensor | Iterable[Tensor], max_norm: float, *, error_if_nonfinite: bool = False
) -> float:
    """Scale all gradients by one factor so that their L2 norm is at most `max_norm`.

    Returns the norm before, over all gradients as one vector (0.0 where there are none); it is
    summed in float64 and in a fixed order. The factor is max_norm / (norm + 1e-6), as in PyTorch
    (Pascanu et al. 2013, algorithm 1). Gradients are scaled in place.

    Raises ValueError unless `max_norm` >= 0, and RuntimeError, when `error_if_nonfinite`, for a
    norm that is infinite or not a number; without it such a norm spoils all gradients.
    """
    if not max_norm >= 0:
        raise ValueError(f"[clip_grad_norm_] expected 'max_norm' of at least 0, got {max_norm}")
    gradients = _gradients(params)
    squares = 0.0
    for gradient in gradients:
        xp = array_module(gradient)
        squares = squares + xp.square(gradient, dtype=xp.float64).sum()
    norm = math.sqrt(float(squares))
    if error_if_nonfinite and not math.isfinite(norm):
        raise RuntimeError(
            f"[clip_grad_norm_] expected gradients of a finite norm, got {norm}; "
            "lower the learning rate, or look for the first layer with such values"
        )
    factor = max_norm / (norm + 1e-6)
    if not factor >= 1:  # written so that NaN gets through, as in PyTorch
        for gradient in gradients:
            gradient *= factor
    return norm


def clip_grad_value_(params: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every value of every gradient to the range from -`clip_value` to `clip_value`.

    In place. Raises ValueError unless `clip_value` >= 0.
    """
    if not clip_value >= 0:
        raise ValueError(
            f"[clip_grad_value_] expected 'clip_value' of at least 0, got {clip_value}"
        )
    limit = float(clip_value)
    for gradient in _gradients(params):
        array_module(gradient).clip(gradient, -limit, limit, out=gradient)


def _gradients(params: Tensor | Iterable[Tensor]) -> list[Array]:
    given = [params] if isinstance(params, Tensor) else params
    return [parameter.grad for parameter in given if parameter.grad is not None]
