"""The documents say what the sources are: code in them is code that runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tolerances import assert_close

from numpyvit import Tensor, functional, gradients
from numpyvit.nn import Module, Parameter

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "architecture.md").read_text(), re.S)


def test_the_worked_example_is_the_scripts_class():
    script = (ROOT / "examples" / "10_a_variant_of_your_own.py").read_text()
    assert BLOCKS[0].strip() in script


def test_the_worked_example_has_under_60_lines():
    assert sum(len(block.splitlines()) for block in BLOCKS) < 60


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_worked_examples_test_passes(dtype):
    names = {"np": np, "pytest": pytest, "torch": torch, "functional": functional}
    names |= {"Tensor": Tensor, "Module": Module, "Parameter": Parameter}
    names |= {"gradients": gradients, "assert_close": assert_close}
    exec(BLOCKS[0], names)  # the class
    exec(BLOCKS[-1], names)  # its test
    names["test_pooling_by_a_power_mean_is_pytorchs"](dtype)


def test_every_file_of_the_package_is_listed():
    page = (ROOT / "docs" / "architecture.md").read_text()
    folders = sorted(path.parent for path in (ROOT / "numpyvit").glob("*/__init__.py"))
    for folder in folders:
        for file in folder.glob("*.py"):
            if file.stem != "__init__":
                assert f"| `{file.stem}` |" in page, f"{file}: run tools/write_architecture.py"
