"""Where a step's time goes, by op, without a change to the package.

Every op of the package reaches the tape through a function that `differentiable` made. Inside the
context of `timed_ops`, those functions call the op through a stopwatch, and so does the tape the
pullback that the op returns. The clock is that of one thread in one process: for one worker.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import CellType, FunctionType
from typing import Any

from numpyvit import functional
from numpyvit.tensor import tensor


class Stopwatch:
    """Seconds by name; a call inside another's counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def time(self, name: str, call: Callable[..., Any], *args: Any, **settings: Any) -> Any:
        """What `call` returns; its seconds are noted under `name`."""
        self._inner.append(0.0)
        started = time.perf_counter()
        try:
            return call(*args, **settings)
        finally:
            elapsed = time.perf_counter() - started
            self.seconds[name] += elapsed - self._inner.pop()
            if self._inner:
                self._inner[-1] += elapsed


@contextlib.contextmanager
def timed_ops(watch: Stopwatch) -> Iterator[None]:
    """Time all ops, forward and back, under their names, in this context."""
    cells = _op_cells()
    originals = [cell.cell_contents for cell in cells]
    for cell, op in zip(cells, originals, strict=True):
        cell.cell_contents = _timed(op, watch)
    try:
        yield
    finally:
        for cell, op in zip(cells, originals, strict=True):
            cell.cell_contents = op


def _timed(op: Callable[..., Any], watch: Stopwatch) -> Callable[..., Any]:
    name = op.__name__

    def forward(*args: Any, **settings: Any) -> Any:
        value, pullback = watch.time(name, op, *args, **settings)
        return value, lambda *back: watch.time(name, pullback, *back)

    forward.__name__ = name  # the tape names its nodes after it
    return forward


def _op_cells() -> list[CellType]:
    """The variable `op` of every function that `differentiable` made, each once."""
    found: dict[int, CellType] = {}
    for owner in (functional, tensor, tensor.Tensor):
        for value in list(vars(owner).values()):
            for cell in _cells(value, "lifted"):
                for inner in _cells(cell.cell_contents, "op"):
                    found[id(inner)] = inner
            for cell in _cells(value, "op"):
                found[id(cell)] = cell
    return list(found.values())


def _cells(value: Any, name: str) -> list[CellType]:
    """The cell of the free variable `name` of a function, if it has one."""
    if not isinstance(value, FunctionType) or name not in value.__code__.co_freevars:
        return []
    return [(value.__closure__ or ())[value.__code__.co_freevars.index(name)]]
