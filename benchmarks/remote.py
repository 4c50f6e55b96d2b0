"""A contender in a process of its own, maybe of another interpreter, called in turn over a pipe.

The standard library alone is needed on the other side, so that any interpreter can be one.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parent.parent


def settle(limit_s: float = 0.3) -> None:
    """Wait until this process's own threads rest; at most `limit_s` seconds.

    BLAS and OpenMP threads go on spinning for a while after a call, at the next one's expense.
    """
    give_up = time.perf_counter() + limit_s
    while time.perf_counter() < give_up:
        before = time.process_time()
        time.sleep(0.005)  # longer than a tick, in which the system counts other threads' time
        if time.process_time() - before < 0.001:
            return


class Remote:
    """Calls of `factory(**options)`, an object made in another process.

    `factory` is "module:name", found from the root of the repository. `python` is the interpreter,
    `environment` what is added to this process's. A context manager. Raises RuntimeError, with the
    other side's last line, when something fails there.
    """

    def __init__(
        self,
        factory: str,
        *,
        python: str | Path = sys.executable,
        environment: dict[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.factory = factory
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [str(python), "-m", "benchmarks.remote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path, **(environment or {})},
        )
        try:
            self._exchange(factory, options)
        except BaseException:
            self.close()
            raise

    def __call__(self) -> Any:
        """Call the object; its result."""
        return self.ask("__call__")

    def ask(self, method: str, *arguments: Any) -> Any:
        """The result of a method of the object."""
        return self._exchange(method, arguments)[1]

    def timed(self) -> float:
        """Seconds of one call, as the other process measures them."""
        return self._exchange("__call__", ())[0]

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _exchange(self, *message: Any) -> tuple[float, Any]:
        pipes = self._process.stdin, self._process.stdout
        try:
            _write(pipes[0], message)  # type: ignore[arg-type]
            succeeded, seconds, value = pickle.load(pipes[1])  # type: ignore[arg-type]
        except (EOFError, BrokenPipeError) as error:
            status = self._process.wait()
            raise RuntimeError(f"[Remote] {self.factory} ended with status {status}") from error
        if not succeeded:
            raise RuntimeError(f"[Remote] {self.factory}: {value}")
        return seconds, value


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Make the object that the first request names, then call it as asked until no more comes."""
    factory, options = pickle.load(requests)
    made: list[Any] = []

    def make() -> None:
        module, name = factory.split(":")
        made.append(getattr(importlib.import_module(module), name)(**options))

    if not _reply(replies, make):
        return
    while True:
        try:
            method, arguments = pickle.load(requests)
        except EOFError:
            return
        _reply(replies, partial(_call, made[0], method, arguments))


def _call(made: Any, method: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(made, method)(*arguments)


def _reply(replies: BinaryIO, call: Callable[[], Any]) -> bool:
    """Send whether `call` succeeded, its seconds, and its value or its error's text."""
    started = time.perf_counter()
    try:
        value = call()
        message = True, time.perf_counter() - started, value
    except Exception as error:  # noqa: BLE001 - whatever it is, the other side reports it
        if os.environ.get("NUMPYVIT_TRACEBACK"):
            traceback.print_exc()
        message = False, 0.0, f"{type(error).__name__}: {error}"
    settle()
    _write(replies, message)
    return message[0]


def _write(pipe: BinaryIO, message: Any) -> None:
    pickle.dump(message, pipe, protocol=5)
    pipe.flush()


if __name__ == "__main__":
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the contender prints must not get among the replies
    serve(sys.stdin.buffer, replies)
