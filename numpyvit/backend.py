"""Which array library owns an array: NumPy or CuPy. The array decides, never a global."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, TypeAlias

import numpy

Array = Any  # a numpy.ndarray or a cupy.ndarray: their interfaces agree, their types do not
# Randomness is drawn on the CPU, whatever the array library. A text: to load it takes a while.
Generator: TypeAlias = "numpy.random.Generator"

# A few arrays of this size fit a core's cache (L2, 1 MB or more); smaller ones cost more calls.
_STRETCH_BYTES = 1 << 18

_PACKAGE_OF_MODULE = {"PIL": "Pillow"}
_PIP_NAME = {"PIL": "pillow", "cupy": "cupy-cuda12x"}


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
    """`array` on `device`, "cpu" or "cuda"; the same object if it is there.

    Raises ValueError for another name, ImportError without CuPy, RuntimeError without a GPU.
    """
    if device == "cpu":
        return to_numpy(array)
    if device != "cuda":
        raise ValueError(
            f"[backend] expected device 'cpu' or 'cuda', got {device!r}; choose among several "
            "GPUs with the environment variable CUDA_VISIBLE_DEVICES"
        )
    return _cupy_with_a_gpu().asarray(array)


def to_numpy(array: Array) -> numpy.ndarray:
    """`array` as a NumPy array on the CPU; the same object if it is one."""
    if array_module(array) is numpy:
        return numpy.asarray(array)
    return array.get()


def matmul_into(a: Array, b: Array, out: Array) -> None:
    """`out[...] = a @ b`, without an array in between on NumPy; `out` may be a strided view.

    CuPy's product writes into contiguous arrays only.
    """
    if array_module(a, b, out) is numpy:
        numpy.matmul(a, b, out=out)
    else:
        out[...] = a @ b


def stretches(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """The same stretch of all `arrays`, flat, one after the other; what is written shows in them.

    A chain of operations on one stretch stays in a core's cache, where the whole arrays would go
    through memory at every link. Arrays of one shape. They come whole where cutting does not pay or
    would have to copy: small ones, CuPy's (a launch costs more than it saves), and those that are
    not contiguous.
    """
    first = arrays[0]
    length = _STRETCH_BYTES // first.itemsize
    if first.ndim == 0:  # arithmetic on these would give scalars, which cannot be written to
        arrays = tuple(array.reshape(1) for array in arrays)
    contiguous = all(array.flags.c_contiguous for array in arrays)
    if first.size <= length or not contiguous or array_module(*arrays) is not numpy:
        yield arrays
        return
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, first.size, length):
        yield tuple(array[start : start + length] for array in flat)


def erf_on_gpu(x: Array) -> Array:
    """The error function of a CuPy array, from the library that comes with CuPy."""
    return require("cupyx.scipy.special", extra="gpu", purpose="erf on a GPU").erf(x)


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import the optional `module`, or raise an ImportError that says which extra installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.partition(".")[0]
        package = _PACKAGE_OF_MODULE.get(top, top)
        raise ImportError(
            f"[numpyvit] {purpose} needs {package}, which is not installed: "
            f"pip install {_PIP_NAME.get(top, top)} (or numpyvit's extra {extra!r})"
        ) from error


def suggest(name: str, choices: Iterable[str]) -> str:
    """A phrase for error messages: the choice nearest to `name`, then all of them."""
    known = list(choices)
    return f"{nearest(name, known)}known: {', '.join(known)}"


def nearest(name: str, choices: Iterable[str], count: int = 1) -> str:
    """A question for error messages: up to `count` choices that are near `name`; "" for none."""
    near = difflib.get_close_matches(name, list(choices), n=count, cutoff=0.6)
    return f"did you mean {' or '.join(map(repr, near))}? " if near else ""


def _cupy_with_a_gpu() -> Any:
    cupy = require("cupy", extra="gpu", purpose="device 'cuda'")
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise RuntimeError(f"[backend] device 'cuda' is not usable: {error}") from error
    if count == 0:
        raise RuntimeError("[backend] device 'cuda' was asked for, but no GPU is visible")
    return cupy
