"""Every op through the same checks, row by row of the table of cases."""

from __future__ import annotations

import copy
import math
import sys
from collections import Counter
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from core.cupy_like import CuPyLike
from core.op_cases import Case
from core.vit_op_cases import CASES
from tolerances import as_numpy, assert_close, tolerance

import numpyvit
from numpyvit import Tensor, ops
from numpyvit.check import check_op

NOT_OPS = {"OpResult", "erf", "sum_to"}  # a type, and two functions without a pullback

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def arrays_of(case: Case, dtype: np.dtype, xp: ModuleType, rng: np.random.Generator) -> list[Any]:
    """The case's arrays: floats in `dtype`, in the library `xp`, read-only where it has that."""
    arrays = []
    for value in case.arrays(rng):
        if isinstance(value, np.ndarray | np.generic):
            value = np.asarray(value)
            value = xp.array(value, dtype=dtype if value.dtype.kind == "f" else value.dtype)
            protect(value)
        arrays.append(value)
    return arrays


def protect(array: Any) -> None:
    if hasattr(array, "setflags"):
        array.setflags(write=False)


def is_float(value: Any) -> bool:
    return getattr(getattr(value, "dtype", None), "kind", "") == "f"


def pull(pullback: Any, arrays: list[Any], op: str, dy: Any) -> tuple[Any, ...]:
    """The gradients of all float arrays; what takes several arrays is told which."""
    if len(arrays) == 1 and op not in ("concat", "stack"):
        return pullback(dy)
    return pullback(dy, tuple(map(is_float, arrays)))


def precise(value: Any) -> Any:
    """Arrays for the oracle: NumPy's, floats in float64."""
    if not hasattr(value, "dtype"):
        return value
    return as_numpy(value).astype(np.float64) if is_float(value) else as_numpy(value)


def size(gradient: Any, dy: Any) -> float | None:
    """What to measure a gradient by: itself, or `dy` where it is zero but for rounding."""
    norm, source = (float(np.linalg.norm(as_numpy(a))) for a in (gradient, dy))
    is_zero = norm <= tolerance(as_numpy(gradient).dtype) * source
    return source if is_zero and source else None


@each_case
def test_an_op_agrees_with_its_naive_version(
    case: Case, dtype: np.dtype, xp: ModuleType, rng: np.random.Generator
) -> None:
    arrays = arrays_of(case, dtype, xp, rng)
    value, _ = getattr(ops, case.op)(*arrays, **case.settings())
    expected = case.oracle(*map(precise, arrays), **case.settings())
    assert_close(value, expected, dtype, case.op)


@each_case
def test_an_op_agrees_with_pytorch_forward_and_in_every_gradient(
    case: Case, dtype: np.dtype, xp: ModuleType, torch: ModuleType, rng: np.random.Generator
) -> None:
    arrays = arrays_of(case, dtype, xp, rng)
    value, pullback = getattr(ops, case.op)(*arrays, **case.settings())
    dy = xp.asarray(rng.standard_normal(value.shape), dtype=dtype)
    protect(dy)
    found = pull(pullback, arrays, case.op, dy)

    tensors = [
        torch.tensor(as_numpy(a)).requires_grad_(is_float(a)) if hasattr(a, "dtype") else a
        for a in arrays
    ]
    expected = case.torch(torch, *tensors, **case.settings())
    expected.backward(torch.tensor(as_numpy(dy)))

    assert_close(value, expected, op=case.op)
    for position, (array, tensor) in enumerate(zip(arrays, tensors, strict=True)):
        if is_float(array):
            grad = tensor.grad if tensor.grad is not None else torch.zeros_like(tensor)
            assert_close(found[position], grad, op=case.op, scale=size(grad, dy))


@pytest.mark.parametrize("case", [case for case in CASES if case.smooth], ids=lambda case: case.id)
def test_the_gradients_of_an_op_agree_with_differences(
    case: Case, xp: ModuleType, rng: np.random.Generator
) -> None:
    arrays = arrays_of(case, np.dtype("float64"), xp, rng)
    check_op(getattr(ops, case.op), arrays, case.settings(), rng=rng)


@each_case
def test_neither_half_of_an_op_writes_into_its_arguments(
    case: Case, dtype: np.dtype, rng: np.random.Generator
) -> None:
    arrays = [np.array(a) if hasattr(a, "setflags") else a for a in arrays_of(case, dtype, np, rng)]
    before = copy.deepcopy(arrays)
    value, pullback = getattr(ops, case.op)(*arrays, **case.settings())
    dy = np.asarray(rng.standard_normal(np.shape(value)), dtype)
    dy_before = dy.copy()
    pull(pullback, arrays, case.op, dy)
    np.testing.assert_equal(arrays, before)
    np.testing.assert_array_equal(dy, dy_before)


@each_case
def test_an_op_does_the_same_to_strided_arrays(case: Case, rng: np.random.Generator) -> None:
    arrays = arrays_of(case, np.dtype("float64"), np, rng)
    spread = [every_other(a) if is_float(a) else a for a in arrays]
    value, pullback = getattr(ops, case.op)(*arrays, **case.settings())
    strided, strided_pullback = getattr(ops, case.op)(*spread, **case.settings())
    dy = np.asarray(rng.standard_normal(np.shape(value)))
    assert_close(strided, value)
    pairs = zip(
        pull(strided_pullback, spread, case.op, every_other(dy)),
        pull(pullback, arrays, case.op, dy),
        strict=True,
    )
    for found, expected in pairs:
        if expected is not None:
            assert_close(found, expected, scale=size(expected, dy))


@each_case
def test_an_op_calls_nothing_that_cupy_lacks(
    case: Case, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith(("numpyvit.ops.", "numpyvit.backend")) and hasattr(
            module, "array_module"
        ):
            monkeypatch.setattr(module, "array_module", lambda *_: CuPyLike())
    special = sys.modules["numpyvit.ops.special"]
    monkeypatch.setattr(special, "erf_on_gpu", np.vectorize(math.erf, otypes=["f8"]))
    arrays = arrays_of(case, np.dtype("float64"), np, rng)
    value, pullback = getattr(ops, case.op)(*arrays, **case.settings())
    dy = np.asarray(rng.standard_normal(np.shape(value)))
    found = pull(pullback, arrays, case.op, dy)
    monkeypatch.undo()
    expected, pullback = getattr(ops, case.op)(*arrays, **case.settings())
    assert_close(value, expected)
    for ours, theirs in zip(found, pull(pullback, arrays, case.op, dy), strict=True):
        if theirs is not None:
            assert_close(ours, theirs, scale=size(theirs, dy))


def every_other(array: np.ndarray) -> np.ndarray:
    """The same values as a view with gaps, the last axis slowest."""
    wide = np.zeros((*array.shape[::-1], 2), array.dtype)
    view = wide[..., 0].T
    view[...] = array
    protect(view)
    return view


def test_every_public_op_has_cases() -> None:
    counts = Counter(case.op for case in CASES)
    assert set(counts) == set(ops.__all__) - NOT_OPS
    assert min(counts.values()) > 1
    assert len({case.id for case in CASES}) == len(CASES)


def test_every_public_op_is_in_functional_and_lifted_once() -> None:
    functional, hidden = numpyvit.functional, {"attention": "scaled_dot_product_attention"}
    for name in sorted(set(ops.__all__) - NOT_OPS):
        assert callable(getattr(functional, hidden.get(name, name))), name
    assert functional.exp is Tensor.exp
    assert functional.max is Tensor.max


def test_functional_ops_take_tensors_and_arrays(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3))
    for given in (x, Tensor(x, requires_grad=True)):
        assert_close(numpyvit.functional.sum(given, axis=0), x.sum(0))
        assert_close(numpyvit.functional.reshape(given, (3, 2)), x.reshape(3, 2))
        assert_close(numpyvit.functional.permute(given, (1, 0)), x.T)
        assert_close(numpyvit.functional.broadcast_to(given, (4, 2, 3)), np.stack([x] * 4))
        assert_close(numpyvit.functional.index(given, (slice(None), 1)), x[:, 1])
        assert_close(numpyvit.functional.negative(given), -x)
        assert_close(numpyvit.functional.absolute(given), abs(x))
