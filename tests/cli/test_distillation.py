"""`numpyvit train --teacher`: a teacher from a file, or one that is trained with the student."""

from __future__ import annotations

import json
import os
import signal

import pytest

from numpyvit.train import trainer as trainer_module

DISTILLED = ("--set", "distillation_token=true", "--set", "distillation_head=true")


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["train_loss"], row["val_loss"], row["val_accuracy"]) for row in rows]


def begin_again(run):
    """Leave of a run what it was before its first step."""
    for name in ("last.npz", "best.npz", "metrics.jsonl"):
        (run / name).unlink()


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_a_student_learns_from_a_run(command, trained, run_folder, tmp_path, kind):
    out = tmp_path / "student"
    words = ("--teacher", run_folder, "--distillation", kind, *DISTILLED)
    result = command(*trained.options, *words, "--workers", 1, "--out", out)
    assert result.status == 0, result.err
    assert f"last.npz ({kind}" in result.err
    config = json.loads((out / "config.json").read_text())
    assert config["teaching"]["weights"] == str((run_folder / "last.npz").resolve())
    assert len(rows_of(out)) == 3
    assert rows_of(out) != rows_of(run_folder)
    assert command("evaluate", out).status == 0


def test_a_named_teacher_is_trained_first_and_a_stopped_one_goes_on(
    command, trained, run_folder, tiny_variant, tmp_path, monkeypatch
):
    words = (*trained.options, "--teacher", tiny_variant, *DISTILLED, "--workers", 1)
    whole = tmp_path / "whole"
    result = command(*words, "--out", whole)
    assert result.status == 0, result.err
    assert rows_of(whole / "teacher") == rows_of(run_folder)
    lines = result.err.splitlines()
    first = lines.index(f"first the teacher, {tiny_variant}, as the student will be trained")
    folders = [number for number, line in enumerate(lines) if line.startswith("folder")]
    assert first < folders[0] < lines.index("now the student") < folders[1]

    def interrupted(bar, row):
        os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.ProgressBar, "epoch", interrupted)
        stopped = command(*words, "--out", out)
    assert stopped.status == 130
    assert f"train --resume {out}\n" in stopped.err
    assert len(rows_of(out / "teacher")) == 1
    resumed = command("train", "--resume", out)
    assert resumed.status == 0, resumed.err
    assert rows_of(out) == rows_of(whole)


def test_a_teacher_that_has_changed_is_noticed(command, trained, run_folder, tmp_path):
    teacher, out = tmp_path / "teacher.npz", tmp_path / "student"
    teacher.write_bytes((run_folder / "best.npz").read_bytes())
    assert command(*trained.options, "--teacher", teacher, "--out", out).status == 0
    teacher.write_bytes((run_folder / "last.npz").read_bytes() + b" ")
    begin_again(out)
    assert "has changed" in command("train", "--resume", out).mistake()


def test_what_does_not_go_together_is_refused(command, trained, tiny_variant, run_folder):
    alone = command(*trained.options, "--distillation", "soft").mistake()
    assert "expected --teacher with the options of distillation" in alone
    words = ("--weights", run_folder, "--data", trained.options[2], "--teacher", tiny_variant)
    assert "expected a file as --teacher" in command("train", *words).mistake()


def test_a_teacher_that_learns_no_classes_is_refused_before_anything_is_trained(
    command, trained, elsewhere
):
    mae = "mae_vit_cifar_patch4_32"
    message = command(*trained.options, "--teacher", mae).mistake()
    assert message.startswith(f"expected a teacher that learns classes, got {mae}; pre-train it")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    "words", [("--label-smoothing", 0.1), ("--mixup", 0.8), ("--teacher", "vit_cifar_patch4_32")]
)
def test_what_needs_labels_is_refused_for_a_model_that_learns_without(command, elsewhere, words):
    message = command("train", "--model", "mae_vit_cifar_patch4_32", *words).mistake()
    assert message.startswith(f"expected no {words[0]} with mae_vit_cifar_patch4_32, which learns")
    assert list(elsewhere.iterdir()) == []


@pytest.fixture
def apart(command, trained, run_folder, tmp_path):
    """A run that was stopped, and its teacher, which lies elsewhere now; and where it was."""
    teacher, out, now = (tmp_path / name for name in ("teacher.npz", "student", "moved.npz"))
    teacher.write_bytes((run_folder / "last.npz").read_bytes())
    assert command(*trained.options, "--teacher", teacher, "--out", out).status == 0
    teacher.rename(now)
    return out, now, teacher


def test_a_run_with_its_own_teacher_goes_on_where_it_was_moved_to(
    command, trained, tiny_variant, tmp_path
):
    words = (*trained.options, "--teacher", tiny_variant, "--workers", 1)
    assert command(*words, "--out", tmp_path / "here").status == 0
    config = json.loads((tmp_path / "here" / "config.json").read_text())
    assert config["teaching"]["weights"] == "teacher/last.npz"
    rows, there = rows_of(tmp_path / "here"), (tmp_path / "here").rename(tmp_path / "there")
    begin_again(there)
    resumed = command("train", "--resume", there, "--workers", 1)
    assert resumed.status == 0, resumed.err
    assert rows_of(there) == rows


def test_a_finished_run_needs_its_teacher_no_more(command, apart):
    done = command("train", "--resume", apart[0])
    assert done.status == 0, done.err


def test_resuming_says_where_the_teacher_lies_now(command, apart, tmp_path):
    run, now, before = apart
    begin_again(run)
    message = command("train", "--resume", run).mistake()
    assert f"expected the teacher of the run {run} at {before}, found none; " in message
    assert "--teacher" in message
    other = tmp_path / "other.npz"
    other.write_bytes(now.read_bytes() + b" ")
    other = command("train", "--resume", run, "--teacher", other).mistake(2)
    assert "expected the teacher that the run was set up with, got another" in other
    assert command("train", "--resume", run, "--teacher", now).status == 0
    config = json.loads((run / "config.json").read_text())
    assert config["teaching"]["weights"] == str(now)


def test_resuming_takes_no_teacher_for_a_run_without(command, run_folder):
    words = ("--resume", run_folder, "--teacher", run_folder)
    assert "expected no --teacher with --resume" in command("train", *words).mistake(status=2)


def test_the_plan_says_what_a_teacher_of_other_pictures_sees(
    command, trained, run_folder, tmp_path
):
    words = ("--teacher", run_folder, "--image-size", 32, "--epochs", 1)
    result = command(*trained.options, *words, "--out", tmp_path / "student")
    assert result.status == 0, result.err
    assert "% of the loss; sees pictures resized to 16 x 16)" in result.err
