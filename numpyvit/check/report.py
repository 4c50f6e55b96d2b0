"""What a gradient check found, input by input."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class InputReport:
    """One input's worst direction: the derivative by differences and the one by the gradient.

    `error` is their distance relative to the larger of the derivative and the gradient's norm.
    """

    name: str
    shape: tuple[int, ...]
    by_differences: float
    by_gradient: float
    error: float
    ok: bool

    def __str__(self) -> str:
        verdict = "ok   " if self.ok else "WRONG"
        return (
            f"{verdict} {self.name} {self.shape}: {self.by_gradient:.9g} by its gradient, "
            f"{self.by_differences:.9g} by differences, relative error {self.error:.1e}"
        )


@dataclasses.dataclass(frozen=True)
class GradcheckReport:
    """What `gradcheck` found, input by input; printing it gives a line for each."""

    inputs: tuple[InputReport, ...]
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether every gradient is right."""
        return all(entry.ok for entry in self.inputs)

    def __str__(self) -> str:
        wrong = sum(not entry.ok for entry in self.inputs)
        title = f"{wrong} of {len(self.inputs)} gradients wrong (tolerance {self.tolerance:.0e})"
        return "\n  ".join([title, *map(str, self.inputs)])


class GradcheckError(AssertionError):
    """A gradient that differences do not confirm; `report` says which, and by how much."""

    def __init__(self, report: GradcheckReport) -> None:
        super().__init__(f"[gradcheck] {report}")
        self.report = report
