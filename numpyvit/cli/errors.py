"""A user's mistake becomes one line on stderr and an exit status."""

from __future__ import annotations

import errno
import re
import sys

SUCCESS, FAILURE, USAGE, INTERRUPTED = 0, 1, 2, 130

# What the library raises for what a user can cause; anything else is a fault of the program, whose
# traceback is of use.
MISTAKES = (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError)

_MOST_LINES = 6
_REPEATED = re.compile(r" \(cannot identify image file [^()]*\)")  # the path was named before
_COMPONENT = re.compile(r"^\[\w[\w.]*\] ")  # what the library's own errors begin with

_TEXT, _TRUTH = re.compile(r"\b(\w+)='(\w+)'"), re.compile(r"(?<=[ =])(True|False)\b")


class UsageError(ValueError):
    """A command line that makes no sense, found only once the model's file was read."""


def report(message: str) -> None:
    """Print `message` on stderr as the one line that says what is wrong."""
    print(f"numpyvit: error: {one_line(message)}", file=sys.stderr, flush=True)


def describe(error: BaseException) -> str:
    """What an exception has to say to a person."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        where = f" {error.filename}" if error.filename else ""
        return (
            f"expected room for{where or ' a file'}, the disk is full; make some, then repeat "
            + ("the command, of a run with train --resume FOLDER")
        )
    if isinstance(error, OSError) and error.strerror:
        if not error.filename:
            return error.strerror
        return f"expected a path that can be used, got {error.filename} ({error.strerror.lower()})"
    if isinstance(error, MemoryError):
        what = f"not enough memory: {error}" if str(error) else "not enough memory"
        return f"{what}; take --batch-size 1 or a smaller --image-size, where the command has them"
    text = _REPEATED.sub("", str(error)) or type(error).__name__
    if isinstance(error, TypeError | RuntimeError) and not _COMPONENT.match(text):
        return f"{text} (set NUMPYVIT_TRACEBACK=1 to see where)"  # not the library's own words
    return text


def one_line(message: str) -> str:
    """`message` in one line, without the library's "[Component]" in front.

    Of a long list in the middle of it only the beginning stays. Python's `name='text'` and
    `name=True` become what --set takes.
    """
    message = _TEXT.sub(r"\1=\2", _TRUTH.sub(lambda truth: truth[0].lower(), message))
    lines = [line.strip() for line in _COMPONENT.sub("", message).splitlines()]
    lines = [line for line in lines if line]
    if len(lines) > _MOST_LINES:
        left_out = len(lines) - _MOST_LINES + 1
        lines = [*lines[: _MOST_LINES - 2], f"and {left_out} more", lines[-1]]
    text = "; ".join(lines)
    return text.replace(":; ", ": ")
