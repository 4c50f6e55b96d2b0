"""What every test shares: quiet thread pools, no display, random numbers, array libraries, data."""

from __future__ import annotations

import os

# Before NumPy or PyTorch is imported: the tests' arrays are small, and a pool of BLAS threads
# spends its time waking up. matplotlib must not look for a display.
for _variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ["MPLBACKEND"] = "Agg"

import functools
import importlib
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@functools.cache
def reason_without_cupy() -> str | None:
    """Why CuPy cannot be used here, or None where it can."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns about CUDA folders that it does not find
        try:
            cupy = importlib.import_module("cupy")
        except ImportError as error:
            return f"CuPy cannot be imported: {error}"
        try:
            if cupy.cuda.runtime.getDeviceCount() == 0:
                return "CuPy finds no CUDA device"
            cupy.zeros(1).sum()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            return f"CuPy cannot use a CUDA device: {error}"
    return None


@pytest.fixture(params=["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request: pytest.FixtureRequest) -> ModuleType:
    """The array library under test: NumPy, and CuPy where there is a GPU."""
    if request.param == "cupy" and (reason := reason_without_cupy()):
        pytest.skip(reason)
    return importlib.import_module(request.param)


@pytest.fixture
def device(xp: ModuleType) -> str:
    """The device of the array library under test."""
    return "cpu" if xp is np else "cuda"


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    return np.dtype(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers for each test, whatever ran before it."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch, the reference; a test that asks for it is skipped where it is not installed."""
    module = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[test]'")
    module.set_num_threads(1)
    return module


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data that lies outside the repository; skips where there is none."""
    named = os.environ.get("NUMPYVIT_SHARED_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}: set NUMPYVIT_SHARED_DATA to its folder")
    return folder
