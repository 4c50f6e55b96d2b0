"""How close is close: the one table of tolerances, and the comparison that uses it.

No test writes a tolerance of its own. An operation that cannot meet the table is listed in
`EXCEPTIONS` with the reason, where every reader sees it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# Relative L2 distance allowed between two computations of the same thing, by dtype.
RELATIVE_L2 = {"float64": 1e-10, "float32": 1e-5}

# Distance in units in the last place, for what is the same arithmetic in another order.
MAX_ULP = {"float64": 64, "float32": 64}

# A directional derivative by central differences in float64: truncation and rounding balance here.
GRADCHECK = 1e-6


class Looser(NamedTuple):
    """A tolerance of its own for one operation, and why."""

    relative_l2: float
    reason: str


# {(operation, dtype): Looser(tolerance, reason)}
EXCEPTIONS: dict[tuple[str, str], Looser] = {}


def tolerance(dtype: Any, op: str | None = None) -> float:
    """Relative L2 allowed for `dtype`, or for `op` in `dtype` where an exception names it."""
    name = np.dtype(dtype).name
    if op is not None and (op, name) in EXCEPTIONS:
        return EXCEPTIONS[op, name].relative_l2
    return RELATIVE_L2[name]


def as_numpy(value: Any) -> np.ndarray:
    """The NumPy array of a number, an array of NumPy or CuPy, or a tensor of numpyvit or torch."""
    if hasattr(value, "detach"):
        value = value.detach()
    if hasattr(value, "cpu"):
        value = value.cpu()
    if hasattr(value, "numpy"):
        value = value.numpy()
    if hasattr(value, "get") and hasattr(value, "__cuda_array_interface__"):
        value = value.get()
    return np.asarray(value)


def relative_l2(actual: Any, expected: Any, scale: float | None = None) -> float:
    """|actual - expected| / |expected| in the L2 norm, worked out in float64.

    Where `expected` is all zeros, and nothing else is given as `scale`, the distance is absolute.
    """
    got = as_numpy(actual).astype(np.float64)
    want = as_numpy(expected).astype(np.float64)
    distance = float(np.linalg.norm((got - want).ravel()))
    size = float(np.linalg.norm(want.ravel())) if scale is None else scale
    return distance / size if size > 0 else distance


def max_ulp(actual: Any, expected: Any) -> int:
    """Largest distance between two arrays in units in the last place; both of one float dtype."""
    got, want = as_numpy(actual), as_numpy(expected)
    if got.dtype != want.dtype:
        raise TypeError(f"[max_ulp] expected one dtype, got {got.dtype} and {want.dtype}")
    if got.size == 0:
        return 0
    return max(abs(a - b) for a, b in zip(_ordered(got), _ordered(want), strict=True))


def _ordered(values: np.ndarray) -> list[int]:
    """Integers in the order of the floats, so that neighbouring floats differ by one."""
    values = np.ascontiguousarray(values)
    bits = values.view(np.dtype(f"i{values.dtype.itemsize}")).ravel()
    lowest = int(np.iinfo(bits.dtype).min)
    return [int(b) if b >= 0 else lowest - int(b) for b in bits]


def assert_close(
    actual: Any,
    expected: Any,
    dtype: Any = None,
    op: str | None = None,
    *,
    scale: float | None = None,
) -> None:
    """Fail unless `actual` is `expected` in shape, dtype and, to the table, in value.

    `dtype` is the one that `actual` must have and the row of the table; without it the two dtypes
    must agree (with it, `expected` may be more precise). Integers and booleans must be equal.
    `op` looks for an exception of that name. `scale` replaces the norm of `expected`, for a result
    that is zero by mathematics and noise in practice.
    """
    got, want = as_numpy(actual), as_numpy(expected)
    label = f"{op}: " if op else ""
    assert got.shape == want.shape, f"{label}shape {got.shape}, expected {want.shape}"
    row = np.dtype(want.dtype if dtype is None else dtype)
    assert got.dtype == row, f"{label}dtype {got.dtype}, expected {row}"
    if row.kind != "f":
        np.testing.assert_array_equal(got, want, err_msg=label)
        return
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite], err_msg=f"{label}not finite")
    distance = relative_l2(got[finite], want[finite], scale)
    allowed = tolerance(row, op)
    # Written so that a NaN fails.
    assert distance <= allowed, f"{label}relative L2 {distance:.3e}, allowed {allowed:.0e} ({row})"


def assert_same_bits(actual: Any, expected: Any) -> None:
    """Fail unless the two arrays agree in shape, dtype and every bit."""
    got, want = as_numpy(actual), as_numpy(expected)
    assert got.shape == want.shape, f"shape {got.shape}, expected {want.shape}"
    assert got.dtype == want.dtype, f"dtype {got.dtype}, expected {want.dtype}"
    assert got.tobytes() == want.tobytes(), f"bits differ; relative L2 {relative_l2(got, want):.3e}"
