"""Tensors and the tape: reverse-mode differentiation of any op that brings its pullback."""

from __future__ import annotations

from numpyvit.tensor.tape import no_grad
from numpyvit.tensor.tensor import Tensor, differentiable, gradients

__all__ = ["Tensor", "differentiable", "gradients", "no_grad"]
