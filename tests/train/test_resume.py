from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from train import tiny
from train.tiny import StoppedTrainer, outcome_of, rows_of, tiny_trainer

from numpyvit.models import load_model
from numpyvit.train import Interruption, Trainer, TrainingInterrupted


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What a run that nothing disturbs leaves behind."""
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny.VARIANTS, tiny.NAME, tiny.CONFIG)
        tiny_trainer(folder).fit()
    return outcome_of(folder)


def run_in_another_process(repository, folder, *options):
    """Train in a process of its own, warnings being errors."""
    paths = [str(repository), str(repository / "tests"), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-W", "error", tiny.__file__, str(folder), *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# Steps 4 to 6 are the second epoch's. "step" stops before the weights change, "row" between the
# metrics and the checkpoint, "write" while a checkpoint lies complete under another name.
@pytest.mark.parametrize("place", ["step:2", "step:5", "step:9", "row:1", "row:2", "write:2"])
def test_a_run_that_was_killed_ends_in_the_same_bits(place, outcome, tmp_path, repository):
    folder = tmp_path / "killed"
    done = run_in_another_process(repository, folder, "--at", place, "--workers", "2")
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert rows_of(folder) != outcome[0] or place == "row:3"
    tiny_trainer(folder).fit()
    assert outcome_of(folder) == outcome
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_a_run_may_be_killed_again_and_again(outcome, tmp_path, repository):
    for place in ("step:2", "write:2", "step:4"):
        done = run_in_another_process(repository, tmp_path / "killed", "--at", place)
        assert done.returncode == -signal.SIGKILL, done.stderr
    tiny_trainer(tmp_path / "killed", workers=2).fit()
    assert outcome_of(tmp_path / "killed") == outcome


@pytest.mark.parametrize("kind", ["INT", "TERM"])
def test_ctrl_c_finishes_the_step_saves_and_the_run_goes_on_to_the_same_bits(
    kind, outcome, tmp_path, repository
):
    folder = tmp_path / "interrupted"
    done = run_in_another_process(repository, folder, "--at", "step:5", "--signal", kind)
    assert done.returncode == 1
    assert (
        done.stderr.rstrip()
        .splitlines()[-1]
        .endswith(
            "TrainingInterrupted: stopped in epoch 2, step 5; the work is saved: "
            f"continue with --resume {folder}"
        )
    )
    progress = load_model(folder / "last.npz").archive.record["progress"]
    assert (progress["epoch"], progress["batch"], progress["step"]) == (1, 2, 5)
    assert progress["count"] == 40
    assert rows_of(folder) == outcome[0][:1]
    tiny_trainer(folder, workers=2).fit()
    assert outcome_of(folder) == outcome


@pytest.mark.parametrize("step", range(1, 10))
def test_after_an_interruption_at_any_step_the_bits_are_the_same(step, outcome, tmp_path):
    trainer = tiny_trainer(tmp_path, kind=StoppedTrainer)
    trainer.stop_at("step", step, signal.SIGINT)
    with pytest.raises(TrainingInterrupted, match=f"step {step};"):
        trainer.fit()
    resumed = tiny_trainer(tmp_path, workers=2)
    assert resumed.progress.step == step
    resumed.fit()
    assert outcome_of(tmp_path) == outcome


def test_an_interrupted_trainer_can_go_on_itself(outcome, tmp_path):
    trainer = tiny_trainer(tmp_path, kind=StoppedTrainer)
    before = set(threading.enumerate())
    trainer.stop_at("step", 5, signal.SIGINT)
    with pytest.raises(TrainingInterrupted):
        trainer.fit()
    assert set(threading.enumerate()) == before
    trainer.fit()
    assert outcome_of(tmp_path) == outcome


def test_times_go_on_where_they_stopped(tmp_path):
    trainer = tiny_trainer(tmp_path, kind=StoppedTrainer)
    trainer.stop_at("step", 5, signal.SIGINT)
    with pytest.raises(TrainingInterrupted):
        trainer.fit()
    resumed = tiny_trainer(tmp_path)
    assert resumed.progress == trainer.progress
    assert resumed.progress.seconds > resumed.progress.epoch_seconds > 0


@pytest.mark.parametrize("half", ['{"epoch": 2, "ste', '{"epoch": 2}', "\x00\x00\x00", "\ufffd"])
def test_a_half_written_last_line_of_metrics_is_dropped(half, outcome, tmp_path):
    trainer = tiny_trainer(tmp_path, kind=StoppedTrainer)
    trainer.stop_at("step", 6, signal.SIGINT)
    with pytest.raises(TrainingInterrupted):
        trainer.fit()
    with trainer.folder.metrics_file.open("a", encoding="utf-8") as file:
        file.write(half)
    assert len(trainer.folder.rows()) == 1
    tiny_trainer(tmp_path).fit()
    assert outcome_of(tmp_path) == outcome


def test_rows_that_are_ahead_of_the_checkpoint_are_dropped(outcome, tmp_path):
    trainer = tiny_trainer(tmp_path, kind=StoppedTrainer)
    trainer.stop_at("step", 5, signal.SIGINT)
    with pytest.raises(TrainingInterrupted):
        trainer.fit()
    trainer.folder.append({"epoch": 2, "train_loss": 0.0})
    tiny_trainer(tmp_path).fit()
    assert outcome_of(tmp_path) == outcome


def test_a_finished_run_stays_as_it_is(tmp_path):
    rows = tiny_trainer(tmp_path).fit()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    trainer = tiny_trainer(tmp_path)
    trainer._train_step = trainer._finish_epoch = None  # nothing of this is called
    assert trainer.fit() == rows
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_fails_while_a_checkpoint_is_written_leaves_the_old_one(tmp_path, monkeypatch):
    tiny_trainer(tmp_path, epochs=1).fit()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    trainer = tiny_trainer(tmp_path)
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        trainer._save()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def rewrite_record(path: Path, change) -> None:
    archive = tiny.models.read_archive(path)
    record = json.loads(json.dumps(archive.record))
    change(record)
    optimizer = {
        f"optimizer.{name}": value for name, value in archive.section("optimizer.").items()
    }
    tiny.models.write_archive(path, archive.weights(), record, optimizer)


def damage(path: Path, kind: str) -> None:
    content = bytearray(path.read_bytes())
    if kind == "empty":
        content.clear()
    elif kind == "cut":
        del content[len(content) // 2 :]
    elif kind == "text":
        content[:] = b"hello\n" * 10
    elif kind == "zeros":
        content[:] = bytes(len(content))
    else:
        middle = len(content) // 3
        content[middle : middle + 8] = bytes(value ^ 255 for value in content[middle : middle + 8])
    path.write_bytes(content)


def test_a_run_with_changed_settings_is_not_continued(tmp_path):
    tiny_trainer(tmp_path, epochs=1).fit()
    config = json.loads((tmp_path / "config.json").read_text())
    config["recipe"]["lr"], config["recipe"]["batch_size"], config["seed"] = 0.5, 10, 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="expected the settings and data") as caught:
        tiny_trainer(tmp_path)
    for part in (
        "seed 3 (was 0)",
        "recipe.lr 0.5 (was 0.003)",
        "recipe.batch_size 10 (was 20)",
    ):
        assert part in str(caught.value)
    assert "recipe.epochs" not in str(caught.value)


def test_the_data_may_lie_elsewhere_when_a_run_is_continued(tmp_path):
    rows = tiny_trainer(tmp_path, epochs=1).fit()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"data_dir": "elsewhere"}))
    assert tiny_trainer(tmp_path).fit() == rows


@pytest.mark.parametrize("count", [None, 47])
def test_a_run_is_not_continued_on_other_data(count, tmp_path):
    trainer = tiny_trainer(tmp_path, epochs=1)
    trainer.fit()
    images, other = tiny.images_of(count or tiny.TRAIN_IMAGES), tiny.images_of(tiny.VAL_IMAGES, 1)
    message = r"training images 47 \(were 48\)"
    if count is None:
        images.class_names = other.class_names = ("a", "b", "c", "d")
        message = r"classes a, b, c, d \(were 0, 1, 2, 3\)"
    with pytest.raises(ValueError, match=message):
        Trainer(trainer.config, trainer.folder, images, other)


def test_a_checkpoint_from_before_the_images_were_counted_is_continued(tmp_path):
    trainer = tiny_trainer(tmp_path, epochs=1)
    rows = trainer.fit()
    rewrite_record(trainer.folder.last, lambda record: record.pop("training_images"))
    assert tiny_trainer(tmp_path).fit() == rows


@pytest.mark.parametrize("kind", ["empty", "cut", "text", "zeros", "flipped"])
def test_a_damaged_checkpoint_is_one_clear_error(kind, tmp_path):
    tiny_trainer(tmp_path, epochs=1).fit()
    damage(tmp_path / "last.npz", kind)
    with pytest.raises(ValueError, match=r"^\[read_archive\] .*last\.npz is not one or is damaged"):
        tiny_trainer(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.pop("progress"), "does not say where the run stood"),
        (lambda record: record["progress"].update(extra=1), "does not say where the run stood"),
        (lambda record: record.pop("run"), "expected the configuration of a run"),
        (lambda record: record.update(run=[1]), "expected the configuration of a run"),
        (lambda record: record["run"].pop("recipe"), "expected the configuration of a run"),
        (lambda record: record.pop("labelling"), "expected a checkpoint that describes its model"),
    ],
)
def test_a_checkpoint_that_does_not_say_where_the_run_stood_is_refused(change, message, tmp_path):
    trainer = tiny_trainer(tmp_path, epochs=1)
    trainer.fit()
    rewrite_record(trainer.folder.last, change)
    with pytest.raises(ValueError, match=message):
        tiny_trainer(tmp_path)


def test_a_checkpoint_of_another_model_is_refused_with_what_differs(tmp_path, monkeypatch):
    tiny_trainer(tmp_path, epochs=1).fit()
    monkeypatch.setitem(tiny.VARIANTS, tiny.NAME, tiny.CONFIG.replace(embed_dim=32))
    with pytest.raises(ValueError, match=r"cls_token: expected shape \(1, 1, 32\)"):
        tiny_trainer(tmp_path)


def test_the_first_signal_is_noted_and_the_second_stops():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption:
        assert not interruption.requested
        signal.raise_signal(signal.SIGTERM)
        assert interruption.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_training_in_another_thread_needs_no_signal_handlers(outcome, tmp_path):
    thread = threading.Thread(target=lambda: tiny_trainer(tmp_path).fit())
    thread.start()
    thread.join()
    assert outcome_of(tmp_path) == outcome
