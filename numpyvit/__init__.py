"""The Vision Transformer, from reverse-mode autograd to attention maps, in plain NumPy."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from numpyvit import functional, models, nn
from numpyvit.models import create_model, list_models
from numpyvit.tensor import Tensor, differentiable, gradients, no_grad

if TYPE_CHECKING:
    from numpyvit import check, data, explain, optim, train

__version__ = "0.1.0"

__all__ = [
    "Tensor",
    "__version__",
    "check",
    "create_model",
    "data",
    "differentiable",
    "explain",
    "functional",
    "gradients",
    "list_models",
    "models",
    "nn",
    "no_grad",
    "optim",
    "train",
]

_LOADED_WHEN_USED = {"check", "data", "explain", "optim", "train"}  # so that the import stays quick


def __getattr__(name: str) -> ModuleType:
    if name in _LOADED_WHEN_USED:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LOADED_WHEN_USED})
