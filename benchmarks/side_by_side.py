"""What all benchmarks share: contenders timed in turn, tables of medians, results on disk."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

from benchmarks.remote import ROOT, Remote, settle

__all__ = ["Remote", "available", "parser", "print_rows", "race", "rows_of", "save", "settle"]

RESULTS = ROOT / "benchmarks" / "results"
QUICK_ROUNDS = 3
PATHS = {"--out": "FOLDER", "--python312": "PATH"}  # options whose values are not recorded

Contenders = Mapping[str, Callable[[], Any]]
Row = dict[str, Any]


def race(
    contenders: Contenders,
    *,
    rounds: int,
    warm_up: int = 2,
    fewer: Mapping[str, int] | None = None,
) -> dict[str, list[float]]:
    """Seconds of every call: A B C A B C ..., so that all meet the machine in the same moods.

    After each call the process's threads are given time to come to rest. `fewer` names slow
    contenders with the rounds that they take part in, spread evenly; they are warmed up once.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    part = {name: min((fewer or {}).get(name, rounds), rounds) for name in contenders}
    for turn in range(-warm_up, rounds):
        for name, run in contenders.items():
            if turn < 0:
                takes_part = part[name] == rounds or turn == -1
            else:
                takes_part = (turn + 1) * part[name] // rounds > turn * part[name] // rounds
            if not takes_part:
                continue
            elapsed = run.timed() if isinstance(run, Remote) else _timed(run)
            if turn >= 0:
                seconds[name].append(elapsed)
            settle()
    return seconds


def _timed(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def rows_of(case: str, seconds: dict[str, list[float]], reference: str) -> list[Row]:
    """A row a contender: median, 10th and 90th percentile in seconds, ratio of the medians.

    `ratio` is to the contender `reference`, None where that one did not take part.
    """
    base = statistics.median(seconds[reference]) if seconds.get(reference) else None
    rows = []
    for name, values in seconds.items():
        if not values:
            continue
        middle = statistics.median(values)
        low, high = numpy.percentile(values, [10, 90])
        rows.append(
            {
                "case": case,
                "contender": name,
                "median_s": middle,
                "p10_s": float(low),
                "p90_s": float(high),
                "ratio": None if base is None else middle / base,
            }
        )
    return rows


def print_rows(rows: Sequence[Row]) -> None:
    """Print rows as a table: keys in `_s` in milliseconds, in `_bytes` in megabytes."""
    cells = _cells(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print()
    for line in cells:
        print("  ".join(_pad(*cell) for cell in zip(line, widths, _texts(rows), strict=True)))
    print(flush=True)


def markdown(rows: Sequence[Row]) -> str:
    """The same table in Markdown."""
    head, *body = _cells(rows)
    rule = ["---" if text else "---:" for text in _texts(rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, rule, *body])


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [[_head(key) for key in keys]] + [
        [_cell(key, row.get(key)) for key in keys] for row in rows
    ]


def _texts(rows: Sequence[Row]) -> list[bool]:
    """Which columns hold text, for their alignment."""
    keys = dict.fromkeys(key for row in rows for key in row)
    return [any(isinstance(row.get(key), str) for row in rows) for key in keys]


def _head(key: str) -> str:
    for suffix, unit in (("_s", " ms"), ("_bytes", " MB")):
        if key.endswith(suffix):
            return key.removesuffix(suffix).replace("_", " ") + unit
    return key.replace("_", " ")


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str | bool | int) and not key.endswith("_bytes"):
        return str(value)
    if key.endswith("_s"):
        return f"{value * 1e3:.4g}" if value < 1 else f"{value * 1e3:.0f}"
    if key.endswith("_bytes"):
        return f"{value / 1e6:.1f}"
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"


def _pad(cell: str, width: int, is_text: bool) -> str:
    return cell.ljust(width) if is_text else cell.rjust(width)


def parser(doc: str, *, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark has: --quick, --rounds (default: `rounds`), --out."""
    made = argparse.ArgumentParser(description=doc.strip().splitlines()[0], allow_abbrev=False)
    made.add_argument("--rounds", type=int, default=rounds, help="timed calls of each contender")
    made.add_argument(
        "--quick", action=_Quick, nargs=0, default=False, help="fewer rounds and sizes, for a try"
    )
    made.add_argument(
        "--out", type=Path, default=RESULTS, metavar="FOLDER", help="for results (%(default)s)"
    )
    made.set_defaults(usual_rounds=rounds)
    return made


class _Quick(argparse.Action):
    """Fewer rounds, unless their number was given."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        namespace.quick = True
        if namespace.rounds == namespace.usual_rounds:
            namespace.rounds = min(QUICK_ROUNDS, namespace.rounds)


def available(module: str) -> bool:
    """Whether a module can be imported; where it cannot, a line says so."""
    if importlib.util.find_spec(module) is not None:
        return True
    print(f"skipped: {module} is not installed", flush=True)
    return False


def save(name: str, rows: Sequence[Row], out: Path, *, threads: str = "", **extra: Any) -> Path:
    """Write `rows` with all that is needed to read them to NAME.json and NAME.md in `out`.

    `threads` says what the benchmark set, in contenders' processes, say. Values of `extra` that are
    lists of rows become tables of NAME.md as well. Returns the path of NAME.json.
    """
    out.mkdir(parents=True, exist_ok=True)
    about = _about(name, threads)
    path = out / f"{name}.json"
    path.write_text(json.dumps({**about, "rows": rows, **extra}, indent=1) + "\n")
    lines = "\n".join(f"- {key}: {value}" for key, value in about.items())
    tables = [markdown(rows)]
    for title, value in extra.items():
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            tables.append(f"## {title.replace('_', ' ')}\n\n{markdown(value)}")
    (out / f"{name}.md").write_text(f"# {name}\n\n{lines}\n\n" + "\n".join(tables))
    print(f"written: {path}", flush=True)
    return path


def _about(name: str, threads: str) -> Row:
    """The machine, the versions and the command."""
    return {
        "machine": _machine(),
        "system": platform.system(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "torch": _version("torch"),
        "threads": _threads(threads),
        "commit": _commit(),
        "command": shlex.join(["python", "-m", "benchmarks", name, *_without_paths(sys.argv[1:])]),
    }


def _without_paths(words: Sequence[str]) -> list[str]:
    """A command line's options, with a name in place of each path that the user gave."""
    found: list[str] = []
    before = ""
    for word in words:
        option, equals, _ = word.partition("=")
        if before in PATHS:
            found.append(PATHS[before])
        else:
            found.append(f"{option}={PATHS[option]}" if equals and option in PATHS else word)
        before = "" if before in PATHS else word
    return found


def _machine() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(module: str) -> str | None:
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        return None


def _threads(said: str) -> str:
    """The variables that set threads, and what the benchmark said; else PyTorch's, if loaded."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    found = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    if said:
        found.append(said)
    elif "torch" in sys.modules:
        found.append(f"torch {sys.modules['torch'].get_num_threads()}")
    return ", ".join(found) or "as by default"


def _commit() -> str:
    """The commit of the working tree, "+" when files of the package are changed; "" without git."""
    head, changed = _git("rev-parse", "--short", "HEAD"), _git("status", "--short", "numpyvit")
    return head + ("+" if changed else "")


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, cwd=ROOT)
    except OSError:
        return ""
    return done.stdout.strip()
