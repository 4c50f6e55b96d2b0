from __future__ import annotations

import mmap
import os
import subprocess
import sys

import pytest

from benchmarks import memory
from benchmarks.memory_probe import (
    Probe,
    descendants,
    reset_peak,
    resident,
    settled,
    small_case,
    supported,
)
from benchmarks.training_step import Setting

pytestmark = pytest.mark.skipif(not supported(), reason="needs Linux's /proc")
MB = 1 << 20


def test_a_peak_is_noticed_after_it_is_over_and_can_be_reset():
    reset_peak(os.getpid())
    before = resident(os.getpid())
    with mmap.mmap(-1, 64 * MB) as pages:  # goes back to the system at once, whatever malloc keeps
        pages[:: mmap.PAGESIZE] = bytes(len(pages) // mmap.PAGESIZE)
    assert resident(os.getpid(), "VmHWM") - before > 60 * MB
    reset_peak(os.getpid())
    assert resident(os.getpid(), "VmHWM") - before < 30 * MB


def test_children_and_theirs_are_found_until_they_end():
    command = f"import subprocess, sys; subprocess.run([{sys.executable!r}, '-c', 'input()'])"
    child = subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE)
    try:
        while len(descendants(os.getpid())) < 2:
            assert child.poll() is None
        assert child.pid in descendants(os.getpid())
        assert settled(child.pid, 0.05) > MB
    finally:
        child.communicate(b"\n")
    assert child.pid not in descendants(os.getpid())
    assert resident(child.pid) == 0


def test_a_step_is_measured_with_its_workers():
    setting = Setting("vit_cifar_patch4_32", 8, 0.0)
    found = Probe("numpyvit_step:NumpyvitStep", workers=2).measure(setting)
    assert found["loss"] > 0
    assert found["workers_imports_bytes"] > MB
    assert found["imports_bytes"] > MB


def test_the_small_case_is_one_image_of_a_tiny_model_with_the_same_dropout():
    case = small_case(Setting("vit_cifar_patch4_32", 4, 0.1))
    assert case.images.shape == (1, 3, 8, 8)
    assert case.config["dropout"] == case.config["attention_dropout"] == 0.1
    assert case.weights["head.weight"].shape == (10, 8)


def test_ratios_are_to_pytorch_eager_and_losses_must_agree(monkeypatch):
    losses = {"a": 1.0, "b": 1.0}
    monkeypatch.setattr(memory, "contenders", lambda: {memory.REFERENCE: "a", "numpyvit": "b"})
    monkeypatch.setattr(
        memory,
        "measure",
        lambda name, setting, rounds: {
            "loss": losses[name],
            "beyond_imports_bytes": {"a": 200, "b": 50}[name],
            "imports_bytes": 10,
        },
    )
    setting = Setting("vit_cifar_patch4_32", 2, 0.0)
    rows = memory.rows_of_setting(setting, 1)
    assert [row["ratio"] for row in rows] == [1.0, 0.25]
    assert [row["in_all_bytes"] for row in rows] == [210, 60]
    for loss in (1.1, float("nan")):
        losses["b"] = loss
        with pytest.raises(ValueError, match="expected equal first losses"):
            memory.rows_of_setting(setting, 1)
