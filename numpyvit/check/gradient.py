"""Gradients against central differences along random directions, in float64."""

from __future__ import annotations

import dataclasses
import functools
import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from numpyvit.backend import array_module, to_numpy
from numpyvit.check.report import GradcheckError, GradcheckReport, InputReport
from numpyvit.nn import Module
from numpyvit.tensor import Tensor, gradients

_ROUNDING = 16 * sys.float_info.epsilon  # of a sum, relative to the sum of its magnitudes


def gradcheck(
    function: Callable[..., Any],
    inputs: Sequence[Any],
    *,
    eps: float = 1e-6,
    tolerance: float = 1e-6,
    rng: numpy.random.Generator | None = None,
    directions: int = 2,
) -> GradcheckReport:
    """Compare the gradients of `function` at `inputs` with central differences.

    `function` takes Tensors and returns one, of any shape, or a tuple of them; a Module's
    parameters are checked as well. `inputs` are float64 arrays; all else (labels, numbers, None) is
    passed on as it is. Each input is moved by `eps` times a random direction (drawn from `rng`; a
    fixed seed by default) and back, `directions` times, which costs two forward passes each. The
    outputs are weighted at random, so that no error cancels.

    Differences are wrong where the function has a kink within `eps` of the inputs (relu at 0, max
    at a tie). Raises GradcheckError, with the report, where a gradient is wrong; ValueError for
    float32 and for a function that gives two results for the same inputs.
    """
    if not (eps > 0 and tolerance > 0 and directions > 0):
        raise ValueError(
            "[gradcheck] expected eps, tolerance and directions above 0, "
            f"got {eps}, {tolerance} and {directions}"
        )
    rng = rng or numpy.random.default_rng(0)
    arguments = [_argument(value, position) for position, value in enumerate(inputs)]
    sources = _sources(function, arguments)
    weighted, magnitude = _weighted(function, arguments, rng)
    probe = _Probe(lambda: weighted().item(), eps, tolerance, _ROUNDING * magnitude / eps)
    total = weighted()
    tensors = list(sources.values())
    found = gradients(total, tensors) if total.requires_grad else [0 * x.data for x in tensors]
    report = GradcheckReport(
        tuple(
            probe.worst(name, source, to_numpy(gradient), directions, rng)
            for (name, source), gradient in zip(sources.items(), found, strict=True)
        ),
        tolerance,
    )
    if not report.ok:
        raise GradcheckError(report)
    return report


def _weighted(
    function: Callable[..., Any], arguments: Sequence[Any], rng: numpy.random.Generator
) -> tuple[Callable[[], Tensor], float]:
    """The sum of all outputs, each value weighted at random; and the sum of its magnitudes."""
    outputs = _outputs(function, arguments)
    weights = [
        array_module(y.data).asarray(rng.standard_normal(y.shape), dtype=y.dtype) for y in outputs
    ]

    def total() -> Tensor:
        pairs = zip(_outputs(function, arguments), weights, strict=True)
        return functools.reduce(operator.add, [(y * weight).sum() for y, weight in pairs])

    if not numpy.array_equal(total().numpy(), total().numpy(), equal_nan=True):
        raise ValueError(
            "[gradcheck] expected a function that gives one result for the same inputs, got two; "
            "start its random generator anew in every call, or call eval() on the module"
        )
    magnitude = sum(float(abs(y.data * w).sum()) for y, w in zip(outputs, weights, strict=True))
    return total, magnitude


@dataclasses.dataclass(frozen=True)
class _Probe:
    """Derivatives of one number by differences, and what may be expected of them."""

    value_of: Callable[[], float]
    eps: float
    tolerance: float
    noise: float

    def worst(
        self,
        name: str,
        source: Tensor,
        gradient: numpy.ndarray,
        directions: int,
        rng: numpy.random.Generator,
    ) -> InputReport:
        """The report of the worst of some directions in which `source` is moved."""
        tries = []
        for _ in range(directions):
            direction = rng.standard_normal(source.shape)
            pair = self.difference(source, direction), float((gradient * direction).sum())
            distance = abs(pair[0] - pair[1])
            size = max(abs(pair[0]), float(numpy.linalg.norm(gradient)), sys.float_info.min)
            ok = distance <= self.tolerance * size + self.noise  # a NaN is not
            tries.append(InputReport(name, source.shape, *pair, distance / size, ok))
        return max(tries, key=lambda entry: (not entry.ok, entry.error))

    def difference(self, source: Tensor, direction: numpy.ndarray) -> float:
        """The central difference quotient along `direction`; `source` is put back."""
        at = source.data
        step = array_module(at).asarray(self.eps * direction)
        try:
            source.data = at + step
            above = self.value_of()
            source.data = at - step
            below = self.value_of()
        finally:
            source.data = at
        return (above - below) / (2 * self.eps)


def _argument(value: Any, position: int) -> Any:
    """Arrays as Tensors, the float ones as leaves; all else as it is."""
    if not hasattr(value, "dtype"):
        return value
    tensor = Tensor(value)
    _check_precision(f"input {position}", tensor)
    if tensor.dtype.kind == "f":
        tensor.requires_grad = True
    return tensor


def _sources(function: Any, arguments: Sequence[Any]) -> dict[str, Tensor]:
    """What gets a gradient, by the name under which the report lists it."""
    sources = {
        f"input {position}": argument
        for position, argument in enumerate(arguments)
        if isinstance(argument, Tensor) and argument.requires_grad
    }
    if isinstance(function, Module):
        for name, parameter in function.named_parameters():
            _check_precision(f"parameter {name}", parameter)
            if parameter.requires_grad:
                sources[f"parameter {name}"] = parameter
    if not sources:
        raise ValueError("[gradcheck] expected a float64 input or parameter, got none")
    return sources


def _check_precision(name: str, tensor: Tensor) -> None:
    if tensor.dtype.kind == "f" and tensor.dtype != float:
        raise ValueError(
            f"[gradcheck] expected float64, got {tensor.dtype} for {name}: differences need the "
            "precision; convert with .astype('float64') or module.to('float64')"
        )


def _outputs(function: Callable[..., Any], arguments: Sequence[Any]) -> list[Tensor]:
    """The float outputs of `function`, one or several."""
    result = function(*arguments)
    results = result if isinstance(result, tuple | list) else (result,)
    if not all(isinstance(y, Tensor) for y in results):
        kinds = ", ".join(type(y).__name__ for y in results)
        raise TypeError(f"[gradcheck] expected a function that returns Tensors, got {kinds}")
    outputs = [y for y in results if y.dtype.kind == "f"]
    if not outputs:
        raise ValueError("[gradcheck] expected a float output, got none")
    return outputs
