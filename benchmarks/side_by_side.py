"""Time several contenders in turn, in one process, and report ratios of medians."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

RESULTS = Path(__file__).parent / "results"
Contenders = dict[str, Callable[[], Any]]


def race(contenders: Contenders, *, rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of every call: A B C A B C ..., so that all meet the machine in the same moods."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warm_up + rounds):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def table(title: str, seconds: dict[str, list[float]], reference: str) -> list[dict[str, Any]]:
    """Print medians, spreads and ratios to the contender `reference`; the rows, for the record."""
    base = statistics.median(seconds[reference])
    rows = []
    print(f"\n{title}\n{'':28} {'median ms':>10} {'min':>8} {'max':>8} {'ratio':>7}")
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(
            f"{name:28} {middle * 1e3:10.2f} {min(values) * 1e3:8.2f} {max(values) * 1e3:8.2f} "
            f"{middle / base:7.2f}"
        )
        rows.append({"case": title, "contender": name, "median_s": middle, "ratio": middle / base})
    return rows


def save(name: str, rows: list[dict[str, Any]], **versions: str) -> None:
    """Write rows with all that is needed to read them to results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    record = {
        "machine": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        **versions,
        "commit": commit.stdout.strip(),
        "rows": rows,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    print(f"\nwritten: {path}")
