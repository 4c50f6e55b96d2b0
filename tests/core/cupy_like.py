"""NumPy cut down to what CuPy offers as well, so that a machine without a GPU sees the difference.

It knows the keywords that CuPy's ufuncs take, functions that CuPy lacks, and that its matrix
product writes into contiguous arrays only. It does not stand in for a run on a GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

UFUNC_KEYWORDS = {"out", "dtype", "casting"}
LACKING = {"fromiter", "nditer", "vectorize", "errstate", "polynomial", "frompyfunc"}


class Ufunc:
    """A ufunc that refuses the keywords that CuPy's refuse."""

    def __init__(self, ufunc: np.ufunc) -> None:
        self.ufunc, self.at = ufunc, ufunc.at

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if unknown := kwargs.keys() - UFUNC_KEYWORDS:
            raise TypeError(f"CuPy's {self.ufunc.__name__} takes no {sorted(unknown)}")
        out = kwargs.get("out")
        if self.ufunc is np.matmul and out is not None and not out.flags.c_contiguous:
            raise ValueError("Output array must be C-contiguous")
        return self.ufunc(*args, **kwargs)


class CuPyLike:
    """Looks its names up in NumPy."""

    def __getattr__(self, name: str) -> Any:
        if name in LACKING:
            raise AttributeError(f"CuPy has no {name!r}")
        value = getattr(np, name)
        return Ufunc(value) if isinstance(value, np.ufunc) else value
