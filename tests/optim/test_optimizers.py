"""Optimizers beside PyTorch's, and what they do with groups, states and mistakes."""

from __future__ import annotations

import io
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from tolerances import as_numpy, assert_close, assert_same_bits

from numpyvit import backend
from numpyvit.nn import Parameter
from numpyvit.optim import SGD, Adam, AdamW, LambdaLR, Optimizer

STEPS = 50
SHAPES = ((4, 3), (3,), (), (2, 1, 5))

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("AdamW", {}),
    ("AdamW", {"lr": 1e-2, "weight_decay": 0.0}),
    ("AdamW", {"lr": 3e-2, "betas": (0.5, 0.6), "eps": 1e-3, "weight_decay": 0.3}),
    ("AdamW", {"lr": 0.1, "betas": (0.0, 0.9)}),
    ("Adam", {}),
    ("Adam", {"lr": 1e-2, "weight_decay": 0.1}),
    ("Adam", {"lr": 1e-2, "betas": (0.8, 0.95), "eps": 1e-4}),
    ("SGD", {}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
]
OURS: dict[str, type[Optimizer]] = {"AdamW": AdamW, "Adam": Adam, "SGD": SGD}
BEST = {"AdamW": {"weight_decay": 0.1}, "Adam": {}, "SGD": {"momentum": 0.9, "nesterov": True}}


def values(rng: np.random.Generator, dtype: np.dtype) -> list[np.ndarray]:
    return [np.asarray(rng.normal(size=shape), dtype) for shape in SHAPES]


def set_gradients(params: list[Parameter], step: int, xp: ModuleType = np) -> list[np.ndarray]:
    """Gradients that depend on the step alone, and vary in size."""
    rng = np.random.default_rng([7, step])
    drawn = [rng.normal(size=p.shape) * 10.0 ** rng.integers(-3, 2) for p in params]
    for parameter, gradient in zip(params, drawn, strict=True):
        parameter.grad = xp.asarray(gradient, parameter.dtype)
    return drawn


def torch_twins(torch: ModuleType, params: list[Parameter]) -> list[Any]:
    return [torch.tensor(as_numpy(p), requires_grad=True) for p in params]


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_fifty_steps_equal_pytorch(
    name: str,
    settings: dict[str, Any],
    torch: ModuleType,
    xp: ModuleType,
    dtype: np.dtype,
    rng: np.random.Generator,
) -> None:
    params = [Parameter(xp.asarray(value)) for value in values(rng, dtype)]
    twins = torch_twins(torch, params)
    ours = OURS[name](params, **settings)
    reference = getattr(torch.optim, name)(twins, **settings)
    for step in range(STEPS):
        gradients = set_gradients(params, step, xp)
        for twin, gradient in zip(twins, gradients, strict=True):
            twin.grad = torch.tensor(np.asarray(gradient, dtype))
        ours.step()
        reference.step()
    for parameter, twin in zip(params, twins, strict=True):
        assert_close(parameter, twin, dtype)


@pytest.mark.parametrize("name", OURS)
def test_groups_with_settings_of_their_own_and_missing_gradients_equal_pytorch(
    name: str, torch: ModuleType, dtype: np.dtype, rng: np.random.Generator
) -> None:
    params = [Parameter(value) for value in values(rng, dtype)]
    twins = torch_twins(torch, params)

    def groups(given: list[Any]) -> list[dict[str, Any]]:
        return [{"params": given[:2]}, {"params": given[2], "lr": 0.05, "weight_decay": 0.0}]

    ours = OURS[name](groups(params), **BEST[name])
    reference = getattr(torch.optim, name)(groups(twins), **BEST[name])
    for optimizer, given in ((ours, params), (reference, twins)):
        optimizer.add_param_group({"params": given[3:], "lr": 0.2})
    for step in range(STEPS):
        gradients = set_gradients(params, step)
        missing = step % len(params) if step < STEPS // 2 else None
        for index, (twin, gradient) in enumerate(zip(twins, gradients, strict=True)):
            twin.grad = torch.tensor(np.asarray(gradient, dtype))
            if index == missing:
                params[index].grad = twin.grad = None
        ours.param_groups[1]["lr"] = reference.param_groups[1]["lr"] = 0.01 * (step % 3)
        ours.step()
        reference.step()
    for parameter, twin in zip(params, twins, strict=True):
        assert_close(parameter, twin, dtype)


@pytest.mark.parametrize("name", OURS)
def test_the_update_is_in_place_keeps_the_dtype_and_leaves_gradients_alone(
    name: str, dtype: np.dtype, rng: np.random.Generator
) -> None:
    params = [Parameter(value) for value in values(rng, dtype)]
    arrays = [parameter.data for parameter in params]
    optimizer = OURS[name](params, lr=np.float64(0.1), weight_decay=0.1)
    gradients = set_gradients(params, 0)
    for parameter in params:
        parameter.grad.flags.writeable = False
    optimizer.step()
    for parameter, array, gradient in zip(params, arrays, gradients, strict=True):
        assert parameter.data is array
        assert array.dtype == dtype
        assert_same_bits(parameter.grad, np.asarray(gradient, dtype))
    for key, entry in optimizer.state_dict().items():
        assert key.startswith("groups.") or isinstance(entry, int) or entry.dtype == dtype


@pytest.mark.parametrize("name", OURS)
def test_a_large_parameter_is_updated_in_stretches_to_the_same_bits(
    name: str, dtype: np.dtype, rng: np.random.Generator
) -> None:
    shape = (3, backend._STRETCH_BYTES // 8 + 7)
    value, gradients = rng.normal(size=shape).astype(dtype), rng.normal(size=(3, *shape))
    whole = Parameter(value.copy())
    rows = [Parameter(row.copy()) for row in value]
    strided = Parameter(value.T.copy().T)
    assert not strided.data.flags.c_contiguous
    optimizers = [OURS[name](params, **BEST[name]) for params in ([whole], rows, [strided])]
    for gradient in gradients.astype(dtype):
        whole.grad = strided.grad = gradient
        for parameter, row in zip(rows, gradient, strict=True):
            parameter.grad = row
        for optimizer in optimizers:
            optimizer.step()
    assert_same_bits(whole, np.stack([as_numpy(row) for row in rows]))
    assert_same_bits(whole, np.ascontiguousarray(strided.data))


@pytest.mark.parametrize("name", OURS)
def test_one_flat_parameter_under_many_views_takes_the_same_steps(
    name: str, dtype: np.dtype, rng: np.random.Generator
) -> None:
    separate = [Parameter(value) for value in values(rng, dtype)]
    flat = Parameter(np.concatenate([as_numpy(p).ravel() for p in separate]))
    optimizers = [OURS[name](params, **BEST[name]) for params in (separate, [flat])]
    for step in range(STEPS):
        gradients = set_gradients(separate, step)
        flat.grad = np.concatenate([gradient.ravel() for gradient in gradients]).astype(dtype)
        for optimizer in optimizers:
            optimizer.step()
    assert_same_bits(flat, np.concatenate([as_numpy(p).ravel() for p in separate]))


@pytest.mark.parametrize("through_a_file", [False, True])
@pytest.mark.parametrize("name", OURS)
def test_a_state_loaded_in_mid_training_continues_with_the_same_bits(
    name: str, through_a_file: bool, dtype: np.dtype, rng: np.random.Generator
) -> None:
    params = [Parameter(value) for value in values(rng, dtype)]
    optimizer = OURS[name](params, **BEST[name])
    schedule = LambdaLR(optimizer, lambda step: 1 / (1 + step))

    def train(params: list[Parameter], optimizer: Optimizer, schedule: LambdaLR, upto: int) -> None:
        while optimizer.steps < upto:
            set_gradients(params, optimizer.steps)
            if optimizer.steps < 2 * STEPS // 3:
                params[1].grad = None  # joins after the interruption
            optimizer.step()
            schedule.step()

    train(params, optimizer, schedule, STEPS // 2)
    state = optimizer.state_dict()
    resumed = [Parameter(as_numpy(p).copy()) for p in params]
    train(params, optimizer, schedule, STEPS)
    if through_a_file:
        file = io.BytesIO()
        np.savez(file, **state)
        file.seek(0)
        state = dict(np.load(file, allow_pickle=False))
    other = OURS[name](resumed, lr=0.5)
    other_schedule = LambdaLR(other, schedule.lr_lambda)
    other.load_state_dict(state)
    other_schedule.load_state_dict({"last_step": STEPS // 2})
    train(resumed, other, other_schedule, STEPS)
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    for parameter, twin in zip(params, resumed, strict=True):
        assert_same_bits(parameter, twin)
    ours, theirs = optimizer.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for key, entry in ours.items():
        assert_same_bits(entry, theirs[key])


def test_a_state_is_a_copy_of_numbers_and_arrays() -> None:
    parameter = Parameter(np.ones(3))
    optimizer = AdamW([parameter])
    parameter.grad = np.ones(3)
    optimizer.step()
    state = optimizer.state_dict()
    before = state["0.exp_avg"].copy()
    optimizer.step()
    assert_same_bits(state["0.exp_avg"], before)
    assert state["step"] == state["0.step"] == 1
    assert set(state) == {
        *("step", "0.step", "0.exp_avg", "0.exp_avg_sq"),
        *("groups.0.lr", "groups.0.betas", "groups.0.eps", "groups.0.weight_decay"),
    }


def test_a_state_of_other_parameters_is_refused_with_all_that_is_wrong() -> None:
    parameter = Parameter(np.ones(3))
    optimizer = AdamW([parameter])
    parameter.grad = np.ones(3)
    optimizer.step()
    state = optimizer.state_dict()
    wrong = {**state, "0.exp_avg": np.ones(4), "1.exp_avg": np.ones(3), "groups.1.lr": np.ones(())}
    del wrong["step"], wrong["0.exp_avg_sq"]
    with pytest.raises(ValueError, match=r"'step' is missing") as caught:
        optimizer.load_state_dict(wrong)
    for part in (
        "'0.exp_avg' is (4,), not (3,)",
        "'1.exp_avg' belongs to no",
        "'groups.1.lr'",
        "parameter 0 lacks exp_avg, exp_avg_sq",
    ):
        assert part in str(caught.value)
    with pytest.raises(ValueError, match=r"'0.exp_avg' belongs to no parameter"):
        SGD([parameter]).load_state_dict(state)
    assert optimizer.state_dict().keys() == state.keys()


def test_zero_grad_forgets_the_gradients() -> None:
    params = [Parameter(np.ones(3)), Parameter(np.ones(2))]
    set_gradients(params, 0)
    SGD(params).zero_grad()
    assert [parameter.grad for parameter in params] == [None, None]


def test_an_optimizer_shows_its_groups() -> None:
    text = repr(SGD([Parameter(np.ones((30, 50)))], lr=0.5))
    assert text.startswith("SGD(\n  1 tensors, 1,500 values: lr=0.5, momentum=0.0")


ONE = Parameter(np.ones(2))


@pytest.mark.parametrize(
    ("optimizer", "settings", "message"),
    [
        (AdamW, {"lr": -1.0}, r"\[AdamW\] expected 'lr' to be at least 0 and finite, got -1.0"),
        (SGD, {"lr": float("nan")}, r"'lr' to be at least 0 and finite, got nan"),
        (Adam, {"eps": -1e-8}, r"\[Adam\] expected 'eps'"),
        (Adam, {"weight_decay": -0.1}, r"'weight_decay' to be at least 0"),
        (AdamW, {"betas": (0.9, 1.0)}, r"'betas' to be two numbers from 0 to below 1"),
        (AdamW, {"betas": (-0.1, 0.9)}, r"'betas' to be two numbers"),
        (AdamW, {"betas": (0.9,)}, r"'betas' to be two numbers"),
        (SGD, {"momentum": -0.9}, r"'momentum' to be at least 0"),
        (SGD, {"nesterov": True}, r"momentum and no dampening with nesterov=True"),
        (SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, r"no dampening"),
    ],
)
def test_a_setting_out_of_range_is_named(
    optimizer: type[Optimizer], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        optimizer([ONE], **settings)
    with pytest.raises(ValueError, match=message):
        optimizer([{"params": [ONE], **settings}])


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ([], ValueError, "at least one parameter, got none"),
        ([{"params": []}], ValueError, "at least one parameter in a group"),
        (ONE, TypeError, "a list of tensors or of groups, got one Parameter"),
        ([np.ones(3)], TypeError, "tensors as parameters, got ndarray"),
        ([ONE, ONE], ValueError, r"every parameter once, got one twice, \(2,\)"),
        ([{"params": [ONE]}, {"params": ONE}], ValueError, "every parameter once"),
        ([{"lr": 0.1}], TypeError, "every group to be a dict with 'params'"),
        ([{"params": [ONE], "rate": 0.1}], ValueError, "settings among lr, .*, got rate"),
    ],
)
def test_parameters_that_cannot_be_optimized_are_refused(
    params: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        AdamW(params)


def test_a_gradient_of_another_shape_or_dtype_is_refused() -> None:
    parameter = Parameter(np.ones(3))
    optimizer = AdamW([parameter])
    for gradient in (np.ones(2), np.ones(3, np.float32)):
        parameter.grad = gradient
        with pytest.raises(ValueError, match="gradient of parameter 0 to be"):
            optimizer.step()
