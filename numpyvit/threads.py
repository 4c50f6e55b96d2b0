"""Independent pieces of one computation, its tiles, on all cores.

NumPy and BLAS let go of the interpreter's lock while they compute, so plain threads will do. BLAS
itself is held to one thread meanwhile. Only OpenBLAS, which NumPy's wheels contain, can be told so;
with another one, tiles run one after the other and BLAS uses the cores.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy.linalg

_OPENBLAS_NAMES = ("scipy_openblas_{}64_", "scipy_openblas_{}", "openblas_{}64_", "openblas_{}")
_limit = 1 << 30  # threads at most, whatever the machine has
_running = threading.Lock()  # held while tiles run on several threads


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def most_threads() -> int:
    """Threads that tiles may run on here."""
    return min(_limit, available_cores())


@contextlib.contextmanager
def limit_threads(count: int) -> Iterator[None]:
    """Run tiles on at most `count` threads in this context, in all threads of the process."""
    global _limit
    before, _limit = _limit, max(count, 1)
    try:
        yield
    finally:
        _limit = before


@contextlib.contextmanager
def single_threaded_blas() -> Iterator[bool]:
    """Hold BLAS to one thread in this context, in all threads; gives False where it cannot."""
    get, put = _openblas("get_num_threads"), _openblas("set_num_threads")
    before = get() if get and put else 0
    if put and before > 1:
        put(1)
    try:
        yield before > 0
    finally:
        if put and before > 1:
            put(before)


def run_tiles(tile: Callable[[int], Any], count: int) -> None:
    """Call `tile(0)` to `tile(count - 1)` in any order, several at a time.

    Each writes to a place of its own. The first error is raised, and what has not begun is left.
    A tile may call this again: its own tiles run in turn.
    Tiles run in a copy of the caller's context, so under its `numpy.errstate`.
    """
    indices = iter(range(count))  # whoever is free takes the next one
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for index in indices:
                tile(index)
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            errors.append(error)
            for _ in indices:  # nobody goes on
                pass

    threads = min(count, most_threads())
    if threads > 1 and _running.acquire(blocking=False):
        try:
            with single_threaded_blas() as held:
                helpers = [
                    threading.Thread(target=contextvars.copy_context().run, args=(work,))
                    for _ in range(threads - 1 if held else 0)
                ]
                for helper in helpers:
                    helper.start()
                work()
                for helper in helpers:
                    helper.join()
        finally:
            _running.release()
    else:
        work()
    if errors:
        raise errors[0]


@functools.cache
def small_products_are_fast() -> bool:
    """Whether BLAS has kernels for small matrix products, as OpenBLAS has for AVX-512."""
    name = _openblas("get_corename")
    if name is None:
        return False
    name.restype = ctypes.c_char_p
    return name() in {b"SkylakeX", b"Cooperlake", b"SapphireRapids"}


@functools.cache
def _openblas(function: str) -> Any:
    """A function of the OpenBLAS that NumPy is linked to; None where there is none."""
    # The symbols of a file include those of the libraries that it is linked to.
    linked = getattr(numpy.linalg, "_umath_linalg", None)
    with contextlib.suppress(OSError, TypeError):
        library = ctypes.CDLL(getattr(linked, "__file__", None))
        for name in _OPENBLAS_NAMES:
            with contextlib.suppress(AttributeError):
                return getattr(library, name.format(function))
    return None
