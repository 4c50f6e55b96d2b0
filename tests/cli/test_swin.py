"""A Swin Transformer in every command: trained by name, and opened from others' files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

SWIN = ("--model", "swin_cifar_patch2_32", "--set", "depths=1,1", "--set", "embed_dim=8")
FIXTURES = Path(__file__).resolve().parents[1] / "weights" / "fixtures"


@pytest.fixture(scope="module")
def swin_run(pictures, tmp_path_factory):
    """A run folder; not to be written to."""
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from cli.conftest import call

    folder = tmp_path_factory.mktemp("runs") / "swin"
    done = call(
        *("train", "--data", pictures, *SWIN, "--epochs", 2, "--batch-size", 8, "--lr", 0.01),
        *("--workers", 1, "--out", folder),
    )
    assert done.status == 0, done
    assert "attention.png" in done.out
    return folder


def test_a_run_has_its_settings_and_pictures(swin_run):
    config = json.loads((swin_run / "config.json").read_text())
    assert config["model_settings"] == {"depths": [1, 1], "embed_dim": 8}
    assert {path.name for path in swin_run.glob("*.png")} == {
        *("attention.png", "curves.png", "samples.png")
    }


def test_a_finished_run_is_resumed_and_evaluated(command, swin_run):
    assert command("train", "--resume", swin_run).status == 0
    assert "accuracy" in command("evaluate", swin_run, "--out", "pictures").out


def test_pictures_are_named_and_described(command, swin_run, red_picture):
    assert "%" in command("predict", red_picture, "--weights", swin_run).out
    for pooling in ("head", "mean"):
        options = ("--out", f"{pooling}.npz", "--pooling", pooling)
        assert command("features", red_picture, "--weights", swin_run, *options).status == 0
    head, mean = (np.load(f"{name}.npz")["features"] for name in ("head", "mean"))
    assert head.shape == (1, 16)
    np.testing.assert_array_equal(head, mean)
    options = ("--out", "token.npz", "--pooling", "token")
    message = command("features", red_picture, "--weights", swin_run, *options).mistake()
    assert "expected a model with a class token" in message


@pytest.mark.parametrize("methods", [(), ("--method", "all"), ("--method", "gradcam")])
def test_its_map_is_gradcam(command, swin_run, red_picture, methods):
    done = command("attention", red_picture, "--weights", swin_run, "--out", "maps", *methods)
    assert done.out.splitlines() == ["maps/0-gradcam.png"]


@pytest.mark.parametrize("method", ["attention", "rollout", "relevance", "heads", "distance"])
def test_maps_of_attention_are_refused_with_what_to_do(command, swin_run, red_picture, method):
    options = ("--out", "maps", "--method", method)
    message = command("attention", red_picture, "--weights", swin_run, *options).mistake()
    assert not Path("maps").exists()
    assert "not between all tokens of the image; take the method gradcam" in message


def test_an_option_for_other_maps_is_not_passed_over(command, swin_run, red_picture):
    options = ("--weights", swin_run, "--out", "maps", "--heads", "max")
    message = command("attention", red_picture, *options).mistake()
    assert "--heads has no effect with --method gradcam" in message


def test_inspect_tells_stages_and_windows(command, swin_run):
    out = " ".join(command("inspect", swin_run).out.split())
    assert "1-1 blocks, windows of 4 x 4 tokens, width 8, 2-4 heads, MLP of 32 (gelu_tanh)" in out
    assert "reads the mean of the patches" in out


def test_a_run_is_converted_to_timms_names_and_back(command, swin_run, red_picture):
    done = command("convert", swin_run, "--to", "timm", "--out", "swin.safetensors")
    assert "computes gelu, this one gelu_tanh" in done.err
    guesses = [
        command("predict", red_picture, "--weights", weights, "--json").out
        for weights in (swin_run, "swin.safetensors")
    ]
    assert guesses[0] == guesses[1]
    message = command("convert", swin_run, "--to", "torchvision", "--out", "s.npz").mistake()
    assert message == "expected a ViT for torchvision, got a swin; take timm or numpyvit"


@pytest.mark.parametrize(
    ("file", "title"),
    [
        ("swin_timm/model", "timm"),
        ("swin_torchvision/swin.pth", "torchvision"),
        ("swin_hf/model", "Hugging Face"),
        ("swin_microsoft/swin_tiny_patch2_window4_16.pth", "Microsoft"),
    ],
)
def test_files_of_every_library_are_opened_at_any_size(command, red_picture, file, title):
    report = command("inspect", FIXTURES / file, "--json", "--image-size", 32)
    facts = json.loads(report.out)
    assert facts["report"]["family"] == f"{title} (Swin): by its names"
    assert facts["config"]["image_size"] == facts["preprocessing"]["size"] == 32
    named = command("predict", red_picture, "--weights", FIXTURES / file, "--image-size", 32)
    assert len(named.out.splitlines()) == 6
    set_window = ("--set", "window_size=3", "--image-size", 32)
    assert "3 bias tables" in command("inspect", FIXTURES / file, *set_window).out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("depths=2,2", "depths: expected depths=(2, 1), as the arrays in"),
        ("num_heads=2", "num_heads: expected whole numbers, one a stage, as num_heads, got 2"),
        ("window_size=0", "window_size: 'window_size' must be positive"),
        ("pooling=map", "pooling: unknown option 'pooling'"),
    ],
)
def test_a_setting_that_cannot_be_is_named(command, setting, message):
    found = command("inspect", FIXTURES / "swin_timm/model", "--set", setting).mistake(status=2)
    assert found.startswith(f"argument --set: {message}")


@pytest.mark.parametrize("tune", ["last:2", "head"])
def test_a_swin_is_fine_tuned(command, pictures, tune):
    weights = FIXTURES / "swin_timm/model"
    options = ("--epochs", 1, "--batch-size", 8, "--workers", 1, "--tune", tune)
    done = command("train", "--weights", weights, "--data", pictures, *options, "--out", "run")
    assert done.status == 0, done
    assert "attention.png" in done.out
    assert command("evaluate", "run").status == 0


def test_positions_inside_windows_are_said_not_to_be_drawn(command, swin_run):
    words = ("attention", "--weights", swin_run, "--method", "positions", "--out", "new")
    assert "inside its windows alone, which are not drawn" in command(*words).mistake()
    assert not Path("new").exists()
