"""The moving average of weights beside PyTorch's, and its warm-up, state and mistakes."""

from __future__ import annotations

import io
from types import ModuleType

import numpy as np
import pytest
from tolerances import as_numpy, assert_close, assert_same_bits

from numpyvit.nn import Linear, Parameter
from numpyvit.optim import ExponentialMovingAverage


def named(rng: np.random.Generator, xp: ModuleType = np, dtype: str = "float64") -> dict:
    shapes = {"blocks.0.weight": (4, 3), "bias": (3,), "scale": ()}
    return {
        name: Parameter(xp.asarray(rng.standard_normal(shape), dtype))
        for name, shape in shapes.items()
    }


def change(parameters: dict[str, Parameter], step: int, xp: ModuleType = np) -> None:
    rng = np.random.default_rng([7, step])
    for parameter in parameters.values():
        parameter.data[...] = xp.asarray(rng.standard_normal(parameter.shape), parameter.dtype)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.9999, 1.0])
def test_thirty_updates_equal_pytorch(decay, torch, xp, dtype, rng) -> None:
    ours = named(rng, xp, dtype)
    twin = torch.nn.ParameterList([torch.tensor(as_numpy(p)) for p in ours.values()])
    average = torch.optim.swa_utils.AveragedModel(
        twin, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    )
    ema = ExponentialMovingAverage(ours.items(), decay=decay)
    for step in range(30):
        change(ours, step, xp)
        with torch.no_grad():
            for value, parameter in zip(twin, ours.values(), strict=True):
                value.copy_(torch.tensor(as_numpy(parameter)))
        ema.update()
        average.update_parameters(twin)
    for mine, theirs in zip(ema.averages.values(), average.module, strict=True):
        assert_close(mine, theirs, dtype)


def test_a_large_weight_is_averaged_in_all_its_parts(rng) -> None:
    weight = Parameter(rng.standard_normal((700, 500)).astype(np.float32))
    ema = ExponentialMovingAverage([("w", weight)], decay=0.25)
    ema.update()
    first = weight.data.copy()
    weight.data[...] = rng.standard_normal((700, 500))
    ema.update()
    assert_close(ema.averages["w"], 0.25 * first + 0.75 * weight.data, np.float32)


def test_warmup_with_power_one_is_the_plain_mean(rng) -> None:
    ours = named(rng)
    ema = ExponentialMovingAverage(ours.items(), decay=1.0, warmup=True, warmup_power=1.0)
    seen = []
    for step in range(12):
        change(ours, step)
        seen.append(ours["bias"].data.copy())
        ema.update()
        assert_close(ema.averages["bias"], np.mean(seen, 0))


def test_the_decay_rises_as_published_and_no_further_than_asked_for(rng) -> None:
    ema = ExponentialMovingAverage(named(rng).items(), warmup=True, decay=0.999)
    assert ema.decay_at(1) == 0
    # timm's description: with power 2/3 the decay is 0.999 after 31.6 thousand steps.
    assert_close(np.array(ema.decay_at(8)), np.array(0.75))
    assert ema.decay_at(31_000) < 0.999
    assert ema.decay_at(32_000) == 0.999
    slower = ExponentialMovingAverage(
        named(rng).items(), warmup=True, warmup_gamma=3.0, warmup_power=0.5, start_step=10
    )
    assert slower.decay_at(11) == 0
    assert_close(np.array(slower.decay_at(20)), np.array(0.5))


def test_updates_with_a_warmup_follow_the_published_decay(torch, dtype, rng) -> None:
    ours = named(rng, np, dtype)
    ema = ExponentialMovingAverage(ours.items(), decay=0.9, warmup=True)
    expected = None
    for step in range(60):
        change(ours, step)
        ema.update()
        weight = torch.tensor(ours["bias"].data)
        decay = min(1 - (1 + step) ** (-2 / 3), 0.9)  # which is reached at step 31
        expected = weight if expected is None else expected.lerp(weight, 1 - decay)
    assert_close(ema.averages["bias"], expected.numpy(), dtype)


def test_until_the_start_the_average_is_the_weights(rng) -> None:
    ours = named(rng)
    ema = ExponentialMovingAverage(ours.items(), decay=0.5, start_step=3)
    for step in range(4):
        change(ours, step)
        ema.update()
        assert_same_bits(ema.averages["bias"], ours["bias"].data)
    change(ours, 9)
    ema.update()
    assert not np.array_equal(ema.averages["bias"], ours["bias"].data)
    assert ema.steps == 5


def test_averages_share_no_memory_with_weights_and_take_part_in_no_training(rng) -> None:
    layer = Linear(3, 2, rng=rng)
    ema = ExponentialMovingAverage(layer.named_parameters())
    before = {name: array.copy() for name, array in ema.averages.items()}
    layer.weight.data[...] = 0
    assert list(ema.averages) == ["weight", "bias"]
    for name, array in ema.averages.items():
        assert_same_bits(array, before[name])
    layer.load_state_dict(ema.averages)
    assert_same_bits(layer.weight.data, before["weight"])


def test_a_block_with_averages_gives_the_weights_back_even_after_an_error(rng) -> None:
    ours = named(rng)
    ema = ExponentialMovingAverage(ours.items(), decay=0.9)
    ema.update()
    change(ours, 1)
    weights = {name: parameter.data for name, parameter in ours.items()}
    with ema.applied():
        for name, parameter in ours.items():
            assert_same_bits(parameter.data, ema.averages[name])
    error = RuntimeError("stopped")
    with pytest.raises(RuntimeError, match="stopped"), ema.applied():
        raise error
    assert all(parameter.data is weights[name] for name, parameter in ours.items())


def test_a_resumed_average_goes_on_to_the_bit(rng) -> None:
    ours = named(rng)
    ema = ExponentialMovingAverage(ours.items(), decay=0.9, warmup=True)
    for step in range(5):
        change(ours, step)
        ema.update()
    file = io.BytesIO()
    np.savez(file, **ema.state_dict())
    file.seek(0)
    other = ExponentialMovingAverage(ours.items(), decay=0.9, warmup=True)
    with np.load(file) as stored:
        other.load_state_dict(stored)
    change(ours, 6)
    ema.update()
    other.update()
    assert other.steps == ema.steps == 6
    for name, array in ema.averages.items():
        assert_same_bits(other.averages[name], array)
    assert not np.shares_memory(ema.state_dict()["average.bias"], ema.averages["bias"])


def test_a_state_of_other_parameters_is_refused_and_changes_nothing(rng) -> None:
    ours = named(rng)
    ema = ExponentialMovingAverage(ours.items())
    state = ema.state_dict()
    before = {name: array.copy() for name, array in ema.averages.items()}
    wrong = {**state, "average.more": np.ones(2), "average.bias": np.ones(4), "step": 3}
    del wrong["average.scale"]
    with pytest.raises(
        ValueError, match=r"scale' is missing.*more' is unknown.*\(4,\), not \(3,\)"
    ):
        ema.load_state_dict(wrong)
    with pytest.raises(ValueError, match="'step' is missing"):
        ema.load_state_dict({k: v for k, v in state.items() if k != "step"})
    assert ema.steps == 0
    for name, array in ema.averages.items():
        assert_same_bits(array, before[name])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 1.1}, "0 <= decay <= 1, got 1.1"),
        ({"decay": -0.1}, "0 <= decay <= 1"),
        ({"start_step": -1}, "start_step of at least 0"),
        ({"warmup_gamma": 0}, "warmup_gamma"),
        ({"warmup_power": -1}, "warmup_power"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message, rng) -> None:
    with pytest.raises(ValueError, match=message):
        ExponentialMovingAverage(named(rng).items(), **settings)


def test_no_parameters_and_two_of_one_name_are_refused(rng) -> None:
    with pytest.raises(ValueError, match="named parameters"):
        ExponentialMovingAverage([])
    with pytest.raises(ValueError, match="each once"):
        ExponentialMovingAverage([*named(rng).items(), *named(rng).items()])
