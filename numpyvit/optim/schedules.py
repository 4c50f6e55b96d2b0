"""Learning-rate schedules: functions of the step that return a factor for the initial rate.

`step` counts finished updates: 0 for the first one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from numpyvit.optim.optimizer import Optimizer


def constant(step: int, *, warmup_steps: int = 0) -> float:
    """1, after a linear warm-up over `warmup_steps` steps. Raises ValueError for a negative."""
    _check_not_negative(step=step, warmup_steps=warmup_steps)
    return min(1.0, (step + 1) / (warmup_steps + 1))


def warmup_cosine(
    step: int, *, total_steps: int, warmup_steps: int = 0, final: float = 0.0
) -> float:
    """A linear warm-up to 1 at step `warmup_steps`, then half a cosine down to `final`.

    factor = (step + 1) / (warmup_steps + 1) before the top; after it, with t the share of the
    remaining steps that is done, final + (1 - final) (1 + cos(pi t)) / 2 (Loshchilov and Hutter
    2017, equation 5, without restarts). It is `final` from step `total_steps` on.

    Raises ValueError for negative numbers, a warm-up longer than the whole, `final` above 1.
    """
    _check_not_negative(step=step, total_steps=total_steps, warmup_steps=warmup_steps, final=final)
    if warmup_steps > total_steps or final > 1:
        raise ValueError(
            "[warmup_cosine] expected 'warmup_steps' up to 'total_steps' and 'final' up to 1, got "
            f"warmup_steps={warmup_steps}, total_steps={total_steps}, final={final}"
        )
    if step >= total_steps:
        return float(final)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    done = (step - warmup_steps) / (total_steps - warmup_steps)
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2


def step_decay(step: int, *, step_size: int, gamma: float = 0.1) -> float:
    """`gamma` to the power of how many times `step_size` steps are done.

    Raises ValueError unless `step_size` is positive and the others are not negative.
    """
    _check_not_negative(step=step, gamma=gamma)
    if step_size < 1:
        raise ValueError(f"[step_decay] expected a positive 'step_size', got {step_size}")
    return float(gamma ** (step // step_size))


class LambdaLR:
    """Keeps each group's "lr" at its "initial_lr" times `lr_lambda(step)`.

    "initial_lr" is the rate that the group has when the schedule is made. The rate of step 0 is
    set at once; call `step` after each `optimizer.step()`.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Callable[[int], float]) -> None:
        self.optimizer = optimizer
        self.lr_lambda = lr_lambda
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.set_step(0)

    def step(self) -> None:
        """Go on to the next step."""
        self.set_step(self.last_step + 1)

    def set_step(self, step: int) -> None:
        """Go to `step`, forward or back: a rate depends on nothing but its step."""
        self.last_step = step
        factor = float(self.lr_lambda(step))
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

    def get_last_lr(self) -> list[float]:
        """The rate of each group now."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The step that the schedule is at; initial rates are in the optimizer's state."""
        return {"last_step": self.last_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to the step of `state`; load the optimizer's state first."""
        self.set_step(int(state["last_step"]))


def _check_not_negative(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number >= 0:
            raise ValueError(f"[schedules] expected '{name}' of at least 0, got {number}")
