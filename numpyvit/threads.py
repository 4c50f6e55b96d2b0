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
from concurrent.futures import ThreadPoolExecutor
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
    get, put = _openblas_threads()
    before = get()
    if before > 1:
        put(1)
    try:
        yield before > 0
    finally:
        if before > 1:
            put(before)


def run_tiles(tile: Callable[[int], Any], count: int) -> None:
    """Call `tile(0)` to `tile(count - 1)` in any order, several at a time.

    Each writes to a place of its own. The first error is raised, and what has not begun is left.
    A tile may call this again: its own tiles run in turn.
    Tiles run in a copy of the caller's context, so under its `numpy.errstate`.
    """
    indices = iter(range(count))  # whoever is free takes the next one

    def work() -> None:
        try:
            for index in indices:
                tile(index)
        finally:
            for _ in indices:  # after an error nobody goes on
                pass

    threads = min(count, _limit, available_cores())
    if threads < 2 or not _running.acquire(blocking=False):
        work()
        return
    try:
        with single_threaded_blas() as held:
            helpers = threads - 1 if held else 0
            contexts = [contextvars.copy_context() for _ in range(helpers)]
            futures = [_pool().submit(context.run, work) for context in contexts]
            try:
                work()
            finally:
                errors = [future.exception() for future in futures]
            for error in filter(None, errors):
                raise error
    finally:
        _running.release()


@functools.cache
def _openblas_threads() -> tuple[Callable[[], int], Callable[[int], None]]:
    """Functions that read and set OpenBLAS's number of threads; without OpenBLAS it reads 0."""
    # The symbols of a file include those of the libraries that it is linked to.
    linked = getattr(numpy.linalg, "_umath_linalg", None)
    with contextlib.suppress(OSError, TypeError):
        library = ctypes.CDLL(getattr(linked, "__file__", None))
        for name in _OPENBLAS_NAMES:
            with contextlib.suppress(AttributeError):
                get = getattr(library, name.format("get_num_threads"))
                return get, getattr(library, name.format("set_num_threads"))
    return lambda: 0, lambda threads: None


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(available_cores(), thread_name_prefix="numpyvit-tiles")


if hasattr(os, "register_at_fork"):

    def _forget_threads() -> None:
        """A fork has the memory of threads, but none of them."""
        global _running
        _running = threading.Lock()
        _pool.cache_clear()

    os.register_at_fork(after_in_child=_forget_threads)
