"""Mixed pictures, repeated ones and averaged weights in a run: the same bits, however it goes."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits
from train.tiny import (
    STEPS,
    StoppedTrainer,
    interrupted,
    outcome_of,
    tiny_trainer,
    tuning_config,
    tuning_trainer,
)

from numpyvit import functional
from numpyvit.models import load_model
from numpyvit.optim import ExponentialMovingAverage
from numpyvit.tensor import Tensor
from numpyvit.train import Classification, TrainingInterrupted, evaluate

EVERYTHING = {
    "mixup": 0.8,
    "cutmix": 1.0,
    "random_erasing": 0.5,
    "randaugment": 5,
    "repeats": 2,
    "drop_path": 0.2,
    "ema_decay": 0.9,
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What a run with everything leaves behind that nothing disturbs."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    with pytest.MonkeyPatch.context() as patch:
        from train import tiny

        patch.setitem(tiny.VARIANTS, tiny.NAME, tiny.CONFIG)
        tiny_trainer(folder, **EVERYTHING).fit()
    return outcome_of(folder)


def test_the_number_of_workers_changes_no_bit(outcome, tmp_path):
    tiny_trainer(tmp_path, workers=2, **EVERYTHING).fit()
    assert outcome_of(tmp_path) == outcome


@pytest.mark.parametrize("step", [1, 5])
def test_after_an_interruption_the_bits_are_the_same(step, outcome, tmp_path):
    trainer = tiny_trainer(tmp_path, kind=StoppedTrainer, **EVERYTHING)
    trainer.stop_at("step", step, signal.SIGINT)
    with pytest.raises(TrainingInterrupted):
        trainer.fit()
    tiny_trainer(tmp_path, workers=2).fit()
    assert outcome_of(tmp_path) == outcome


def test_each_part_changes_what_is_learned(tmp_path):
    found = set()
    for name in ("", *EVERYTHING):
        off = {} if not name else {name: 1 if name == "repeats" else 0}
        tiny_trainer(tmp_path / f"no{name}", epochs=1, **EVERYTHING | off).fit()
        weights = load_model(tmp_path / f"no{name}" / "last.npz").archive.weights()
        found.add(weights["head.weight"].tobytes())
    assert len(found) == 1 + len(EVERYTHING)


def raw_weights(folder):
    return load_model(folder / "last.npz").archive.section("raw.")


def test_the_average_leaves_the_training_alone_and_is_what_is_saved(tmp_path):
    plain = tiny_trainer(tmp_path / "plain")
    plain.fit()
    averaged = tiny_trainer(tmp_path / "averaged", ema_decay=0.9)
    twin = tiny_trainer(tmp_path / "twin")
    average = ExponentialMovingAverage(twin.model.named_parameters(), decay=0.9, warmup=True)
    step = twin.optimizer.step
    twin.optimizer.step = lambda: (step(), average.update())
    twin.fit()
    averaged.fit()
    saved = load_model(tmp_path / "averaged" / "last.npz")
    raw = raw_weights(tmp_path / "averaged")
    for name, weight in load_model(tmp_path / "plain" / "last.npz").archive.weights().items():
        assert_same_bits(raw[name], weight)
        assert_same_bits(saved.archive.weights()[name], average.averages[name])
    assert average.steps == 3 * STEPS


def test_the_average_is_what_is_validated_and_chosen_as_the_best(tmp_path):
    trainer = tiny_trainer(tmp_path, ema_decay=0.9, lr=1e-2)
    rows = trainer.fit()
    best = max(rows, key=lambda row: row["val_accuracy"])
    for file, row in (("last.npz", rows[-1]), ("best.npz", best)):
        found = evaluate(
            load_model(tmp_path / file).model,
            trainer.val_data,
            trainer.recipe.normalize(),
            trainer.pool,
            micro_batch=trainer.micro_batch,
        )
        assert (found.loss, found.accuracy) == (row["val_loss"], row["val_accuracy"])


def test_after_the_last_epoch_the_model_is_the_saved_one_also_when_it_was_finished_before(tmp_path):
    for trainer in (tiny_trainer(tmp_path, ema_decay=0.9), tiny_trainer(tmp_path)):
        trainer.fit()
        for name, weight in load_model(tmp_path / "last.npz").archive.weights().items():
            assert_same_bits(trainer.model.state_dict()[name], weight)


def test_a_run_from_weights_averages_what_it_trains(tmp_path):
    whole = tuning_trainer(tmp_path / "whole", "last:1", ema_decay=0.9)
    whole.fit()
    halved = tuning_trainer(tmp_path / "halved", "last:1", ema_decay=0.9)
    interrupted(halved, 2)
    tuning_trainer(tmp_path / "halved", "last:1").fit()
    assert outcome_of(tmp_path / "halved") == outcome_of(tmp_path / "whole")
    raw = raw_weights(tmp_path / "whole")
    assert "blocks.1.attn.qkv.weight" in raw
    assert "blocks.0.attn.qkv.weight" not in raw


@pytest.mark.parametrize("name", ["mixup", "cutmix", "random_erasing", "randaugment", "repeats"])
def test_a_probe_whose_features_are_computed_once_refuses_what_changes_pictures(name):
    with pytest.raises(ValueError, match="features are computed once"):
        tuning_config("head", **{name: 2 if name == "repeats" else 1.0})


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_are_smoothed_once_mixed_or_not(smoothing, tmp_path, rng, torch):
    trainer = tiny_trainer(
        tmp_path, mixup=0.8, cutmix=1.0, mixing_probability=0.5, label_smoothing=smoothing
    )
    logits = rng.standard_normal((20, 4)).astype(np.float32)
    for images, shares in trainer.loader.epoch(0):
        assert_close(shares.sum(1), np.ones(len(images)), np.float32)
        assert isinstance(trainer.objective, Classification)
        ours = Tensor(logits[: len(images)])
        loss, _ = trainer.objective.loss(lambda _, ours=ours: ours, images, shares)
        smoothed = torch.tensor(shares) * (1 - smoothing) + smoothing / 4
        wanted = -(smoothed * torch.tensor(logits[: len(images)]).log_softmax(1)).sum()
        assert_close(loss.data, wanted.numpy(), np.float32)
        plain = functional.cross_entropy(ours, shares, 0.0, "sum")
        assert (loss.item() == plain.item()) == (smoothing == 0)
