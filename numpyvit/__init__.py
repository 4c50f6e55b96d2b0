"""The Vision Transformer, from reverse-mode autograd to attention maps, in plain NumPy."""

from __future__ import annotations

from numpyvit import functional, nn
from numpyvit.models import create_model, list_models
from numpyvit.tensor import Tensor, differentiable, gradients, no_grad

__version__ = "0.1.0"

__all__ = [
    "Tensor",
    "__version__",
    "create_model",
    "differentiable",
    "functional",
    "gradients",
    "list_models",
    "nn",
    "no_grad",
]
