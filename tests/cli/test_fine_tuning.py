"""`numpyvit train --weights`: what it takes, says and refuses."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from numpyvit.models import Labelling, VisionTransformer, load_model, save_model
from numpyvit.models.variants import VARIANTS
from numpyvit.train import fingerprint

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

WORDS = ("--epochs", 2, "--batch-size", 8, "--workers", 1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, tiny_variant):
    """A model of another task, in a file."""
    config = VARIANTS[tiny_variant].replace(num_classes=5, final_norm=True)
    model = VisionTransformer(config, rng=np.random.default_rng(3))
    path = tmp_path_factory.mktemp("weights") / "source.npz"
    save_model(path, tiny_variant, model, Labelling(class_names=tuple("abcde")))
    return path


@pytest.fixture(scope="module")
def tuned(request, weights, pictures, tmp_path_factory):
    """`tuned(tune)`: the folder of a finished run and what the command said."""
    call = request.getfixturevalue("command_once")
    runs = {}

    def run(tune):
        if tune not in runs:
            folder = tmp_path_factory.mktemp("runs") / tune.replace(":", "-")
            words = ("train", "--weights", weights, "--data", pictures, "--tune", tune)
            runs[tune] = folder, call(*words, *WORDS, "--out", folder)
        return runs[tune]

    return run


@pytest.fixture(scope="module")
def command_once():
    """The command for fixtures that outlive a test."""
    from cli.conftest import call

    return call


@pytest.mark.parametrize("tune", ["all", "last:1", "head"])
def test_a_model_of_another_task_is_tuned(tune, tuned, weights):
    folder, result = tuned(tune)
    assert result.status == 0, result.err
    saved = load_model(folder / "last.npz")
    assert saved.labelling.class_names == ("blue", "green", "red")
    assert saved.model.config.num_classes == 3
    assert saved.preprocessing["size"] == 16
    assert saved.preprocessing["upright"] is True
    assert (folder / "features.npz").exists() == (tune == "head")
    for name in ("curves", "samples", "attention"):
        assert (folder / f"{name}.png").exists()


def test_the_configuration_says_where_the_weights_lie_and_which_they_are(tuned, weights):
    config = json.loads((tuned("last:1")[0] / "config.json").read_text())
    assert config["weights"] == str(weights)
    assert config["weights_sha256"] == fingerprint(weights)
    assert (config["tune"], config["recipe_name"]) == ("last:1", "finetune")
    assert config["recipe"]["mean"] == config["preprocessing"]["mean"]


def test_the_plan_says_what_is_trained_on_what(tuned, weights):
    _, result = tuned("last:1")
    assert re.search(rf"^weights +{re.escape(str(weights))}$", result.err, re.MULTILINE)
    assert re.search(
        r"^trained +last:1: 3,\d\d\d parameters, layer decay 0.75$", result.err, re.MULTILINE
    )
    assert re.search(r"^pictures +largest central square to 16 x 16", result.err, re.MULTILINE)
    assert re.search(r"^trained +head: 51 parameters$", tuned("head")[1].err, re.MULTILINE)


def test_what_was_concluded_from_the_weights_is_said_and_can_be_corrected(
    command, weights, pictures, tmp_path
):
    words = ("train", "--weights", weights, "--data", pictures, "--set", "num_heads=4")
    result = command(*words, *WORDS, "--out", tmp_path / "run")
    assert result.status == 0, result.err
    assert re.search(r"^asked for +num_heads=4$", result.err, re.MULTILINE)
    assert result.err.count("short side to") + result.err.count("largest central square") == 1
    assert load_model(tmp_path / "run" / "last.npz").model.config.num_heads == 4


def test_a_probe_says_how_many_pictures_have_features_computed(tuned):
    _, result = tuned("head")
    assert "features (training): 24 pictures" in result.err
    assert "features (validation): 12 pictures" in result.err
    assert "on augmented images" not in result.out
    assert "on augmented images" in tuned("all")[1].out


@pytest.mark.parametrize("next_command", ["predict", "evaluate"])
def test_what_was_tuned_is_used_like_any_run(next_command, command, tuned, red_picture):
    folder, _ = tuned("all")
    words = ["evaluate", folder] if next_command == "evaluate" else None
    result = command(*(words or ["predict", red_picture, "--checkpoint", folder]))
    assert result.status == 0, result.err


def test_a_tuned_run_is_resumed_without_its_weights(command, tuned, tmp_path):
    copy = shutil.copytree(tuned("last:1")[0], tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text()) | {"weights": "gone.npz"}
    (copy / "config.json").write_text(json.dumps(config))
    result = command("train", "--resume", copy)
    assert result.status == 0, result.err
    assert "finished before" in result.err


def test_pictures_are_held_out_of_the_training_pictures(command, weights, pictures, tmp_path):
    words = ("train", "--weights", weights, "--data", pictures, "--validation-split", 6)
    result = command(*words, *WORDS, "--train-images", 16, "--out", tmp_path / "run")
    assert result.status == 0, result.err
    assert "16 training images, 6 held out for validation" in result.err


def test_a_photo_in_a_folder_without_splits_is_cut_as_the_weights_say(command, weights, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (30, 40, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{number}.jpg")
    words = ("train", "--weights", weights, "--data", tmp_path / "mine", "--image-size", 32)
    result = command(*words, *WORDS, "--out", tmp_path / "run")
    assert result.status == 0, result.err
    assert "18 training images, 2 test images, 2 classes" in result.err
    assert load_model(tmp_path / "run" / "last.npz").model.config.image_size == 32


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "vit_tiny_patch16_224"), "expected --weights or --model, got both"),
        (("--tune", "last:3"), "expected last:1 to last:2, the model's blocks, got last:3"),
        (("--tune", "head", "--recipe", "finetune"), "take --recipe probe"),
        (("--layer-decay", 1.5), "expected layer_decay <= 1, got 1.5"),
        (("--batch-size", 25), "at most the 24 pictures of the data set, got 25"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    command, weights, pictures, elsewhere, words, message
):
    result = command("train", "--weights", weights, "--data", pictures, *words)
    assert message in result.mistake()
    assert list(elsewhere.iterdir()) == []


def test_tuning_needs_weights(command):
    assert "expected --weights FILE with --tune" in command("train", "--tune", "head").mistake()


def test_fine_tuning_needs_pictures_to_be_named(command, weights):
    assert (
        "expected --data with --weights, got none"
        in command("train", "--weights", weights).mistake()
    )


def test_a_part_that_cannot_be_tuned_is_a_mistake_of_the_command_line(command, weights):
    message = command("train", "--weights", weights, "--tune", "last").mistake(status=2)
    assert "--tune: expected 'all', 'head' or 'last:N' with N blocks, got 'last'" in message


def test_a_run_that_is_resumed_takes_no_weights(command, tuned, weights):
    words = ("train", "--resume", tuned("all")[0], "--weights", weights, "--tune", "head")
    assert "so --weights, --tune cannot be given with it" in command(*words).mistake(status=2)


def test_one_class_is_not_enough(command, weights, tmp_path, elsewhere):
    (tmp_path / "mine" / "cat").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(tmp_path / "mine" / "cat" / "1.png")
    message = command("train", "--weights", weights, "--data", tmp_path / "mine").mistake()
    assert "expected at least 2 classes, one sub-folder each, got 1" in message
    assert list(elsewhere.iterdir()) == []


def test_weights_that_are_not_there_are_named(command, pictures, elsewhere):
    message = command("train", "--weights", "nowhere.pth", "--data", pictures).mistake()
    assert "nowhere.pth" in message
    assert list(elsewhere.iterdir()) == []
