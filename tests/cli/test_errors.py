"""Every mistake: one line that says what is wrong, a status, no traceback."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from numpyvit.cli import errors, run_data
from numpyvit.data import cifar10
from numpyvit.models import VARIANTS, archive


@pytest.fixture
def no_network(monkeypatch):
    def download(*args, **settings):
        raise OSError("no route to host")

    monkeypatch.setattr(cifar10, "download", download)


@pytest.fixture
def blocked(tmp_path):
    """A folder that cannot be made, whoever one is: a file is in the way."""
    (tmp_path / "file").write_text("in the way")
    return tmp_path / "file" / "out"


def cifar_folder(folder, bytes_in_first_file):
    folder.mkdir()
    (folder / "data_batch_1.bin").write_bytes(bytes(bytes_in_first_file))
    return folder


def test_missing_data_names_the_ways_to_get_it(command, no_network, elsewhere):
    message = command("train", "--data", "cifar10").mistake()
    assert "no route to host" in message
    assert "--data-dir" in message
    assert "--data shapes" in message
    assert list(elsewhere.iterdir()) == []


def test_a_truncated_data_file_is_named(command, tmp_path, elsewhere):
    folder = cifar_folder(tmp_path / "cifar", 1000)
    message = command("train", "--data", "cifar10", "--data-dir", folder).mistake()
    assert message.startswith(f"truncated file {folder / 'data_batch_1.bin'}: expected 30730000")
    assert list(elsewhere.iterdir()) == []


def test_a_training_image_that_is_none_is_named(command, pictures, tiny_variant, tmp_path):
    broken = shutil.copytree(pictures, tmp_path / "broken")
    bad = broken / "train" / "red" / "3.png"
    bad.write_bytes(bad.read_bytes()[:60])
    words = ("train", "--data", broken, "--model", tiny_variant, "--batch-size", 8)
    message = command(*words, "--epochs", 1).mistake()
    assert "expected a picture" in message
    assert str(bad) in message


def test_pictures_too_small_for_the_data_are_refused(command, tiny_variant, monkeypatch):
    monkeypatch.setitem(VARIANTS, "vit_test_8", VARIANTS[tiny_variant].replace(image_size=8))
    message = command("train", "--data", "shapes", "--model", "vit_test_8").mistake()
    assert "at least 16, got 8" in message


def test_data_with_other_classes_than_the_checkpoint_s_is_refused(command, run_folder, tmp_path):
    message = command("evaluate", run_folder, "--data", "shapes", "--out", tmp_path).mistake()
    assert "the 3 classes of" in message
    assert "(blue, green, red)" in message
    assert "the 10 classes of shapes (disk, ring," in message


def test_weights_that_do_not_fit_their_model_are_counted_in_one_line(
    command, run_folder, red_picture, tmp_path
):
    found = archive.read_archive(run_folder / "last.npz")
    record = {**found.record, "config": {**found.record["config"], "embed_dim": 24}}
    path = tmp_path / "other.npz"
    archive.write_archive(path, found.weights(), record)
    message = command("predict", red_picture, "--checkpoint", path).mistake()
    assert "the weights do not fit the model: cls_token: expected shape (1, 1, 24)" in message
    assert "more" in message


def test_a_run_whose_configuration_was_changed_is_not_resumed(command, run_folder, tmp_path):
    copy = shutil.copytree(run_folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["model"] = "vit_cifar_patch4_32"
    (copy / "config.json").write_text(json.dumps(config))
    message = command("train", "--resume", copy).mistake()
    assert "got model 'vit_cifar_patch4_32' (was 'vit_test_patch8_16')" in message


def change_record(run, change):
    found = archive.read_archive(run / "last.npz")
    extra = {name: value for name, value in found.arrays.items() if not name.startswith("model.")}
    archive.write_archive(run / "last.npz", found.weights(), {**found.record, **change}, extra)


@pytest.mark.parametrize("run", [3, [], {}, {"recipe": {}, "data": 5}, {"recipe": {"lr": "x"}}])
def test_a_checkpoint_with_a_damaged_configuration_is_one_clear_line(
    command, run_folder, tmp_path, pictures, run
):
    copy = shutil.copytree(run_folder, tmp_path / "copy")
    change_record(copy, {"run": run})
    message = command("evaluate", copy).mistake()
    assert f"says how it was trained, but {copy / 'last.npz'} does not" in message
    assert command("evaluate", copy, "--data", pictures).status == 0


def test_a_damaged_preprocessing_is_one_clear_line(command, run_folder, red_picture, tmp_path):
    copy = shutil.copytree(run_folder, tmp_path / "copy")
    change_record(copy, {"preprocessing": {"size": 16}})
    message = command("predict", red_picture, "--checkpoint", copy).mistake()
    assert f"how pictures are prepared, but {copy / 'last.npz'} does not" in message
    assert "resize" in message


@pytest.mark.parametrize("lacking", ["train_accuracy", "seconds", "val_accuracy"])
def test_metrics_that_lack_a_number_are_named_before_a_run_is_resumed(
    command, run_folder, tmp_path, lacking
):
    copy = shutil.copytree(run_folder, tmp_path / "copy")
    rows = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    del rows[1][lacking]
    (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    message = command("train", "--resume", copy).mistake()
    assert f"expected numbers for {lacking} of epoch 2 in {copy / 'metrics.jsonl'}" in message


def test_a_finished_run_without_metrics_is_one_clear_line(command, run_folder, tmp_path):
    copy = shutil.copytree(run_folder, tmp_path / "copy")
    (copy / "metrics.jsonl").unlink()
    assert "expected the metrics of 3 epochs" in command("train", "--resume", copy).mistake()


def test_the_checkpoint_of_another_run_is_not_adopted(command, run_folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(run_folder / "last.npz", out)
    message = command("train", "--out", out).mistake()
    assert "holds last.npz of another run; give another --out" in message
    assert [path.name for path in out.iterdir()] == ["last.npz"]


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("labelling", {"class_names": ["red"]}, "expected 3 class_names, got 1"),
        ("labelling", {"class_names": "rgb"}, "expected a list, got 'rgb'"),
        ("labelling", {"class_names": [1, 2, 3]}, "expected texts as class_names"),
        ("labelling", {"mean": [0.5, 0.5]}, "expected 3 values as mean, got 2"),
        ("labelling", {"mean": ["a", "b", "c"]}, "expected numbers as mean"),
        ("labelling", {"std": [0, 1, 1]}, "expected positive numbers as std"),
        ("labelling", {"other": [1]}, "unexpected keyword argument 'other'"),
        ("config", {"depth": 2.5}, "expected a whole number as depth, got 2.5"),
        ("config", {"norm_eps": None}, "expected a finite number as norm_eps, got None"),
    ],
)
def test_a_checkpoint_that_describes_its_model_wrongly_is_one_clear_line(
    command, run_folder, red_picture, tmp_path, part, change, message
):
    copy = shutil.copytree(run_folder, tmp_path / "copy")
    fields = archive.read_archive(copy / "last.npz").record[part]
    change_record(copy, {part: {**fields, **change}})
    found = command("predict", red_picture, "--checkpoint", copy).mistake()
    assert f"a checkpoint that describes its model, but {copy / 'last.npz'} does not" in found
    assert message in found


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", b"no archive at all"])
def test_a_file_that_is_no_checkpoint_is_named(command, red_picture, tmp_path, content):
    path = tmp_path / "model.npz"
    path.write_bytes(content)
    message = command("predict", red_picture, "--checkpoint", path).mistake()
    assert message.startswith("expected ")
    assert str(path) in message


def test_arrays_without_a_model_are_no_checkpoint(command, red_picture, tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, x=np.zeros(3))
    assert f"expected a Vision Transformer in {path}" in command("evaluate", path).mistake()


def test_a_missing_checkpoint_is_named(command, red_picture):
    message = command("predict", red_picture, "--checkpoint", "nowhere.npz").mistake()
    assert message == "expected a file or folder with a model, found none at nowhere.npz"


def test_weights_that_do_not_come_with_the_package_are_missed_clearly(
    command, red_picture, tmp_path, monkeypatch
):
    monkeypatch.setattr(archive, "_PACKAGED", tmp_path)
    for words in (["evaluate"], ["predict", red_picture], ["attention", red_picture, "--out", "x"]):
        assert "comes without trained weights" in command(*words).mistake()


def test_a_folder_that_cannot_be_written_to_is_found_before_anything_else(
    command, run_folder, red_picture, blocked, no_network
):
    model = ("--checkpoint", run_folder, "--out", blocked)
    for words in (
        ("train", "--data", "cifar10", "--out", blocked),
        ("evaluate", run_folder, "--out", blocked),
        ("predict", red_picture, *model),
        ("attention", red_picture, *model),
    ):
        message = command(*words).mistake()
        assert f"expected an output folder that can be written to, got {blocked}" in message


def test_a_folder_with_a_run_in_it_is_not_overwritten(command, run_folder):
    before = (run_folder / "config.json").read_bytes()
    message = command("train", "--out", run_folder).mistake()
    assert f"continue it with --resume {run_folder} or give another --out" in message
    assert (run_folder / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "vit_cifar_patch4"], "did you mean 'vit_cifar_patch4_32' or "),
        (["--model", "nonsense"], "unknown model 'nonsense'; `numpyvit models` lists all"),
        (["--teacher", "vit_cifar_patch4_99"], "the name of a model as --teacher, got vit_cifar"),
        (["--recipe", "tutorail"], "did you mean 'tutorial'?"),
        (["--data", "cifar"], "pictures, got 'cifar'; did you mean 'cifar10'? known: "),
        (["--data", "./nowhere"], "got none at ./nowhere"),
        (["--device", "gpu"], "expected device 'cpu' or 'cuda', got 'gpu'"),
        (["--data-dir", "x"], "it is for 'cifar10'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(command, elsewhere, words, message):
    assert message in command("train", *words).mistake()
    assert list(elsewhere.iterdir()) == []


def test_a_model_that_is_not_there_is_answered_with_the_nearest(command):
    message = command("models", "vit_tinny_patch16_224").mistake()
    assert "did you mean 'vit_tiny_patch16_224' or " in message
    assert len(message) < 200


def test_a_block_that_the_model_has_not_is_refused(command, run_folder, red_picture):
    words = ("attention", red_picture, "--checkpoint", run_folder, "--out", "x", "--block", 2)
    assert command(*words).mistake() == "expected --block from -2 to 1, got 2"


def test_a_batch_larger_than_the_data_is_refused(command, pictures, tiny_variant, elsewhere):
    words = ("train", "--data", pictures, "--model", tiny_variant, "--batch-size", 25)
    message = command(*words).mistake()
    assert "at most the 24 pictures of the data set, got 25" in message
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--train-images", 25, "--batch-size", 8), "at most the 24 training images"),
        (("--validation-split", 24), "expected to hold out 1 to 23 pictures, got 24"),
    ],
)
def test_more_images_than_there_are_are_refused(command, pictures, tiny_variant, words, message):
    result = command("train", "--data", pictures, "--model", tiny_variant, *words)
    assert message in result.mistake()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--batch-size", 25_001), "at most the 25000 training images, got 25001"),
        (("--train-images", 8), "at most the 8 training images, got 64"),
        (("--validation-split", 25_000), "--validation-split below 25000, got 25000"),
        (
            ("--model", "vit_tiny_patch16_224"),
            "29,000 of 224x224 pixels (4.4 GB); make fewer with --train-images, 9,286 at most",
        ),
        (
            ("--model", "vit_tiny_patch16_224", "--train-images", 9_287),
            "13,287 of 224x224 pixels (2.0 GB)",
        ),
        (
            ("--model", "vit_tiny_patch16_224", "--validation-split", 5_000),
            "25,000 of 224x224 pixels (3.8 GB); make fewer with --train-images, 8,286 at most",
        ),
    ],
)
def test_too_many_pictures_are_refused_before_one_is_made(
    command, monkeypatch, elsewhere, words, message
):
    monkeypatch.setattr(run_data, "load_dataset", pytest.fail)
    assert message in command("train", *words).mistake()
    assert list(elsewhere.iterdir()) == []


def test_a_gpu_that_cannot_be_used_is_missed_before_the_data_is_read(
    command, run_folder, no_network, monkeypatch
):
    monkeypatch.setitem(sys.modules, "cupy", None)  # its import fails
    for words in (["train", "--data", "cifar10"], ["evaluate", run_folder, "--data", "cifar10"]):
        message = command(*words, "--device", "cuda").mistake()
        assert message.startswith("device 'cuda' needs cupy, which is not installed")


def test_a_folder_without_a_run_is_not_resumed(command, tmp_path):
    message = command("train", "--resume", tmp_path).mistake()
    assert f"expected a run folder with a config.json, found none in {tmp_path}" in message


def test_a_run_keeps_its_settings_when_it_is_resumed(command, run_folder):
    words = ("--epochs", 9, "--data", "shapes", "--seed", 0, "--workers", 1)
    message = command("train", "--resume", run_folder, *words).mistake(status=2)
    assert "so --epochs, --seed cannot be given with it" in message
    assert "--workers" in message.partition("only")[2]


def test_a_run_without_a_checkpoint_cannot_be_used_yet(command, run_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((run_folder / "config.json").read_bytes())
    assert "was stopped before its first one" in command("evaluate", tmp_path).mistake()


def test_the_traceback_is_there_for_those_who_ask(program, tmp_path):
    words = ("predict", "x.png", "--checkpoint", tmp_path / "nowhere.npz")
    plain = program(*words)
    assert "found none at" in plain.mistake()
    asked = program(*words, NUMPYVIT_TRACEBACK="1")
    assert asked.status == 1
    assert "Traceback" in asked.err


@pytest.mark.parametrize("kind", [TypeError, RuntimeError])
def test_a_fault_of_the_program_says_how_to_see_where_it_is(kind):
    hint = "(set NUMPYVIT_TRACEBACK=1 to see where)"
    assert errors.describe(kind("unhashable type: 'list'")).endswith(f"'list' {hint}")
    assert errors.describe(kind()) == f"{kind.__name__} {hint}"
    for mistake in (kind("[ViT] expected text, got 3"), ValueError("expected 3"), OSError("full")):
        assert hint not in errors.describe(mistake)


def test_a_reader_who_leaves_is_no_error(repository):
    process = subprocess.Popen(
        [sys.executable, "-m", "numpyvit", "models"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(repository)},
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def test_a_full_disk_is_said_with_what_to_do():
    message = errors.describe(OSError(errno.ENOSPC, "No space left on device"))
    assert "the disk is full; make some, then repeat" in message
    assert "--resume" in message
