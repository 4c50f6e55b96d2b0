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
    assert command(*words, "--out", whole).status == 0
    assert rows_of(whole / "teacher") == rows_of(run_folder)

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
