"""Tasks for the worker processes: they are sent by name, so they stand at the top of a module."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import numpy as np


def after_a_while(value: np.ndarray, seconds: float) -> list[np.ndarray]:
    """`value`."""
    time.sleep(seconds)
    return [value]


def fail_from_4(index: int) -> list[np.ndarray]:
    """A one, and from index 4 on a KeyError."""
    if index >= 4:
        raise KeyError(f"task {index}")
    return [np.ones(1)]


def overflow() -> list[np.ndarray]:
    """Infinity."""
    time.sleep(0.01)
    return [np.full(1, 1e300) * 1e300]


def chatty() -> list[np.ndarray]:
    """A one, and a word on stdout."""
    print("hello", flush=True)  # noqa: T201
    os.write(1, b"hello\n")
    return [np.ones(1)]


def chatty_with(anything: object) -> list[np.ndarray]:
    """The same, with an argument."""
    return chatty()


class UnsendableError(Exception):
    """Cannot be unpickled: its constructor wants two arguments."""

    def __init__(self, text: str, more: int = 0, /, *, must: int = 0) -> None:
        super().__init__(text)
        self.lock = open(os.devnull)  # noqa: SIM115


@dataclasses.dataclass
class Meeting:
    """A one, once `guests` processes have left their number in `folder`."""

    folder: Path
    guests: int

    def __call__(self) -> list[np.ndarray]:
        (self.folder / str(os.getpid())).touch()
        deadline = time.monotonic() + 20
        while len(list(self.folder.iterdir())) < self.guests:
            if time.monotonic() > deadline:
                raise TimeoutError("the others did not come")
            time.sleep(0.005)
        return [np.ones(1)]


@dataclasses.dataclass
class FailElsewhere:
    """A one in the process `home`, an error in any other."""

    home: int

    def __call__(self, kind: type[Exception]) -> list[np.ndarray]:
        if os.getpid() != self.home:
            raise kind("not in the child")
        time.sleep(0.02)
        return [np.ones(1)]


@dataclasses.dataclass
class DieElsewhere:
    """A one in the process `home`; any other ends."""

    home: int

    def __call__(self) -> list[np.ndarray]:
        if os.getpid() != self.home:
            os._exit(3)
        time.sleep(0.02)
        return [np.ones(1)]
