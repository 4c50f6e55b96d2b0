"""Memory of a process and of those it starts, as Linux counts it, and of one contender's steps.

`VmRSS` is what a process has in memory now, `VmHWM` the most that it has had, both with the pages
of libraries that it shares with others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import time
from pathlib import Path
from typing import Any

from benchmarks.contenders.contract import Case
from benchmarks.training_step import Setting
from numpyvit.models import VisionTransformer, ViTConfig

PROC = Path("/proc")
STEPS = 2  # from the second on, gradients and moments are there as well
TINY = {"image_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 1}


def supported() -> bool:
    """Whether the system counts memory this way and lets a process reset its peak."""
    return PROC.joinpath("self/clear_refs").exists()


def resident(pid: int, key: str = "VmRSS") -> int:
    """Bytes that `key` gives for a process; 0 once it is gone."""
    with contextlib.suppress(OSError):
        for line in PROC.joinpath(str(pid), "status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return 0


def reset_peak(pid: int) -> None:
    """Make a process's peak what it has now."""
    PROC.joinpath(str(pid), "clear_refs").write_text("5")


def descendants(pid: int) -> list[int]:
    """The processes that `pid` started and that they started."""
    found = []
    with contextlib.suppress(OSError):
        for task in PROC.joinpath(str(pid), "task").iterdir():
            for child in task.joinpath("children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def settled(pid: int, quiet_s: float = 0.5, limit_s: float = 20.0) -> int:
    """Resident bytes of a process once they have not changed for `quiet_s` seconds."""
    last, since, give_up = resident(pid), time.monotonic(), time.monotonic() + limit_s
    while time.monotonic() < min(since + quiet_s, give_up):
        time.sleep(0.02)
        now = resident(pid)
        if now != last:
            last, since = now, time.monotonic()
    return last


def small_case(setting: Setting) -> Case:
    """A model of almost no size and one image for it, with the same dropout."""
    case = dataclasses.replace(setting, batch=1).case()
    config = ViTConfig(**{**case.config, **TINY})
    weights = VisionTransformer(config).state_dict()
    side = config.image_size
    return Case(config.to_dict(), weights, case.images[:, :, :side, :side].copy(), case.labels)


class Probe:
    """One contender, "module:name" of benchmarks.contenders, measured in the process it is made in.

    What is imported only when it is first used belongs to the imports as well: a step of a model of
    almost no size is taken before they are counted.
    """

    def __init__(self, factory: str, **options: Any) -> None:
        module, name = factory.split(":")
        self.kind = getattr(importlib.import_module(f"benchmarks.contenders.{module}"), name)
        self.options = options

    def measure(self, setting: Setting) -> dict[str, float]:
        """Loss of the first step, and bytes: imports, those of worker processes, beyond both."""
        alone = {**self.options, "workers": 1} if "workers" in self.options else self.options
        warm = self.kind(**alone)
        warm.prepare(small_case(setting))
        warm()
        own = os.getpid()
        imports = settled(own, 0.1)
        reset_peak(own)
        contender = self.kind(**self.options)
        contender.prepare(setting.case())
        workers = descendants(own)
        worker_imports = sum(settled(pid) for pid in workers)
        loss = contender()
        for _ in range(STEPS - 1):
            contender()
        if descendants(own) != workers:
            raise RuntimeError("[memory] expected no process to start or end during the steps")
        peaks = sum(resident(pid, "VmHWM") for pid in [own, *workers])
        return {
            "loss": loss,
            "beyond_imports_bytes": peaks - imports - worker_imports,
            "imports_bytes": imports,
            "workers_imports_bytes": worker_imports,
        }
