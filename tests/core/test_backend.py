"""Which array library owns an array, devices, and optional packages."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tolerances import assert_same_bits

from numpyvit import Tensor, backend, create_model
from numpyvit.backend import array_module, device_of, require, suggest, to_device, to_numpy


class GpuArray:
    """Stands in for CuPy's array where there is no CuPy."""

    ndim = 1

    def get(self) -> np.ndarray:
        return np.zeros(1)


@pytest.fixture
def fake_cupy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module: Any = ModuleType("cupy")
    module.ndarray = GpuArray
    runtime = SimpleNamespace(getDeviceCount=lambda: 0, CUDARuntimeError=RuntimeError)
    module.cuda = SimpleNamespace(runtime=runtime)
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def test_the_array_decides_which_library_works_on_it(xp: ModuleType) -> None:
    array = xp.zeros(3)
    assert array_module(array) is xp
    assert array_module(array, 2.0, None) is xp
    assert device_of(array) == ("cpu" if xp is np else "cuda")
    assert isinstance(to_numpy(array), np.ndarray)


def test_numbers_belong_to_numpy() -> None:
    assert array_module(1, 2.0, None) is np
    assert array_module() is np


def test_an_array_stays_the_same_object_where_it_is() -> None:
    array = np.zeros(3)
    assert to_numpy(array) is array
    assert to_device(array, "cpu") is array
    assert Tensor(array).to("cpu").data is array


def test_two_libraries_in_one_op_are_refused(fake_cupy: ModuleType) -> None:
    assert array_module(GpuArray()) is fake_cupy
    assert array_module(GpuArray(), 1.0, np.float32(2)) is fake_cupy
    with pytest.raises(TypeError, match=r"one library, got NumPy and CuPy together; move one"):
        array_module(np.zeros(3), GpuArray())
    assert device_of(GpuArray()) == "cuda"
    assert isinstance(to_numpy(GpuArray()), np.ndarray)


@pytest.mark.parametrize("name", ["gpu", "cuda:0", "cuda:x", "cpu:0", "", "CUDA"])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"expected device 'cpu' or 'cuda', got '{name}'"):
        to_device(np.zeros(1), name)


def test_cuda_without_cupy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    model = create_model("vit_cifar_patch4_32", depth=1)
    for call in (lambda: model.to("cuda"), lambda: Tensor([1.0]).to("cuda")):
        with pytest.raises(
            ImportError, match=r"'cuda' needs cupy.*pip install cupy-cuda12x .*extra 'gpu'"
        ):
            call()
    assert model.head.weight.device == "cpu"


def test_cuda_without_a_gpu_says_so(fake_cupy: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_model("vit_cifar_patch4_32", depth=1)
    with pytest.raises(RuntimeError, match="'cuda' was asked for, but no GPU is visible"):
        model.to("cuda")

    def no_driver() -> int:
        raise RuntimeError("driver version is insufficient")

    monkeypatch.setattr(fake_cupy.cuda.runtime, "getDeviceCount", no_driver)
    with pytest.raises(RuntimeError, match="not usable: driver version is insufficient"):
        model.to("cuda")


def test_require_gives_the_module_or_says_what_to_install() -> None:
    assert require("json", extra="full", purpose="nothing") is sys.modules["json"]
    with pytest.raises(ImportError, match=r"\[numpyvit\] magic needs no_such_package, which"):
        require("no_such_package.part", extra="full", purpose="magic")


def test_require_names_pillow_by_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"needs Pillow.*pip install pillow .*extra 'full'"):
        require("PIL.Image", extra="full", purpose="reading pictures")


def test_suggest_names_the_nearest_and_then_all() -> None:
    assert suggest("gleu", ["relu", "gelu"]) == "did you mean 'gelu'? known: relu, gelu"
    assert suggest("zzz", ["relu", "gelu"]) == "known: relu, gelu"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_stretches_cover_every_value_once_and_show_what_is_written(dtype: str) -> None:
    size = 2 * backend._STRETCH_BYTES // np.dtype(dtype).itemsize + 7
    source, target = np.arange(size, dtype=dtype).reshape(1, size), np.zeros((1, size), dtype)
    parts = list(backend.stretches(source, target))
    assert len(parts) == 3
    for a, b in parts:
        b += a
    assert_same_bits(target, source)


def test_stretches_come_whole_where_cutting_does_not_pay_or_would_copy() -> None:
    small, large = np.zeros((2, 3)), np.zeros((3, backend._STRETCH_BYTES))
    assert next(backend.stretches(small))[0] is small
    assert next(backend.stretches(large, large.T.copy().T))[0] is large
    number = np.zeros(())
    for (part,) in backend.stretches(number):
        part += 1
    assert number == 1
