"""`numpyvit attention`: every method, its options, its files."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from tolerances import assert_same_bits

from numpyvit.data import imagenet_classes
from numpyvit.explain import (
    METHODS,
    MapOptions,
    class_attention,
    explain,
    measure_heads,
    model_filters,
    model_positions,
)
from numpyvit.train import class_probabilities
from numpyvit.weights import load_pretrained, write_safetensors

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

# What the model in `weights` is called in the names of files.
NAME = "vit-of-width-48-depth-2-4-heads-32-pixels-patches-of-8"


@pytest.fixture
def photos(pictures):
    """Pictures for more than one group."""
    return sorted((pictures / "test").rglob("*.png"))[:6]


def arrays_in(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_writes_its_maps_and_pictures(
    command, weights, photos, tmp_path, method, inputs_of
):
    words = ("attention", *photos, "--weights", weights, "--out", tmp_path)
    result = command(*words, "--method", method, "--save-arrays")
    assert result.status == 0, result.err
    written = [tmp_path / line for line in result.out.splitlines()]
    assert len(written) == 12
    assert all(path.is_file() for path in written)
    found, images = inputs_of(weights, photos)
    expected = np.concatenate([explain(found.model, images[i : i + 4], method) for i in (0, 4)])
    chances = class_probabilities(found.model, images)
    for index, path in enumerate(path for path in written if path.suffix == ".npz"):
        arrays = arrays_in(path)
        assert_same_bits(arrays[method], expected[index])
        assert arrays["class_index"] == chances[index].argmax()
        assert arrays["class_name"] == imagenet_classes()[chances[index].argmax()]


def test_options_reach_the_method(command, weights, red_picture, tmp_path, inputs_of):
    words = ("attention", red_picture, "--weights", weights, "--out", tmp_path, "--save-arrays")
    found, images = inputs_of(weights, [red_picture])
    for method, options, settings, name in (
        (
            "rollout",
            ("--heads", "min", "--discard", 0.4),
            {"heads": "min", "discard": 0.4},
            "rollout-heads-min-discard-0.4",
        ),
        (
            "attention",
            ("--heads", "max", "--block", 0),
            {"heads": "max", "block": 0},
            "attention-block-0-heads-max",
        ),
        (
            "relevance",
            ("--class", "goldfish", "--block", -2),
            {"target": 1, "block": -2},
            "relevance-goldfish-block-0",
        ),
        ("gradcam", ("--class", "n01443537"), {"target": 1}, "gradcam-goldfish"),
        ("gradient-rollout", ("--class", "1"), {"target": 1}, "gradient-rollout-goldfish"),
    ):
        result = command(*words, "--method", method, *options)
        assert result.status == 0, result.err
        arrays = arrays_in(tmp_path / f"0-{name}.npz")
        expected = explain(found.model, images, method, MapOptions(**settings))[0]
        assert_same_bits(arrays[method], expected)
        plain = explain(found.model, images, method)[0]
        assert not np.array_equal(expected, plain)
        if "target" in settings:
            assert (arrays["class_index"], arrays["class_name"]) == (1, "goldfish")


def test_several_methods_are_drawn_side_by_side(command, weights, red_picture, tmp_path):
    words = ("attention", red_picture, "--weights", weights, "--out", tmp_path, "--save-arrays")
    assert command(*words, "--method", "all").status == 0
    assert METHODS.keys() <= arrays_in(tmp_path / "0-all.npz").keys()
    result = command(*words, "--method", "rollout,relevance,rollout")
    assert result.out.splitlines() == [
        str(tmp_path / "0-rollout-relevance.npz"),
        str(tmp_path / "0-rollout-relevance.png"),
    ]
    found = arrays_in(tmp_path / "0-rollout-relevance.npz").keys() & METHODS.keys()
    assert found == {"rollout", "relevance"}


def test_the_heads_of_a_block_are_drawn_one_by_one(
    command, weights, red_picture, tmp_path, inputs_of
):
    words = ("attention", red_picture, "--weights", weights, "--out", tmp_path)
    result = command(*words, "--method", "heads", "--block", 0, "--save-arrays")
    assert result.status == 0, result.err
    found, images = inputs_of(weights, [red_picture])
    arrays = arrays_in(tmp_path / "0-heads-block-0.npz")
    assert_same_bits(arrays["heads"], class_attention(found.model, images, 0)[0])
    assert (tmp_path / "0-heads-block-0.png").is_file()


def test_of_a_map_only_the_patches_that_hold_its_mass_are_shown(
    command, weights, red_picture, tmp_path, inputs_of
):
    words = ("attention", red_picture, "--weights", weights, "--out", tmp_path, "--save-arrays")
    assert command(*words, "--mass", 0.3).status == 0
    found, images = inputs_of(weights, [red_picture])
    whole = explain(found.model, images, "attention")[0]
    shown = arrays_in(tmp_path / "0-attention-mass-0.3.npz")["attention"]
    kept = shown > 0
    assert 0 < kept.sum() < kept.size
    assert_same_bits(shown, whole * kept)
    assert shown.sum() >= 0.3 * whole.sum() > np.delete(shown[kept], shown[kept].argmin()).sum()


def test_distance_is_the_mean_over_all_pictures(command, weights, photos, tmp_path, inputs_of):
    words = ("attention", *photos, "none.png", "--weights", weights, "--out", tmp_path)
    result = command(*words, "--method", "distance", "--save-arrays")
    assert result.status == 1
    assert "none.png" in result.err
    found, images = inputs_of(weights, photos)
    arrays = arrays_in(tmp_path / f"{NAME}-distance.npz")
    expected = measure_heads(found.model, images)
    for name in ("distance", "entropy"):
        assert np.allclose(arrays[name], getattr(expected, name))
    assert (tmp_path / f"{NAME}-distance.png").is_file()


def test_a_model_s_own_pictures_need_no_photo(command, weights, red_picture, tmp_path):
    words = ("attention", "--weights", weights, "--out", tmp_path, "--save-arrays", "--method")
    model = load_pretrained(weights).model
    assert command(*words, "positions").status == 0
    similarity = arrays_in(tmp_path / f"{NAME}-positions.npz")["similarity"]
    assert_same_bits(similarity, model_positions(model).maps)
    assert command(*words, "filters").status == 0
    expected = model_filters(model).components
    assert_same_bits(arrays_in(tmp_path / f"{NAME}-filters.npz")["components"], expected)
    assert {path.name for path in tmp_path.glob("*.png")} == {
        f"{NAME}-positions.png",
        f"{NAME}-filters.png",
    }
    message = command(*words, "filters", red_picture).mistake()
    assert message == "expected no picture with --method filters, got 1"


def test_a_model_without_classes_has_maps_too(command, red_picture, tmp_path, small_state):
    path = tmp_path / "headless.safetensors"
    state = small_state
    write_safetensors(path, {k: v for k, v in state.items() if not k.startswith("head.")})
    words = ("attention", red_picture, "--weights", path, "--out", tmp_path)
    assert command(*words).status == 0
    assert command(*words, "--method", "relevance", "--class", "5").status == 0
    result = command(*words, "--method", "relevance")
    assert result.status == 1
    assert "without classes" in result.err
    result = command(*words, "--method", "all", "--save-arrays")
    assert result.status == 0
    assert "without classes there is no gradcam, gradient-rollout, relevance" in result.err
    found = arrays_in(tmp_path / "0-attention-rollout.npz").keys() - {"picture"}
    assert found == {"attention", "rollout"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--method", "rollot"), "unknown method 'rollot'; did you mean 'rollout'?"),
        (("--method", "rollout,heads"), "heads makes a drawing of its own; give it alone"),
        (("--discard", "1"), "expected a number from 0 to below 1"),
        (("--heads", "median"), "invalid choice: 'median'"),
    ],
)
def test_a_method_that_makes_no_sense_has_status_two(command, red_picture, words, message):
    assert message in command("attention", red_picture, "--out", "x", *words).mistake(status=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--class", "cat"), "--class has no effect with --method attention; it is for gradient-"),
        (("--method", "relevance", "--discard", 0.5), "--discard has no effect with --method rel"),
        (("--method", "gradcam", "--heads", "max"), "it is for attention, rollout"),
        (("--method", "distance", "--block", 1), "--block has no effect with --method distance"),
        (("--method", "relevance", "--class", "hors"), "no class is called 'hors'; did you mean"),
        (("--method", "relevance", "--class", "10"), "expected a class from 0 to 9, got 10"),
        (("--method", "rollout", "--block", 4), "expected --block from -4 to 3, got 4"),
    ],
)
def test_an_option_without_effect_is_refused(command, red_picture, words, message):
    words = ("attention", red_picture, "--out", "x", *words)
    assert message in command(*words).mistake()


def test_pictures_are_needed_for_maps(command):
    message = command("attention", "--out", "x", "--method", "rollout").mistake()
    assert message == "expected at least one picture with --method rollout, got none"


def test_without_matplotlib_the_arrays_are_written(
    command, weights, red_picture, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "matplotlib.cm", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    words = ("attention", red_picture, "--weights", weights, "--out", tmp_path)
    result = command(*words, "--method", "rollout", "--save-arrays")
    assert result.status == 0
    assert result.out == f"{tmp_path / '0-rollout.npz'}\n"
    assert "only the arrays are written" in result.err
    assert command(*words, "--method", "rollout").status == 1
