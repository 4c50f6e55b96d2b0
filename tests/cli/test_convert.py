"""`numpyvit convert`: the same numbers under other names."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from tolerances import assert_same_bits

from numpyvit.weights import TARGETS

ENDINGS = {"hugging-face": "", "google": ".npz", "numpyvit": ".npz"}


@pytest.mark.parametrize("target", TARGETS)
def test_a_round_trip_keeps_every_bit(command, weights, red_picture, inputs_of, tmp_path, target):
    other = tmp_path / f"other{ENDINGS.get(target, '.safetensors')}"
    result = command("convert", weights, "--to", target, "--out", other)
    assert result.status == 0, result.err
    files = sorted(other.iterdir()) if other.is_dir() else [other]
    assert sorted(line.split()[0] for line in result.out.splitlines()) == list(map(str, files))
    back = tmp_path / "back.safetensors"
    assert command("convert", other, "--to", "timm", "--out", back).status == 0
    first, second = (inputs_of(path, [red_picture])[0].model for path in (weights, back))
    assert first.config == second.config
    for name, array in first.state_dict().items():
        assert_same_bits(second.state_dict()[name], array)


def test_a_trained_run_can_be_given_to_others(command, run_folder, tmp_path):
    result = command("convert", run_folder, "--to", "numpyvit", "--out", tmp_path / "run.npz")
    assert result.status == 0, result.err
    shown = command("inspect", tmp_path / "run.npz").out
    assert "3: blue, green, red" in shown


def test_the_input_is_not_written_over(command, weights, tmp_path):
    copy = tmp_path / "copy.safetensors"
    shutil.copy(weights, copy)
    before = copy.read_bytes()
    message = command("convert", copy, "--to", "timm", "--out", copy).mistake()
    assert f"expected --out to be another file than the one that is read, got {copy}" in message
    assert copy.read_bytes() == before


def test_what_cannot_be_expressed_leaves_no_file(command, weights, tmp_path):
    out = tmp_path / "new" / "out.npz"
    state = {"nothing": np.zeros(3)}
    np.savez(tmp_path / "in.npz", **state)
    assert command("convert", tmp_path / "in.npz", "--to", "timm", "--out", out).status == 1
    result = command("convert", weights, "--to", "timm", "--out", out.with_suffix(".bin"))
    assert result.status == 1
    assert "ends in .safetensors or .npz" in result.err
    assert not out.parent.exists()


def test_what_a_target_cannot_hold_is_refused_with_the_reason(command, run_folder, tmp_path):
    out = tmp_path / "new" / "out.npz"
    message = command("convert", run_folder, "--to", "torchvision", "--out", out).mistake()
    assert "expected a model that torchvision can hold, got one with final_norm=false" in message
    assert not out.parent.exists()


@pytest.mark.parametrize(
    ("target", "name", "message"),
    [
        ("google", "x.safetensors", "expected --out for google that ends in .npz, got "),
        ("numpyvit", "x.safetensors", "expected --out for numpyvit that ends in .npz, got "),
        ("hugging-face", "x.safetensors", "expected a folder to write for hugging-face, got "),
        ("torchvision", "x.pth", "safetensors.torch.load_file reads .safetensors for load_state_"),
    ],
)
def test_an_ending_that_the_target_does_not_open_is_refused(
    command, weights, tmp_path, target, name, message
):
    out = tmp_path / "new" / name
    assert message in command("convert", weights, "--to", target, "--out", out).mistake()
    assert not out.parent.exists()


def test_a_folder_may_have_a_dot_in_its_name(command, weights, tmp_path):
    out = tmp_path / "vit-v1.5"
    assert command("convert", weights, "--to", "hugging-face", "--out", out).status == 0


def test_an_unknown_target_has_status_two(command, weights):
    message = command("convert", weights, "--to", "keras", "--out", "x").mistake(status=2)
    assert "invalid choice: 'keras'" in message
