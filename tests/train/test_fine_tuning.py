"""Runs that start from weights: what they record, and that they end in the same bits."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from tolerances import assert_same_bits
from train import tiny
from train.tiny import interrupted, outcome_of, tuning_config, tuning_trainer

from numpyvit.data import Preprocessing
from numpyvit.models import load_model
from numpyvit.train import Recipe, RunConfig, RunFolder, fingerprint

TUNES = ["all", "last:1", "head"]


@pytest.fixture(scope="module", params=TUNES)
def tune(request):
    return request.param


@pytest.fixture(scope="module")
def outcome(tune, tmp_path_factory):
    """What a run that nothing disturbs leaves behind."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    tuning_trainer(folder, tune).fit()
    return outcome_of(folder)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_no_bit(workers, tune, outcome, tmp_path):
    tuning_trainer(tmp_path, tune, workers=workers).fit()
    assert outcome_of(tmp_path) == outcome


@pytest.mark.parametrize("step", [1, 5])
def test_after_an_interruption_the_bits_are_the_same(step, tune, outcome, tmp_path):
    interrupted(tuning_trainer(tmp_path, tune), step=step)
    tuning_trainer(tmp_path, tune, workers=2).fit()
    assert outcome_of(tmp_path) == outcome


def test_it_starts_from_the_weights_and_learns(tmp_path):
    trainer = tuning_trainer(tmp_path, "all")
    source = tiny.source_model()
    for name, array in trainer.model.state_dict().items():
        if name.startswith("head."):
            assert not array.any()
        else:
            assert_same_bits(array, source.state_dict()[name])
    rows = trainer.fit()
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_the_learning_rate_of_a_row_is_that_of_the_head(tmp_path):
    trainer = tuning_trainer(tmp_path, "all", layer_decay=0.5, schedule="constant", warmup_epochs=0)
    assert {row["learning_rate"] for row in trainer.fit()} == {trainer.recipe.lr}
    assert len({group["lr"] for group in trainer.optimizer.param_groups}) == 4


def test_frozen_weights_keep_their_bits(tmp_path):
    trainer = tuning_trainer(tmp_path, "last:1")
    trainer.fit()
    assert [block.training for block in trainer.model.blocks] == [False, True]  # of dropout
    source, after = tiny.source_model().state_dict(), load_model(tmp_path / "last.npz").model
    for name, array in after.state_dict().items():
        trained = name.startswith(("blocks.1.", "norm.", "head."))
        assert np.array_equal(array, source.get(name)) == (not trained), name


def test_a_checkpoint_says_all_that_is_needed_to_use_it(tmp_path):
    trainer = tuning_trainer(tmp_path, "all")
    trainer.fit()
    saved = load_model(tmp_path / "best.npz")
    assert Preprocessing.from_dict(saved.preprocessing) == trainer.config.preprocessing
    assert saved.labelling.class_names == trainer.train_data.class_names
    assert saved.labelling.mean == trainer.recipe.mean
    run = RunConfig.from_dict(saved.archive.record["run"])
    assert run == trainer.config
    assert (run.tune, len(run.weights_sha256)) == ("all", 64)


def test_only_what_is_trained_has_a_state_in_the_checkpoint(tmp_path):
    tuning_trainer(tmp_path, "head").fit()
    state = load_model(tmp_path / "last.npz").archive.section("optimizer.")
    assert {name for name in state if "exp_avg_sq" in name} == {"0.exp_avg_sq", "1.exp_avg_sq"}


def test_a_run_with_a_checkpoint_needs_its_weights_no_more(outcome, tune, tmp_path):
    weights = tiny.weights_file(tmp_path)
    config = dataclasses.replace(tuning_config(tune), weights=str(weights))
    interrupted(tuning_trainer(tmp_path / "run", tune, config=config), step=4)
    weights.unlink()
    tuning_trainer(tmp_path / "run", tune, open_weights=True).fit()
    assert (tmp_path / "run" / "last.npz").exists()
    assert outcome_of(tmp_path / "run") == outcome


def test_weights_are_opened_where_a_run_has_no_checkpoint_yet(outcome, tune, tmp_path):
    weights = tiny.weights_file(tmp_path)
    config = dataclasses.replace(
        tuning_config(tune), weights=str(weights), weights_sha256=fingerprint(weights)
    )
    tuning_trainer(tmp_path / "run", tune, config=config, open_weights=True).fit()
    rows, *_ = outcome_of(tmp_path / "run")
    assert rows == outcome[0]


def test_corrections_of_what_the_weights_say_are_made_again(tmp_path):
    config = dataclasses.replace(
        tuning_config("all"),
        weights=str(tiny.weights_file(tmp_path)),
        weights_sha256=None,
        weights_settings={"num_heads": 4, "activation": "gelu"},
    )
    trainer = tuning_trainer(tmp_path / "run", "all", config=config, open_weights=True)
    assert trainer.model.config.num_heads == 4
    assert trainer.model.config.activation == "gelu"
    assert trainer.folder.config() == config


def test_weights_that_changed_are_refused(tmp_path):
    weights = tiny.weights_file(tmp_path)
    config = dataclasses.replace(
        tuning_config("all"), weights=str(weights), weights_sha256=fingerprint(weights)
    )
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"but .*source\.npz has changed; put them back"):
        tuning_trainer(tmp_path / "run", "all", config=config, open_weights=True)


def test_the_weights_may_lie_elsewhere_when_a_run_is_continued(tmp_path):
    rows = tuning_trainer(tmp_path, "all").fit()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"weights": "elsewhere.npz"}))
    assert tuning_trainer(tmp_path, "all").fit() == rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights_sha256": "0"}, "weights_sha256 '0'"),
        ({"tune": "last:1"}, r"tune 'last:1' \(was 'all'\)"),
        ({"preprocessing": {"size": 8, "resize": 9}}, r"preprocessing.resize 9 \(was 8\)"),
    ],
)
def test_a_run_is_not_continued_with_other_settings(change, message, tmp_path):
    tuning_trainer(tmp_path, "all").fit()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message):
        tuning_trainer(tmp_path, "all")


def test_a_configuration_with_weights_comes_back_as_it_was_written(tmp_path):
    folder, config = RunFolder(tmp_path), tuning_config("last:2")
    folder.create(config)
    assert folder.config() == config


def test_a_configuration_from_before_there_were_weights_is_read():
    fields = json.loads(json.dumps(RunConfig().to_dict()))
    for name in ("weights", "weights_sha256", "weights_settings", "tune", "preprocessing"):
        del fields[name]
    for name in ("layer_decay", "drop_path"):
        del fields["recipe"][name]
    assert RunConfig.from_dict(fields) == RunConfig()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tune": "head"}, "expected weights with tune 'head', got none"),
        ({"tune": "heads"}, "'all', 'head' or 'last:N'"),
        ({"weights": "x"}, "expected a preprocessing with weights"),
        ({"weights": 3}, "expected a text as weights, got 3"),
        ({"preprocessing": {"size": 8}}, "expected a Preprocessing as preprocessing, got"),
        ({"weights_settings": 3}, "expected fields as weights_settings, got 3"),
        ({"recipe": "default"}, "expected a Recipe as recipe, got 'default'"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**fields)


def test_features_that_are_computed_once_cannot_be_augmented():
    config = tuning_config("head")
    for change in ({"flip": True}, {"crop_padding": 2}, {"crop_scale": 0.5}):
        recipe = config.recipe.replace(**change)
        with pytest.raises(ValueError, match=r"leaves pictures .* for 'head'.*--recipe probe"):
            dataclasses.replace(config, recipe=recipe)
    assert not Recipe(flip=False, crop_padding=0).augments


def test_the_fingerprint_is_that_of_the_content(tmp_path):
    one, other = tmp_path / "a", tmp_path / "b"
    one.write_bytes(b"abc")
    other.write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert fingerprint(one) == fingerprint(str(other)) == expected


def test_the_fingerprint_of_a_folder_is_that_of_its_weights_and_their_descriptions(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    before = fingerprint(tmp_path)
    (tmp_path / "README.md").write_text("more")
    assert fingerprint(tmp_path) == before
    (tmp_path / "config.json").write_text("{ }")
    assert fingerprint(tmp_path) != before
    with pytest.raises(FileNotFoundError, match="expected weights, a file or a folder"):
        fingerprint(tmp_path / "nowhere")
