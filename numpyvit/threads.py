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
_limits: list[int] = []  # of all contexts that are open, in whatever thread
_running = threading.Lock()  # held while tiles run on several threads


class _Blas:
    """Who holds BLAS to one thread, and how many it had before."""

    def __init__(self) -> None:
        self.lock, self.holders, self.threads = threading.Lock(), 0, 0


_blas = _Blas()


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def most_threads() -> int:
    """Threads that tiles may run on here."""
    return min([*_limits, available_cores()])


@contextlib.contextmanager
def limit_threads(count: int) -> Iterator[None]:
    """Run tiles on at most `count` threads in this context, in all threads of the process."""
    limit = max(count, 1)
    _limits.append(limit)
    try:
        yield
    finally:
        _limits.remove(limit)


@contextlib.contextmanager
def single_threaded_blas() -> Iterator[bool]:
    """Hold BLAS to one thread in this context, in all threads; gives False where it cannot.

    Where contexts overlap, the last to end lets it go.
    """
    get, put = _openblas("get_num_threads"), _openblas("set_num_threads")
    if not (get and put):
        yield False
        return
    with _blas.lock:
        if _blas.holders == 0:
            _blas.threads = get()
            put(1)
        _blas.holders += 1
    try:
        yield True
    finally:
        with _blas.lock:
            _blas.holders -= 1
            if _blas.holders == 0:
                put(_blas.threads)


def run_tiles(tile: Callable[[int], Any], count: int) -> None:
    """Call `tile(0)` to `tile(count - 1)` in any order, several at a time.

    Each writes to a place of its own. The first error is raised, and what has not begun is left.
    A tile may call this again: its own tiles run in turn.
    Tiles run in a copy of the caller's context, so under its `numpy.errstate`.
    """
    indices = iter(range(count))  # whoever is free takes the next one
    taking = threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            while not errors:
                with taking:
                    index = next(indices, None)
                if index is None:
                    return
                tile(index)
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            errors.append(error)

    threads = min(count, most_threads())
    if threads > 1 and _running.acquire(blocking=False):
        try:
            with single_threaded_blas() as held:
                elsewhere = functools.partial(_off_core, _core(), work)
                helpers = [
                    threading.Thread(target=contextvars.copy_context().run, args=(elsewhere,))
                    for _ in range(threads - 1 if held else 0)
                ]
                try:
                    for helper in helpers:
                        helper.start()
                    work()
                finally:
                    for helper in helpers:
                        if helper.ident is not None:  # it was started
                            helper.join()
        finally:
            _running.release()
    else:
        work()
    if errors:
        raise errors[0]


def _core() -> int | None:
    """The core that this thread runs on; None where the system does not tell."""
    get = _sched_getcpu()
    core = -1 if get is None else get()
    return None if core < 0 else core


@functools.cache
def _sched_getcpu() -> Any:
    with contextlib.suppress(AttributeError, OSError, TypeError):
        return ctypes.CDLL(None).sched_getcpu
    return None


def _off_core(core: int | None, work: Callable[[], None]) -> None:
    """Do `work` on another core than `core`, if this thread may use another.

    A new thread begins on the core of the one that started it, and the system may leave it there
    for tens of milliseconds, in turn with the other.
    """
    if core is not None and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, os.sched_getaffinity(0) - {core} or {core})
    work()


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
    for file in _libraries():
        with contextlib.suppress(OSError, TypeError):
            library = ctypes.CDLL(file)
            for name in _OPENBLAS_NAMES:
                with contextlib.suppress(AttributeError):
                    return getattr(library, name.format(function))
    return None


def _libraries() -> Iterator[str | None]:
    """Files in which OpenBLAS may be found, if they are there."""
    # The symbols of a file include those of the libraries that it is linked to; not so on Windows.
    yield getattr(getattr(numpy.linalg, "_umath_linalg", None), "__file__", None)
    beside = f"{os.path.dirname(numpy.__file__)}.libs"
    if os.path.isdir(beside):
        yield from (os.path.join(beside, name) for name in os.listdir(beside) if "openblas" in name)
