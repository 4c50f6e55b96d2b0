"""Learning-rate schedules and gradient clipping beside PyTorch's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit.nn import Parameter
from numpyvit.optim import (
    SGD,
    LambdaLR,
    clip_grad_norm_,
    clip_grad_value_,
    constant,
    step_decay,
    warmup_cosine,
)

TOTAL = 40


def rates(make: Callable[[Any], Any], optimizer: Any) -> list[list[float]]:
    """What `make`'s schedule sets, step by step, for each group."""
    schedule = make(optimizer)
    found = []
    for _ in range(TOTAL + 5):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


@pytest.fixture
def pair(torch: ModuleType) -> tuple[SGD, Any]:
    """Our optimizer and PyTorch's, each with two groups of different rates."""

    def groups(tensor: Callable[[], Any]) -> list[dict[str, Any]]:
        return [{"params": [tensor()]}, {"params": [tensor()], "lr": 0.2}]

    ours = SGD(groups(lambda: Parameter(np.ones(1))), lr=0.5)
    return ours, torch.optim.SGD(groups(lambda: torch.ones(1, requires_grad=True)), lr=0.5)


@pytest.mark.parametrize(
    "function",
    [
        constant,
        partial(constant, warmup_steps=7),
        partial(warmup_cosine, total_steps=TOTAL),
        partial(warmup_cosine, total_steps=TOTAL, warmup_steps=10, final=0.1),
        partial(warmup_cosine, total_steps=TOTAL, warmup_steps=TOTAL),
        partial(step_decay, step_size=10, gamma=0.3),
    ],
)
def test_the_schedule_sets_what_pytorchs_lambda_lr_sets(
    function: Callable[[int], float], pair: tuple[SGD, Any], torch: ModuleType
) -> None:
    ours = rates(lambda optimizer: LambdaLR(optimizer, function), pair[0])
    reference = torch.optim.lr_scheduler.LambdaLR
    theirs = rates(lambda optimizer: reference(optimizer, function), pair[1])
    assert_close(np.array(ours), np.array(theirs))


def test_cosine_without_warm_up_equals_pytorchs(pair: tuple[SGD, Any], torch: ModuleType) -> None:
    function = partial(warmup_cosine, total_steps=TOTAL)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR
    ours = rates(lambda optimizer: LambdaLR(optimizer, function), pair[0])
    theirs = rates(lambda optimizer: reference(optimizer, TOTAL), pair[1])
    # After its end PyTorch's climbs again; ours stays.
    assert_close(np.array(ours[: TOTAL + 1]), np.array(theirs[: TOTAL + 1]), scale=1.0)
    assert ours[TOTAL:] == [[0.0, 0.0]] * 5


def test_step_decay_equals_pytorchs(pair: tuple[SGD, Any], torch: ModuleType) -> None:
    function = partial(step_decay, step_size=10, gamma=0.3)
    reference = torch.optim.lr_scheduler.StepLR
    ours = rates(lambda optimizer: LambdaLR(optimizer, function), pair[0])
    theirs = rates(lambda optimizer: reference(optimizer, 10, gamma=0.3), pair[1])
    assert_close(np.array(ours), np.array(theirs))


def test_the_warm_up_rises_evenly_and_meets_the_cosine_at_one() -> None:
    function = partial(warmup_cosine, total_steps=TOTAL, warmup_steps=4, final=0.25)
    factors = [function(step) for step in range(TOTAL + 2)]
    assert_close(np.array(factors[:5]), np.array([0.2, 0.4, 0.6, 0.8, 1.0]))
    assert all(a > b for a, b in itertools.pairwise(factors[4 : TOTAL + 1]))
    assert factors[TOTAL:] == [0.25, 0.25]
    assert warmup_cosine(0, total_steps=0) == 0.0


def test_a_schedule_goes_to_any_step_and_starts_from_the_initial_rate() -> None:
    optimizer = SGD([Parameter(np.ones(1))], lr=0.8)
    schedule = LambdaLR(optimizer, lambda step: 1 / (1 + step))
    schedule.set_step(3)
    state = schedule.state_dict()
    schedule.step()
    schedule.load_state_dict(state)
    assert (schedule.last_step, schedule.get_last_lr()) == (3, [0.2])
    again = LambdaLR(optimizer, lambda step: 1.0)
    assert again.get_last_lr() == [0.8]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: constant(-1), "'step' of at least 0, got -1"),
        (lambda: constant(0, warmup_steps=-1), "'warmup_steps' of at least 0"),
        (lambda: warmup_cosine(0, total_steps=-1), "'total_steps' of at least 0"),
        (lambda: warmup_cosine(0, total_steps=3, warmup_steps=4), "up to 'total_steps'"),
        (lambda: warmup_cosine(0, total_steps=3, final=1.5), "'final' up to 1"),
        (lambda: step_decay(0, step_size=0), "a positive 'step_size', got 0"),
        (lambda: step_decay(0, step_size=1, gamma=-1), "'gamma' of at least 0"),
        (lambda: clip_grad_norm_([], -1.0), "'max_norm' of at least 0, got -1.0"),
        (lambda: clip_grad_value_([], float("nan")), "'clip_value' of at least 0, got nan"),
    ],
)
def test_a_number_out_of_range_is_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


SHAPES = ((40, 30), (30,), ())


def with_gradients(
    rng: np.random.Generator, dtype: np.dtype, torch: ModuleType, xp: ModuleType
) -> tuple[list[Parameter], list[Any]]:
    ours, theirs = [Parameter(xp.ones(2, dtype))], [torch.ones(2)]  # the first has no gradient
    for shape in SHAPES:
        gradient = np.asarray(rng.normal(size=shape), dtype)
        ours.append(Parameter(xp.zeros(shape, dtype)))
        ours[-1].grad = xp.asarray(gradient.copy())
        theirs.append(torch.zeros(shape, dtype=getattr(torch, dtype.name), requires_grad=True))
        theirs[-1].grad = torch.tensor(gradient)
    return ours, theirs


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 5.0, 1e4])
def test_clipping_by_norm_equals_pytorch(
    max_norm: float, dtype: np.dtype, rng: np.random.Generator, torch: ModuleType, xp: ModuleType
) -> None:
    ours, theirs = with_gradients(rng, dtype, torch, xp)
    before = ours[1].grad
    norm = clip_grad_norm_(iter(ours), max_norm)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    assert isinstance(norm, float)
    assert_close(np.asarray(norm, dtype), expected, dtype)
    assert ours[0].grad is None
    assert ours[1].grad is before
    for parameter, twin in zip(ours[1:], theirs[1:], strict=True):
        assert_close(parameter.grad, twin.grad, dtype)


@pytest.mark.parametrize("limit", [0.0, 0.7, 100.0])
def test_clipping_by_value_equals_pytorch(
    limit: float, dtype: np.dtype, rng: np.random.Generator, torch: ModuleType, xp: ModuleType
) -> None:
    ours, theirs = with_gradients(rng, dtype, torch, xp)
    clip_grad_value_(ours, limit)
    torch.nn.utils.clip_grad_value_(theirs, limit)
    for parameter, twin in zip(ours[1:], theirs[1:], strict=True):
        assert_close(parameter.grad, twin.grad, dtype)


def test_a_gradient_within_the_norm_keeps_its_bits() -> None:
    parameter = Parameter(np.zeros(2))
    parameter.grad = np.array([0.3, 0.4])
    clip_grad_norm_(parameter, 1.0)
    assert_same_bits(parameter.grad, np.array([0.3, 0.4]))


def test_no_gradients_have_norm_zero() -> None:
    assert clip_grad_norm_([Parameter(np.zeros(2))], 1.0) == 0.0


def test_the_norm_of_large_float32_gradients_does_not_overflow() -> None:
    parameter = Parameter(np.zeros(2, np.float32))
    parameter.grad = np.array([3e30, 4e30], np.float32)
    norm = clip_grad_norm_([parameter], 1.0)
    assert_close(np.float32(norm), np.float32(5e30))
    assert_close(parameter.grad, np.array([0.6, 0.8], np.float32))


def test_a_norm_that_is_not_finite_is_an_error_on_request() -> None:
    parameter = Parameter(np.zeros(2))
    parameter.grad = np.array([1.0, np.nan])
    with pytest.raises(RuntimeError, match="expected gradients of a finite norm, got nan"):
        clip_grad_norm_([parameter], 1.0, error_if_nonfinite=True)
    clip_grad_norm_([parameter], 1.0)
    assert np.isnan(parameter.grad).all()
