from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits
from train import tiny
from train.tiny import outcome_of, rows_of, tiny_trainer

from numpyvit.data import ArrayDataset, Subset, load_dataset
from numpyvit.models import load_model
from numpyvit.train import (
    RunConfig,
    RunFolder,
    Trainer,
    WorkerPool,
    evaluate,
    new_model,
    parameter_groups,
    recipe,
)

ROW = [
    "epoch",
    "step",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "learning_rate",
    "images_per_second",
    "seconds",
]


@pytest.fixture
def outcome(tmp_path):
    """What a run that nothing disturbs leaves behind."""
    tiny_trainer(tmp_path / "undisturbed").fit()
    return outcome_of(tmp_path / "undisturbed")


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_same_seed_gives_the_same_bits_with_any_number_of_workers(workers, outcome, tmp_path):
    tiny_trainer(tmp_path / "again", workers=workers).fit()
    assert outcome_of(tmp_path / "again") == outcome


@pytest.mark.parametrize("name", ["default", "tutorial"])
def test_the_cifar_model_gives_the_same_bits_with_one_and_with_two_workers(name, tmp_path):
    data = load_dataset("shapes", "test")
    train, val = Subset(data, np.arange(112)), Subset(data, np.arange(112, 160))
    settings = recipe(name, epochs=1, batch_size=80)  # micro-batches of 32, 32 and 16
    outcomes = []
    for workers in (1, 2):
        folder = RunFolder(tmp_path / str(workers))
        folder.create(RunConfig(recipe=settings))
        Trainer(folder.config(), folder, train, val, workers=workers).fit()
        outcomes.append(outcome_of(folder.path))
    assert outcomes[0] == outcomes[1]


def test_another_seed_gives_another_run(outcome, tmp_path):
    tiny_trainer(tmp_path / "other", seed=1).fit()
    losses = [
        {json.loads(row)["train_loss"] for row in rows}
        for rows in (outcome[0], rows_of(tmp_path / "other"))
    ]
    assert not losses[0] & losses[1]


def test_a_row_an_epoch_is_returned_and_written(tmp_path):
    rows = tiny_trainer(tmp_path).fit()
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == written
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [3, 6, 9]
    for row in rows:
        assert list(row) == ROW
        assert 0 <= row["train_accuracy"] <= 1
        assert 0 <= row["val_accuracy"] <= 1
        assert row["images_per_second"] > 0
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)


def test_it_learns(tmp_path):
    plain = {"dropout": 0.0, "flip": False, "crop_padding": 0, "crop_scale": 1.0}
    rows = tiny_trainer(tmp_path, epochs=15, lr=1e-2, **plain).fit()
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert rows[-1]["train_accuracy"] > 0.9
    assert rows[-1]["val_accuracy"] > 0.5


def test_the_checkpoints_hold_the_model_with_all_that_is_needed_to_use_it(tmp_path):
    trainer = tiny_trainer(tmp_path)
    rows = trainer.fit()
    saved = load_model(tmp_path / "last.npz")
    assert saved.name == tiny.NAME
    assert saved.model.config == trainer.model.config
    assert saved.labelling == trainer.labelling
    assert saved.labelling.class_names == ("0", "1", "2", "3")
    assert saved.labelling.mean == tiny.RECIPE.mean
    for name, weights in trainer.model.state_dict().items():
        assert_same_bits(saved.model.state_dict()[name], weights)
    result = evaluated(tmp_path / "last.npz")
    assert (result.loss, result.accuracy) == (rows[-1]["val_loss"], rows[-1]["val_accuracy"])


def evaluated(path):
    with WorkerPool(1) as pool:
        return evaluate(
            load_model(path).model,
            tiny.images_of(tiny.VAL_IMAGES, 1),
            tiny.RECIPE.normalize(),
            pool,
            micro_batch=tiny.MICRO_BATCH,
        )


def test_the_best_checkpoint_is_the_first_of_the_best_epochs(tmp_path):
    rows = tiny_trainer(tmp_path, epochs=8, lr=2e-2).fit()
    accuracies = [row["val_accuracy"] for row in rows]
    best = rows[accuracies.index(max(accuracies))]
    progress = load_model(tmp_path / "best.npz").archive.record["progress"]
    assert progress["epoch"] == best["epoch"]
    assert progress["best_accuracy"] == best["val_accuracy"]
    result = evaluated(tmp_path / "best.npz")
    assert (result.loss, result.accuracy) == (best["val_loss"], best["val_accuracy"])


def test_the_learning_rate_follows_the_schedule(tmp_path):
    for schedule, expected in (("constant", tiny.RECIPE.lr), ("cosine", 0)):
        trainer = tiny_trainer(tmp_path / schedule, schedule=schedule, warmup_epochs=1)
        rates = []
        for step in range(9):
            trainer.schedule.set_step(step)
            rates.append(trainer.optimizer.param_groups[0]["lr"] / tiny.RECIPE.lr)
        assert_close(np.array(rates[:4]), np.array([1, 2, 3, 4]) / 4)
        trainer.schedule.set_step(9)
        assert trainer.optimizer.param_groups[-1]["lr"] == expected
        assert rates[3:] == sorted(rates[3:], reverse=True)
        trainer.schedule.set_step(0)
        assert trainer.fit()[-1]["learning_rate"] == rates[-1] * tiny.RECIPE.lr


def test_a_warm_up_longer_than_the_training_is_cut(tmp_path):
    rows = tiny_trainer(tmp_path, epochs=2, warmup_epochs=50).fit()
    assert rows[-1]["learning_rate"] < tiny.RECIPE.lr


def test_nothing_is_left_running(tmp_path):
    before = set(threading.enumerate())
    tiny_trainer(tmp_path, workers=2).fit()
    assert set(threading.enumerate()) == before


def test_progress_goes_to_stderr_a_line_an_epoch(tmp_path, capsys):
    tiny_trainer(tmp_path).fit()
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = [line for line in printed.err.splitlines() if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all("train loss" in line and "validation loss" in line for line in lines)


@pytest.mark.parametrize("decay_vectors", [True, False])
def test_the_groups_cover_each_parameter_once(decay_vectors):
    settings = recipe("default", decay_vectors=decay_vectors, weight_decay=0.3)
    model = new_model(RunConfig(recipe=settings), ArrayDataset(*shapes_like()))
    groups = parameter_groups(model, settings)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [[names.pop(id(parameter)) for parameter in group["params"]] for group in groups]
    assert not names
    if decay_vectors:
        assert [group["weight_decay"] for group in groups] == [0.3]
        return
    assert [group["weight_decay"] for group in groups] == [0.3, 0.0]
    assert {"cls_token", "pos_embed", "head.bias", "blocks.0.norm1.weight"} <= {*found[1]}
    assert all(name.endswith(".weight") and "norm" not in name for name in found[0])
    assert {"head.weight", "patch_embed.proj.weight", "blocks.3.mlp.fc2.weight"} <= {*found[0]}


def shapes_like(size=32):
    return np.zeros((10, 3, size, size), np.uint8), np.arange(10)


def test_the_model_is_fitted_to_the_data_and_the_recipe():
    images, labels = shapes_like()
    config = RunConfig(recipe=recipe("tutorial"))
    model = new_model(config, ArrayDataset(images, labels, [str(n) for n in range(17)]))
    assert model.config.num_classes == 17
    assert model.config.dropout == model.config.attention_dropout == 0.1
    again = new_model(config, ArrayDataset(images, labels, [str(n) for n in range(17)]))
    for name, weights in model.state_dict().items():
        assert_same_bits(again.state_dict()[name], weights)


def test_images_of_another_size_are_refused_with_both_sizes():
    with pytest.raises(ValueError, match=r"expected images \(3, 32, 32\).*got \(3, 24, 24\)"):
        new_model(RunConfig(), ArrayDataset(*shapes_like(24)))


def test_validation_images_that_do_not_fit_are_refused_before_the_training(tmp_path):
    run = tiny_trainer(tmp_path).folder
    train = tiny.images_of(tiny.TRAIN_IMAGES)
    for other in (
        ArrayDataset(np.zeros((2, 3, 9, 9), np.uint8), np.arange(2), train.class_names),
        ArrayDataset(np.zeros((2, 3, 8, 8), np.uint8), np.arange(2), ("cat", "dog")),
    ):
        with pytest.raises(ValueError, match=r"\[train\] expected validation"):
            Trainer(run.config(), run, train, other)


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="batch_size of at most the 48 pictures"):
        tiny_trainer(tmp_path, batch_size=49)
