"""Where dropout gets its randomness from: a generator for the thread, set around a forward pass."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import numpy.random


class _Current(threading.local):
    generator: numpy.random.Generator | None = None


_current = _Current()


@contextlib.contextmanager
def use_generator(rng: numpy.random.Generator) -> Iterator[None]:
    """Inside this context, and in this thread, modules draw from `rng`: it makes a run repeatable.

    Other threads are not affected, so each can run the same model with randomness of its own.
    """
    before, _current.generator = _current.generator, rng
    try:
        yield
    finally:
        _current.generator = before


def current_generator() -> numpy.random.Generator:
    """This thread's generator; outside `use_generator` a fresh one, different in every process."""
    if _current.generator is None:
        _current.generator = numpy.random.default_rng()
    return _current.generator
