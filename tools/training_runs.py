"""Runs of `numpyvit train` in processes of their own, for the tools that tabulate them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def finish(folder: Path, options: Sequence[str], *always: str) -> None:
    """Train into `folder` to the end, from where it stands; SystemExit where that fails.

    `options` describe a new run; those of `always` are given to one that is continued as well.
    Ctrl-C stops the run cleanly, and this with it.
    """
    if (folder / "curves.png").exists():  # written at the end
        return
    begun = (folder / "config.json").exists()
    words = ["--resume", str(folder)] if begun else [*options, "--out", str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    # In a process group of its own: the terminal's Ctrl-C comes here alone, and is handed on once.
    process = subprocess.Popen(
        [sys.executable, "-m", "numpyvit", "train", *words, *always],
        env=environment,
        process_group=0,
    )
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        status = process.wait()
    if status:
        raise SystemExit(status)
