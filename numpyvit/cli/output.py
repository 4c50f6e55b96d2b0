"""Where results go: stdout, stderr, and folders; nothing half written."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shlex
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpyvit.backend import require

# Facts that change the result, and words of those that were guessed.
TELLING = {"model", "warning", "asked for", "resized", "head", "left out", "preprocessing"}
GUESSED = ("guess", "as in most models", "the file does not", "the file has no")
_LONGEST = 80  # letters of a file's name that come from one text


def note(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """A result for programs, on stdout."""
    print(json.dumps(value, indent=2))


def table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows of text in columns, the first `left` of them aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            text.ljust(width) if number < left else text.rjust(width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def report(facts: Sequence[tuple[str, str]], width: int = 80) -> str:
    """Facts under their names, in two columns; a long fact goes on in the next line."""
    left = max(len(name) for name, _ in facts) + 2
    lines = []
    for name, fact in facts:
        parts = textwrap.wrap(fact, max(width - left, 20), break_on_hyphens=False) or [""]
        lines += [f"{name:<{left}}{parts[0]}".rstrip(), *(" " * left + part for part in parts[1:])]
    return "\n".join(lines)


def summary(facts: Sequence[tuple[str, str]], path: object, left_out: Sequence[str] = ()) -> str:
    """Of the facts about a model, those that change its answers; and how to see the others."""
    told = [
        (name, fact)
        for name, fact in facts
        if name not in left_out and (name in TELLING or any(word in fact for word in GUESSED))
    ]
    more = f"{this_command()} inspect {shlex.quote(str(path))}"
    return "\n".join([*([report(told)] if told else []), f"{more} says more"])  # to be copied


def in_a_name(text: str) -> str:
    """`text` as a part of a file's name: words with "-" between them."""
    return re.sub(r"[^\w.]+", "-", text.lower()).strip("-.")[:_LONGEST].rstrip("-.")


def multiply_adds(count: int) -> str:
    """In billions, as papers give them; fewer than half a million by their number."""
    return f"{count / 1e9:.3f} G" if count >= 500_000 else f"{count:,}"


def by_stage(value: Any) -> str:
    """A size, or those of all stages as in "3-6-12"."""
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


def note_replaced(count: int, folder: Path) -> None:
    """Say, on stderr, that files of an earlier run are gone; nothing where there were none."""
    if count:
        files = "1 file" if count == 1 else f"{count:,} files"
        note(f"note: replaced {files} of an earlier run in {folder}")


def check_can_draw() -> None:
    """ImportError, before any work is done, where pictures cannot be drawn."""
    require("matplotlib.figure", extra="full", purpose="drawing pictures")


def this_command() -> str:
    """How the program was called, for the commands that it suggests: they work as they stand."""
    called = Path(sys.argv[0])
    if called.parts[-2:] == ("numpyvit", "__main__.py"):
        return f"{shlex.quote(sys.orig_argv[0])} -m numpyvit"
    if called.stem != "numpyvit" or not called.is_file():  # called from another program
        return "numpyvit"
    found = shutil.which("numpyvit")
    is_on_path = found is not None and called.samefile(found)
    return "numpyvit" if is_on_path else shlex.quote(sys.argv[0])


def writable_folder(path: str | Path) -> Path:
    """`path`, made if need be and tried out; OSError that says why it cannot be written to."""
    path = Path(path)
    if path.is_file():
        raise NotADirectoryError(f"expected a folder for the output, got {path}, which is a file")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise OSError(
            f"expected an output folder that can be written to, got {path} "
            f"({(error.strerror or str(error)).lower()}); give another one"
        ) from error


@contextlib.contextmanager
def undone_on_failure(path: Path) -> Iterator[None]:
    """Take back, when the block fails, the folders on the way to `path` that were not there."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):  # other files in it: it stays
                folder.rmdir()
        raise


@dataclasses.dataclass
class Names:
    """Different files in one folder for pictures that may have the same name; never an input.

    `doubles` are the pictures whose file has a number, as another has its name.
    """

    folder: Path
    inputs: Sequence[str]
    taken: set[str] = dataclasses.field(default_factory=set)
    doubles: set[str] = dataclasses.field(default_factory=set)
    replaced: int = 0  # files of an earlier run

    def file(self, picture: str, ending: str) -> Path:
        """Where what is drawn for `picture` goes."""
        stem, number = Path(picture).stem, 1
        while not self._is_free(name := f"{stem}{f'-{number}' if number > 1 else ''}{ending}"):
            number += 1
            self.doubles.add(picture)
        self.taken.add(name)
        self.replaced += (self.folder / name).exists()
        return self.folder / name

    def _is_free(self, name: str) -> bool:
        file = self.folder / name
        return name not in self.taken and not (
            file.exists()
            and any(Path(path).exists() and file.samefile(path) for path in self.inputs)
        )
