"""The invariants of the package's structure, checked on its sources and in a fresh interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import architecture
import pytest
from architecture import OPTIONAL, REQUIRED, Package

# "file:function" -> why it takes more than eight arguments. Keyword-only ones, always.
MANY_ARGUMENTS: dict[str, str] = {}


@pytest.fixture(scope="module")
def package(repository: Path) -> Package:
    return Package(repository / "numpyvit")


def listed(faults: list[str]) -> str:
    return "\n" + "\n".join(faults)


def test_imports_only_go_down_the_layers(package: Package) -> None:
    faults = architecture.imports_that_do_not_go_down(package)
    assert not faults, listed(faults)


def test_only_optional_packages_are_imported_inside_functions(package: Package) -> None:
    faults = architecture.imports_out_of_place(package)
    assert not faults, listed(faults)


def test_ops_name_no_array_library(package: Package) -> None:
    assert any(source.parts[:1] == ("ops",) for source in package)
    faults = architecture.array_libraries_named_in_ops(package)
    assert not faults, listed(faults)


def test_the_library_raises_and_never_asserts(package: Package) -> None:
    faults = architecture.asserts(package)
    assert not faults, listed(faults)


def test_files_functions_lines_and_argument_lists_are_short(package: Package) -> None:
    faults = architecture.sizes(package, MANY_ARGUMENTS)
    assert not faults, listed(faults)


def test_importing_the_package_loads_numpy_and_the_standard_library_only(repository: Path) -> None:
    code = (
        "import json, sys; before = set(sys.modules); import numpyvit; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    loaded = {name.partition(".")[0] for name in json.loads(run.stdout)}
    # Names that no list has: the interpreter's record of its build, and what the compiled parts of
    # NumPy register of the language that they were written in.
    loaded = {
        name for name in loaded if not name.startswith(("_sysconfigdata", "_cython", "cython_"))
    }
    assert "numpyvit" in loaded
    assert loaded & OPTIONAL == set()
    assert loaded - REQUIRED - {"numpyvit"} == set()


LOADED_WHEN_USED = [
    "check",
    "compress",
    "data",
    "explain",
    "models",
    "nn",
    "optim",
    "train",
    "weights",
]


def run_python(code: str, repository: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("name", LOADED_WHEN_USED)
def test_a_part_that_is_not_loaded_with_the_package_is_loaded_when_used(
    name: str, repository: Path
) -> None:
    code = (
        f"import sys, numpyvit; full = 'numpyvit.{name}'; assert full not in sys.modules; "
        f"assert '{name}' in dir(numpyvit); assert numpyvit.{name} is sys.modules[full]; "
        "assert not hasattr(numpyvit, 'no_such_part')"
    )
    run = run_python(code, repository)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", ["create_model", "list_models"])
def test_what_the_package_lends_from_a_part_is_the_part_s_own(name: str, repository: Path) -> None:
    code = (
        "import sys, numpyvit; assert 'numpyvit.models' not in sys.modules; "
        f"assert '{name}' in dir(numpyvit); from numpyvit import {name}; "
        f"assert {name} is sys.modules['numpyvit.models'].{name}"
    )
    run = run_python(code, repository)
    assert run.returncode == 0, run.stderr


def test_importing_the_package_loads_nothing_that_takes_long_and_is_needed_later_only(
    repository: Path,
) -> None:
    later = {"numpy.random", "zipfile", "json", "dataclasses", "numpyvit.models", "numpyvit.nn"}
    code = f"import sys, numpyvit; print(sorted({later} & set(sys.modules)))"
    assert run_python(code, repository).stdout.strip() == "[]"


# The checks themselves, on made-up packages: each fault must be found.

GOOD = {
    "__init__.py": "from numpyvit.tensor import Tensor",
    "__main__.py": "from numpyvit.cli import main",
    "backend.py": "import importlib\nimport numpy as np\nimportlib.import_module('cupy')",
    "ops/__init__.py": "from numpyvit.ops.shape import a\nfrom numpyvit.ops.linear import b",
    "ops/shape.py": "from numpyvit.backend import array_module",
    "ops/linear.py": "from numpyvit.ops.shape import a\nfrom . import shape",
    "tensor.py": "import numpy as np\nfrom numpyvit.backend import array_module",
    "optim/__init__.py": "",
    "optim/schedules.py": "import math",
    "data/__init__.py": "def f():\n    import PIL.Image",
    "cli/__init__.py": "from numpyvit import data, optim\nfrom numpyvit.ops import linear",
}


def faults_in(folder: Path, files: dict[str, str]) -> list[str]:
    for name, text in files.items():
        path = folder / "numpyvit" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    package = Package(folder / "numpyvit")
    return [
        *architecture.imports_that_do_not_go_down(package),
        *architecture.imports_out_of_place(package),
        *architecture.array_libraries_named_in_ops(package),
        *architecture.asserts(package),
        *architecture.sizes(package, {}),
    ]


def test_a_well_layered_package_has_no_faults(tmp_path: Path) -> None:
    assert faults_in(tmp_path, GOOD) == []


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("backend.py", "import numpyvit.tensor", "'tensor' is not below 'backend'"),
        ("ops/shape.py", "from numpyvit.tensor import Tensor", "'tensor' is not below 'ops'"),
        ("ops/shape.py", "from ..tensor import Tensor", "'tensor' is not below 'ops'"),
        ("ops/shape.py", "from .linear import b", "lists 'linear' after 'shape'"),
        ("ops/shape.py", "from numpyvit.ops import b", "the folder that it lies in"),
        ("ops/new.py", "from .linear import b\nfrom .other import c", "the folder that it lies in"),
        ("optim/schedules.py", "from numpyvit import data", "'data' is not below 'optim'"),
        ("optim/schedules.py", "from numpyvit import Tensor", "sits on top of every layer"),
        ("optim/schedules.py", "from numpyvit.optim import x", "the folder that it lies in"),
        ("extra.py", "from numpyvit.ops import linear", "'extra' is in no layer"),
        ("tensor.py", "def f():\n    import numpyvit.ops", "inside a function"),
        ("tensor.py", "def f():\n    import math", "inside a function"),
        ("tensor.py", "import PIL", "when it is loaded"),
        ("tensor.py", "import torch", "no dependency"),
        ("tensor.py", "import importlib\nimportlib.import_module('x')", "imports by name"),
        ("ops/shape.py", "import numpy as np", "names an array library"),
        ("ops/shape.py", "def f(x):\n    return np.exp(x)", "names an array library"),
        ("ops/shape.py", "from cupyx.scipy import special", "names an array library"),
        ("ops/shape.py", "f('cupyx.scipy.special')", "names an array library"),
        ("tensor.py", "def f(x):\n    assert x", "asserts"),
        ("tensor.py", "\n" * 401, "has 401 lines"),
        ("tensor.py", "def f():\n" + "    pass\n" * 50, "f has 51 lines"),
        ("tensor.py", "#" * 101, "has 101 columns"),
        ("tensor.py", "def f(a, b, c, d, e, /, g, h, *, i, j): pass", "f has 9 arguments"),
    ],
)
def test_a_fault_is_found(tmp_path: Path, file: str, text: str, fault: str) -> None:
    faults = faults_in(tmp_path, {**GOOD, file: text})
    assert any(fault in line for line in faults), listed(faults)


def test_an_exception_that_is_no_longer_needed_is_a_fault(package: Package) -> None:
    faults = architecture.sizes(package, {**MANY_ARGUMENTS, "numpyvit/nowhere.py:f": "because"})
    assert "numpyvit/nowhere.py:f needs no exception" in faults
