"""The rules that every op on arrays keeps, and its gradient."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpyvit.backend import array_module
from numpyvit.check.gradient import GradcheckReport, gradcheck
from numpyvit.ops import OpResult
from numpyvit.tensor import differentiable


def check_op(
    op: Callable[..., OpResult],
    arrays: Sequence[Any],
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> GradcheckReport:
    """`gradcheck` of an op on arrays, (value, pullback), and of the rules that every op keeps.

    Neither half writes into its inputs or into `dy` (seen on NumPy only: CuPy has no read-only
    arrays); gradients have the shape and dtype of what they belong to, and one that is not needed
    is None. `settings` are the op's (a generator among them is copied for every call), `options`
    those of `gradcheck`. Raises as `gradcheck` does, and RuntimeError for a broken rule.
    """

    @functools.wraps(op)
    def repeatable(*xs: Any, **told: Any) -> OpResult:  # `recorded`, where the op asks for it
        return op(*xs, **copy.deepcopy(dict(settings or {})), **told)

    guarded = [_read_only(value) for value in arrays]
    floats = tuple(getattr(value, "dtype", "none") == "float64" for value in guarded)
    alone = [tuple(i == place for i in range(len(floats))) for place in range(len(floats))]
    try:
        for needs in {floats, *(one for one, wanted in zip(alone, floats, strict=True) if wanted)}:
            _check_needs(repeatable, guarded, needs)
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise RuntimeError(
            f"[{_name(op)}] expected inputs and dy that stay as they are, but they are written to "
            f"({error}); make a copy first"
        ) from error
    return gradcheck(differentiable(repeatable), arrays, **options)


def _check_needs(op: Callable[..., OpResult], arrays: list[Any], needs: tuple[bool, ...]) -> None:
    """Run both halves of `op`; RuntimeError where a gradient is not needed and not None."""
    value, pullback = op(*arrays)
    dy = _read_only(array_module(value).ones_like(value))
    kinds = [parameter.kind for parameter in inspect.signature(op).parameters.values()]
    variadic = inspect.Parameter.VAR_POSITIONAL in kinds
    if not variadic and kinds.count(inspect.Parameter.POSITIONAL_ONLY) == 1:
        pullback(dy)
        return
    for place, (need, dx) in enumerate(zip(needs, pullback(dy, needs), strict=False)):
        if not need and dx is not None:
            raise RuntimeError(
                f"[{_name(op)}] expected None for input {place}, whose gradient nobody needs, "
                f"got an array {dx.shape}; look at `needs` before computing it"
            )


def _read_only(value: Any) -> Any:
    if not hasattr(value, "dtype"):
        return value
    copied = array_module(value).array(value)
    if hasattr(copied, "setflags"):
        copied.setflags(write=False)
    return copied


def _name(op: Callable[..., Any]) -> str:
    return getattr(op, "__name__", "op")
