"""Masked autoencoders by command: pre-training, fine-tuning, and what else takes their runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.conftest import Command, Result, call
from tolerances import assert_close, assert_same_bits

from numpyvit.cli import run_data, train
from numpyvit.data import ArrayDataset, Preprocessing
from numpyvit.models import VARIANTS, MAEConfig, ViTConfig, load_model
from numpyvit.train import RunConfig, recipe
from numpyvit.weights import load_pretrained

pytest.importorskip("PIL.Image", reason="Pillow is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")

NAME = "mae_vit_test_patch4_16"
CONFIG = MAEConfig(
    encoder=ViTConfig(
        image_size=16, patch_size=4, num_classes=0, embed_dim=16, depth=2, num_heads=2
    ),
    decoder_embed_dim=8,
    decoder_depth=1,
    decoder_num_heads=2,
)
WORDS = ("--epochs", 1, "--batch-size", 8, "--workers", 1)
FIXTURES = Path(__file__).resolve().parents[1] / "weights" / "fixtures"


@pytest.fixture(autouse=True, scope="module")
def variant() -> Any:
    """The name of a masked autoencoder of two small blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, NAME, CONFIG)
        yield


@pytest.fixture(scope="module")
def pretrained(
    pictures: Path, variant: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    """The folder of a finished run, not to be written to, and what the command said."""
    folder = tmp_path_factory.mktemp("runs") / "mae"
    words = ("train", "--model", NAME, "--data", pictures, *WORDS, "--epochs", 2, "--out", folder)
    return folder, call(*words)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without their pictures, which take longer than the training."""
    monkeypatch.setattr(train, "write_pictures", lambda trainer: [])


@pytest.fixture
def folder(pretrained: tuple[Path, Result]) -> Path:
    return pretrained[0]


def test_a_run_has_losses_without_accuracies_and_pictures_of_what_is_drawn(
    pretrained: tuple[Path, Result],
) -> None:
    folder, result = pretrained
    assert result.status == 0, result.err
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["val_accuracy"] for row in rows] == [row["train_accuracy"] for row in rows]
    assert [row["val_accuracy"] for row in rows] == [None, None]
    files = {path.name for path in folder.glob("*.png")}
    assert files == {"curves.png", "samples.png", "reconstructions.png"}
    assert "accuracy" not in result.err + result.out
    assert re.search(r"^epoch +2/2  train loss \d\.\d{4}  validation loss \d", result.err, re.M)
    assert "12 test images, whose classes are not used" in result.err
    assert "recipe        mae: 2 epochs" in result.err
    assert re.search(r"^train loss +\d\.\d{4} \(on augmented images\)$", result.out, re.M)
    assert re.search(r"^test loss +\d\.\d{4} \(best \d\.\d{4}, epoch \d\)$", result.out, re.M)
    assert re.search(rf"train --weights {folder} --data \S+colours$", result.out, re.M)
    assert "numpyvit evaluate" not in result.out


@pytest.mark.usefixtures("undrawn")
def test_a_finished_run_is_resumed(command: Command, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    result = command("train", "--resume", copy)
    assert result.status == 0, result.err
    assert "finished before" in result.err


def test_a_loss_that_is_missing_is_named(command: Command, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    lines = (copy / "metrics.jsonl").read_text().splitlines()
    row = json.loads(lines[0]) | {"val_loss": None}
    (copy / "metrics.jsonl").write_text("\n".join([json.dumps(row), *lines[1:], ""]))
    assert (
        "expected numbers for val_loss of epoch 1" in command("train", "--resume", copy).mistake()
    )


@pytest.mark.parametrize("tune", ["all", "head"])
@pytest.mark.usefixtures("undrawn")
def test_the_encoder_is_fine_tuned(
    command: Command, folder: Path, pictures: Path, tmp_path: Path, tune: str
) -> None:
    words = ("train", "--weights", folder, "--data", pictures, "--tune", tune)
    result = command(*words, *WORDS, "--out", tmp_path / "run")
    assert result.status == 0, result.err
    assert "left out" in result.err
    saved, before = load_model(tmp_path / "run" / "last.npz"), load_model(folder / "last.npz")
    assert saved.model.config == CONFIG.encoder.replace(num_classes=3)
    assert saved.labelling.mean == before.labelling.mean
    assert saved.labelling.class_names == ("blue", "green", "red")
    same = np.array_equal(
        saved.model.blocks[0].norm1.bias.data, before.model.blocks[0].norm1.bias.data
    )
    assert same == (tune != "all")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe_name"] == ("probe" if tune == "head" else "finetune")
    assert command("evaluate", tmp_path / "run").status == 0


@pytest.mark.usefixtures("undrawn")
def test_it_can_be_fine_tuned_as_it_would_be_trained_from_nothing(
    command: Command, folder: Path, pictures: Path, tmp_path: Path
) -> None:
    words = ("train", "--weights", folder, "--data", pictures, "--recipe", "default")
    result = command(*words, *WORDS, "--set", "pooling=avg", "--out", tmp_path / "run")
    assert result.status == 0, result.err
    assert "crops from a border of 2" in result.err
    assert load_model(tmp_path / "run" / "last.npz").model.config.pooling == "avg"


@pytest.mark.usefixtures("undrawn")
def test_others_files_with_a_decoder_are_fine_tuned(
    command: Command, pictures: Path, tmp_path: Path
) -> None:
    path = FIXTURES / "mae_pretraining" / "weights.pth"
    words = ("train", "--weights", path, "--data", pictures, "--set", "num_heads=2")
    result = command(*words, *WORDS, "--out", tmp_path / "run")
    assert result.status == 0, result.err
    config = load_model(tmp_path / "run" / "last.npz").model.config
    assert (config.embed_dim, config.depth, config.num_classes) == (8, 2, 3)


@pytest.mark.parametrize("name", ["evaluate", "predict"])
def test_what_needs_classes_says_that_it_has_to_be_fine_tuned(
    command: Command, folder: Path, red_picture: Path, name: str
) -> None:
    words = (name, folder) if name == "evaluate" else (name, red_picture, "--weights", folder)
    message = command(*words).mistake()
    assert "expected a model that knows classes, got one without a head" in message
    assert "`numpyvit train --weights` gives it a head" in message


def test_features_and_attention_are_those_of_the_encoder(
    command: Command, folder: Path, red_picture: Path, tmp_path: Path
) -> None:
    out = tmp_path / "features.npz"
    result = command("features", red_picture, "--weights", folder, "--out", out)
    assert result.status == 0, result.err
    assert "left out  the decoder of a masked autoencoder (depth 1, width 8), which" in result.err
    found = load_pretrained(folder)
    pixels = found.preprocessing(found.preprocessing.load(red_picture))[None]
    expected = load_model(folder / "last.npz").model.to_vit()(pixels)
    with np.load(out) as arrays:
        assert_close(arrays["features"], expected)
    for method in ("attention", "rollout", "heads"):
        words = ("attention", red_picture, "--weights", folder, "--method", method)
        assert command(*words, "--out", tmp_path / "maps").status == 0
    words = ("attention", red_picture, "--weights", folder, "--method", "relevance")
    assert "a model without classes" in command(*words, "--out", tmp_path / "maps").mistake()


@pytest.mark.parametrize("size", [(), ("--image-size", 32)])
def test_inspect_says_what_of_the_model_is_used(
    command: Command, folder: Path, size: tuple[Any, ...]
) -> None:
    words = " ".join(command("inspect", folder, *size).out.split())
    assert "left out the decoder of a masked autoencoder (depth 1, width 8), which" in words
    assert "drew the 75% of the patches that the encoder did not see" in words
    assert "classes none, there is no head" in words
    assert "recipe mae" in words


@pytest.mark.usefixtures("undrawn")
def test_the_models_fields_are_set_by_name(
    command: Command, pictures: Path, tmp_path: Path
) -> None:
    words = ("train", "--model", NAME, "--data", pictures, *WORDS, "--out", tmp_path / "run")
    changes = ("mask_ratio=0.5", "norm_pix=false", "depth=1", "decoder_depth=2")
    result = command(*words, *(word for change in changes for word in ("--set", change)))
    assert result.status == 0, result.err
    config = load_model(tmp_path / "run" / "last.npz").model.config
    assert config == CONFIG.replace(mask_ratio=0.5, norm_pix=False, depth=1, decoder_depth=2)
    message = command(*words, "--set", "encoder=3").mistake(status=2)
    assert "encoder cannot be set: set its fields, as in depth=6" in message
    message = command("train", "--model", NAME, "--set", "class_token=false").mistake()
    assert "class_token" in message


def test_pictures_as_small_as_the_models_are_not_enlarged(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    pixels = rng.integers(0, 256, (24, 3, 32, 32), np.uint8)
    data = ArrayDataset(pixels, np.arange(24) % 2)
    monkeypatch.setattr(run_data, "load_dataset", lambda *args, **kwargs: data)
    for size, shown in ((32, 32), (28, 32), (24, 27)):
        rule = Preprocessing(size=size, resize=size, mode="square", upright=True)
        settings = recipe("finetune", batch_size=4)
        config = RunConfig(data="cifar10", weights="w", preprocessing=rule, recipe=settings)
        seen, test = run_data.run_data(config)
        assert seen.image_shape == (3, shown, shown)
        assert test.image_shape == (3, size, size)
        if size == 32:
            assert_same_bits(seen.images(np.arange(24)), pixels)


def test_the_list_of_models_has_them(command: Command) -> None:
    lines = command("models", "mae_*").out.splitlines()
    assert len(lines) == 1 + 5
    assert re.search(
        r"mae_vit_base_patch16 +111,655,680 +9.781 G +224 +16 +768 +12[+]8 +12", lines[2]
    )


def test_a_run_that_knows_no_classes_cannot_teach(
    command: Command, folder: Path, pictures: Path, tmp_path: Path
) -> None:
    words = ("train", "--data", pictures, "--teacher", folder, *WORDS)
    words = (*words, "--out", tmp_path / "out")
    assert "got one without a head; fine-tune it first" in command(*words).mistake()
    assert not (tmp_path / "out").exists()


def test_inspect_says_that_what_is_opened_is_the_encoder(command: Command, folder: Path) -> None:
    out = " ".join(command("inspect", folder).out.split())
    assert f"model the encoder of {NAME}, " in out
    assert "the head reads" not in out
