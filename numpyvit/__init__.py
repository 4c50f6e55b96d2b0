"""The Vision Transformer, from reverse-mode autograd to attention maps, in plain NumPy."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Not for use here, but from here: six imports further down, NumPy took half as long again to load,
# as CPython 3.11 then asked for a piece of its stack and gave it back hundreds of times.
import numpy  # noqa: F401

from numpyvit import functional
from numpyvit.tensor import Tensor, differentiable, gradients, no_grad

if TYPE_CHECKING:
    from numpyvit import check, compress, data, explain, models, nn, optim, train, weights
    from numpyvit.models import create_model, list_models
    from numpyvit.weights import load_pretrained

__version__ = "0.1.0"

__all__ = [
    "Tensor",
    "__version__",
    "check",
    "compress",
    "create_model",
    "data",
    "differentiable",
    "explain",
    "functional",
    "gradients",
    "list_models",
    "load_pretrained",
    "models",
    "nn",
    "no_grad",
    "optim",
    "train",
    "weights",
]

# Loaded when used, so that the import stays quick: parts, and what comes from one of them.
_PARTS = {"check", "compress", "data", "explain", "models", "nn", "optim", "train", "weights"}
_FROM_PARTS = {
    "create_model": "models",
    "list_models": "models",
    "load_pretrained": "weights",
}


def __getattr__(name: str) -> Any:
    part = _FROM_PARTS.get(name, name)
    if part not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{part}")
    return module if name == part else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PARTS, *_FROM_PARTS})
