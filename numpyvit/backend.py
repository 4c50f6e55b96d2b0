"""Which array library owns an array: NumPy or CuPy. The array decides, never a global."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import numpy

Array = Any  # a numpy.ndarray or a cupy.ndarray: their interfaces agree, their types do not
Generator = numpy.random.Generator  # randomness is drawn on the CPU, whatever the array library

_PACKAGE_OF_MODULE = {"PIL": "Pillow"}


def array_module(*arrays: object) -> ModuleType:
    """The module (`numpy` or `cupy`) whose functions work on all of `arrays`.

    Scalars and `None` fit either. Raises TypeError when NumPy and CuPy arrays are mixed.
    """
    cupy = sys.modules.get("cupy")
    if cupy is None:
        return numpy
    on_gpu = [isinstance(array, cupy.ndarray) for array in arrays]
    if not any(on_gpu):
        return numpy
    on_cpu = any(isinstance(array, numpy.ndarray) and array.ndim for array in arrays)
    if on_cpu:
        raise TypeError(
            "[backend] expected arrays of one library, got NumPy and CuPy together; "
            "move one of them with .to('cuda') or .to('cpu')"
        )
    return cupy


def device_of(array: Array) -> str:
    """`"cpu"` for a NumPy array, `"cuda"` for a CuPy array."""
    return "cpu" if array_module(array) is numpy else "cuda"


def to_device(array: Array, device: str) -> Array:
    """`array` on `device` ("cpu", "cuda" or "cuda:<index>"); the same object if it is there.

    Raises ValueError for another name, ImportError without CuPy, RuntimeError without a GPU.
    """
    kind, _, index = device.partition(":")
    if kind == "cpu" and not index:
        return to_numpy(array)
    if kind != "cuda" or (index and not index.isdigit()):
        raise ValueError(
            f"[backend] expected device 'cpu', 'cuda' or 'cuda:<index>', got {device!r}"
        )
    cupy = _cupy_with_a_gpu()
    with cupy.cuda.Device(int(index or 0)):
        return cupy.asarray(array)


def to_numpy(array: Array) -> numpy.ndarray:
    """`array` as a NumPy array on the CPU; the same object if it is one."""
    if array_module(array) is numpy:
        return numpy.asarray(array)
    return array.get()


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import the optional `module`, or raise an ImportError that says which extra installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.partition(".")[0]
        package = _PACKAGE_OF_MODULE.get(top, top)
        raise ImportError(
            f"[numpyvit] {purpose} needs {package}, which is not installed: "
            f"pip install 'numpyvit[{extra}]'"
        ) from error


def suggest(name: str, choices: Iterable[str]) -> str:
    """A phrase for error messages: the choice nearest to `name`, then all of them."""
    known = list(choices)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"{hint}known: {', '.join(known)}"


def _cupy_with_a_gpu() -> Any:
    cupy = require("cupy", extra="gpu", purpose="device 'cuda'")
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise RuntimeError(f"[backend] device 'cuda' is not usable: {error}") from error
    if count == 0:
        raise RuntimeError("[backend] device 'cuda' was asked for, but no GPU is visible")
    return cupy
