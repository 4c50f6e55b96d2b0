"""Micro-batches on a pool of threads, with the same bits for any number of threads.

NumPy and BLAS let go of the interpreter's lock while they compute, so plain threads use all cores.
A micro-batch is small enough for its activations to stay in a core's cache. Sums over micro-batches
are formed in a fixed binary tree over their indices, so the order in which threads finish does not
matter, and the partial sums that wait are at most one a level of the tree and thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

import numpy

from numpyvit.backend import Array, require

Partial = list[Array]  # arrays that are added up entry by entry


# Numbers of options from glibc's malloc.h: trim threshold, padding at the top, mmap threshold.
_MALLOC_OPTIONS = {-1: 1 << 30, -2: 1 << 26, -3: 1 << 28}


class TreeSum:
    """Adds up the values of indices 0 to `count` - 1 in a fixed binary tree, as they come in.

    Value 0 is added to value 1, 2 to 3, then (0+1) to (2+3), and so on. `total` is there when all
    are. The values' arrays are reused for the sums.
    """

    def __init__(self, count: int) -> None:
        self.total: Partial | None = None
        self._count = count
        self._waiting: dict[tuple[int, int], Partial] = {}
        self._lock = threading.Lock()

    def add(self, index: int, value: Partial) -> None:
        """Take the value of `index`, and add up whatever this makes possible."""
        width = self._count  # sums left at this level of the tree
        while width > 1:
            sibling = index ^ 1
            if sibling < width:
                with self._lock:
                    other = self._waiting.pop((width, sibling), None)
                    if other is None:
                        self._waiting[width, index] = value
                        return
                for mine, theirs in zip(value, other, strict=True):
                    mine += theirs
            index, width = index // 2, (width + 1) // 2
        self.total = value


class WorkerPool:
    """`workers` threads, with BLAS held to one thread in each; a context manager.

    Raises ValueError for fewer than one worker.
    """

    def __init__(self, workers: int | None = None) -> None:
        workers = available_cores() if workers is None else workers
        if workers < 1:
            raise ValueError(f"[WorkerPool] expected at least 1 worker, got {workers}")
        self.workers = workers
        self._stack = contextlib.ExitStack()
        self._executor: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        keep_freed_memory()
        self._stack.enter_context(single_threaded_blas())
        if self.workers > 1:
            self._executor = self._stack.enter_context(ThreadPoolExecutor(self.workers))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
        self._executor = None

    def sum(self, task: Callable[[int], Partial], count: int) -> Partial:
        """The tree sum of `task(0)`, ..., `task(count - 1)`; the first error in one is raised.

        Tasks run under the caller's `numpy.errstate`, in whatever thread.
        """
        tree = TreeSum(count)
        if self._executor is None:
            for index in range(count):
                tree.add(index, task(index))
        else:
            floating_point = numpy.geterr()

            def run(index: int) -> None:
                with numpy.errstate(**floating_point):
                    tree.add(index, task(index))

            futures = [self._executor.submit(run, index) for index in range(count)]
            _, waiting = wait(futures, return_when=FIRST_EXCEPTION)
            for future in waiting:
                future.cancel()
            wait(waiting)
            for future in futures:
                if not future.cancelled():
                    future.result()
        if tree.total is None:
            raise ValueError("[WorkerPool] expected at least 1 micro-batch, got 0")
        return tree.total


def keep_freed_memory() -> None:
    """Ask glibc to keep what arrays free, for the next arrays; elsewhere nothing is done.

    By default it gives large pieces back to the system, which hands them out again page by page,
    cleared: a fifth of a training step at batch 64. Holds for the whole process from then on.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    for option, size_bytes in _MALLOC_OPTIONS.items():
        set_option(ctypes.c_int(option), ctypes.c_int(size_bytes))


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def single_threaded_blas():  # type: ignore[no-untyped-def]
    """Hold BLAS to one thread in this context: each worker is a thread of its own already."""
    try:
        limits = require("threadpoolctl", extra="full", purpose="one BLAS thread a worker")
    except ImportError as error:
        hint = "or set OPENBLAS_NUM_THREADS=1 before starting; else it goes on, slower"
        print(f"{error}, {hint}", file=sys.stderr)  # noqa: T201
        yield
        return
    with limits.threadpool_limits(1, user_api="blas"):
        yield
