from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit.explain import (
    Sheet,
    displayable,
    draw_attention,
    draw_confusion,
    draw_curves,
    draw_positions,
    draw_predictions,
    draw_samples,
    overlay,
    position_similarity,
)
from numpyvit.explain.draw import class_titles

pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[full]'")

NAMES = ("airplane", "a class with a name that is very much longer than a picture", "$x_ { $", "d")


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a PNG, which must be whole and the only file in its folder."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.endswith(b"IEND\xaeB`\x82")
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    return struct.unpack(">II", content[16:24])


def row(epoch: int, **changes: float | None) -> dict[str, float | None]:
    fields = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")
    return {"epoch": epoch, "step": 10 * epoch, **dict.fromkeys(fields, 1 / epoch), **changes}


def pixels(path: Path) -> np.ndarray:
    image = pytest.importorskip("matplotlib.image")
    return np.rint(image.imread(path)[..., :3] * 255).astype(np.uint8)


@pytest.mark.parametrize("count", [1, 2, 100])
def test_curves_are_drawn_from_one_row_and_from_many(tmp_path: Path, count: int) -> None:
    path = tmp_path / "curves.png"
    draw_curves([row(epoch) for epoch in range(1, count + 1)], path)
    width, height = size_of(path)
    assert width > 2 * height > 500


def test_curves_leave_gaps_where_numbers_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    gaps = {"val_loss": None, "val_accuracy": None}
    draw_curves([row(1, **gaps), row(2, train_loss=float("nan"))], path)
    size_of(path)
    draw_curves([row(1, **gaps)], path)
    size_of(path)


def test_curves_without_a_single_accuracy_have_no_axes_for_them(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    without = {"train_accuracy": None, "val_accuracy": None}
    draw_curves([row(1, **without), row(2, **without)], path)
    width = size_of(path)[0]
    draw_curves([row(1, **without), row(2)], path)
    assert size_of(path)[0] == 3 / 2 * width


def test_curves_without_rows_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected at least one row of metrics, got none"):
        draw_curves([], tmp_path / "curves.png")


@pytest.mark.parametrize(
    ("count", "shape"), [(1, (3, 32, 32)), (9, (1, 28, 28)), (3, (3, 300, 300))]
)
def test_samples_are_drawn_with_their_names(
    tmp_path: Path, rng: np.random.Generator, count: int, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "new" / "samples.png"
    draw_samples(rng.standard_normal((count, *shape)), np.arange(count) % 4, NAMES, path)
    width, height = size_of(path)
    assert width >= min(count, 8) * 100
    assert height >= -(-count // 8) * 100


def test_a_mixed_image_is_named_after_its_two_largest_shares(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    shares = np.array([[0.6, 0.1, 0.0, 0.3], [0, 0, 1, 0], [0.5, 0.5, 0, 0]], np.float32)
    first, second = (f"{NAMES[i]} {share}" for i, share in ((0, "60%"), (3, "30%")))
    titles = class_titles(shares, NAMES)
    assert titles == [[first, second], [NAMES[2]], [f"{NAMES[0]} 50%", f"{NAMES[1]} 50%"]]
    images, heights = rng.standard_normal((3, 3, 32, 32)), []
    for labels in (shares, shares.argmax(1)):
        draw_samples(images, labels, NAMES, tmp_path / "samples.png")
        heights.append(size_of(tmp_path / "samples.png")[1])
    assert heights[0] > heights[1]


def test_the_pixels_of_small_images_are_sharp_squares_of_their_own_colour(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "samples.png"
    images = rng.integers(0, 255, (1, 3, 32, 32), np.uint8)
    draw_samples(images, [0], NAMES, path)
    enlarged = images[0].transpose(1, 2, 0).repeat(4, 0).repeat(4, 1)
    drawn = pixels(path)
    tops = np.flatnonzero((drawn[:, 20] != 255).any(1))
    corners = [top for top in tops if (drawn[top, 14:142] == enlarged[0]).all()]
    assert corners
    assert_same_bits(drawn[corners[0] :][:128, 14:142], enlarged)


@pytest.mark.parametrize("true_labels", [None, [0, 1, 2, 3]])
@pytest.mark.parametrize("with_heads", [True, False])
@pytest.mark.parametrize("with_probabilities", [True, False])
def test_attention_is_drawn_with_and_without_labels(
    tmp_path: Path,
    rng: np.random.Generator,
    true_labels: list[int] | None,
    with_heads: bool,
    with_probabilities: bool,
) -> None:
    path = tmp_path / "attention.png"
    images = rng.standard_normal((4, 3, 32, 32)).astype(np.float32)
    attention = rng.random((4, 2, 8, 8) if with_heads else (4, 8, 8))
    predicted = rng.dirichlet(np.ones(4), 4) if with_probabilities else np.array([0, 2, 2, 1])
    draw_attention(images, attention, true_labels, predicted, NAMES, path)
    width, height = size_of(path)
    assert width > 4 * 180
    assert height > 2 * 180


def test_titles_are_green_where_right_and_red_where_wrong(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "attention.png"
    images = np.zeros((2, 3, 32, 32), np.uint8)
    draw_attention(images, np.ones((2, 8, 8)), [0, 3], [0, 0], NAMES, path)
    drawn = pixels(path)[30:78].astype(int)
    half = drawn.shape[1] // 2
    red_over_green = drawn[..., 0] - drawn[..., 1]
    assert red_over_green[:, :half].min() < -80 < red_over_green[:, half:].min()
    assert red_over_green[:, half:].max() > 80 > red_over_green[:, :half].max()


def test_a_map_brightens_its_patch_and_a_constant_one_is_even() -> None:
    black = np.zeros((2, 32, 32, 3), np.uint8)
    maps = np.full((2, 8, 8), 0.1)
    maps[0, 2, 5] = 0.3
    heated = overlay(black, maps).sum(-1).astype(int)
    brightest = np.argwhere(heated[0] == heated[0].max())
    assert ((brightest // 4) == [2, 5]).all()
    assert (heated[1] == heated[1, 0, 0]).all()


@pytest.mark.parametrize("classes", [1, 2, 10, 20, 100, 300])
def test_confusions_of_few_and_many_classes_are_drawn(
    tmp_path: Path, rng: np.random.Generator, classes: int
) -> None:
    path = tmp_path / "confusion.png"
    names = [f"{NAMES[i % 4]} {i}" for i in range(classes)]
    draw_confusion(rng.integers(0, 30, (classes, classes)), names, path)
    assert all(200 < side < 1700 for side in size_of(path))


def test_a_class_that_never_occurs_does_not_disturb_the_confusions(tmp_path: Path) -> None:
    path = tmp_path / "confusion.png"
    draw_confusion(np.zeros((4, 4), int), NAMES, path)
    size_of(path)
    with pytest.raises(ValueError, match=r"expected a matrix \(4, 4\), got shape \(3, 4\)"):
        draw_confusion(np.zeros((3, 4), int), NAMES, path)


def test_predictions_are_drawn_beside_their_picture(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "prediction.png"
    draw_predictions(rng.standard_normal((3, 40, 20)), NAMES, [0.7, 0.2, 0.1, 0.0], path)
    width, height = size_of(path)
    assert width > height > 200


@pytest.mark.parametrize("side", [1, 8, 14])
def test_similarities_of_positions_are_drawn(
    tmp_path: Path, rng: np.random.Generator, side: int
) -> None:
    path = tmp_path / "positions.png"
    draw_positions(position_similarity(rng.standard_normal((side * side, 12))), path)
    assert all(400 < edge < 1000 for edge in size_of(path))


def test_normalisation_is_undone_by_channel_and_what_lies_outside_is_cut_off() -> None:
    unit = np.linspace(0, 1, 3 * 4, dtype=np.float32).reshape(1, 3, 2, 2)
    mean, std = np.array([0.1, 0.5, 0.3]), np.array([0.2, 0.1, 0.4])
    normalised = (unit - mean[:, None, None]) / std[:, None, None]
    shown = displayable(normalised, mean, std)
    assert_same_bits(shown, np.rint(unit * 255).astype(np.uint8).transpose(0, 2, 3, 1))
    wild = np.array([-9, 9, np.nan, np.inf]).reshape(1, 1, 2, 2)
    assert displayable(wild)[0, ..., 0].tolist() == [[0, 255], [0, 255]]


def test_grey_images_get_three_equal_channels() -> None:
    shown = displayable(np.arange(4, dtype=np.uint8).reshape(1, 1, 2, 2))
    assert_close(shown, np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1).repeat(3, -1))
    with pytest.raises(ValueError, match=r"expected images \(B, 1 or 3, H, W\)"):
        displayable(np.zeros((1, 2, 4, 4)))


def test_counts_that_do_not_agree_are_an_error(tmp_path: Path) -> None:
    images, path = np.zeros((2, 3, 8, 8), np.uint8), tmp_path / "picture.png"
    with pytest.raises(ValueError, match="expected 2 labels, got 3"):
        draw_samples(images, [0, 1, 2], NAMES, path)
    with pytest.raises(ValueError, match="expected 2 attention, got 1"):
        draw_attention(images, np.ones((1, 2, 2)), None, [0, 1], NAMES, path)
    with pytest.raises(ValueError, match="expected at least one image, got none"):
        draw_samples(images[:0], [], NAMES, path)
    assert not path.exists()


DRAWINGS: list[Callable[[Path], None]] = [
    lambda path: draw_curves([row(1)], path),
    lambda path: draw_confusion(np.eye(4), NAMES, path),
    lambda path: draw_samples(np.zeros((1, 3, 8, 8), np.uint8), [0], NAMES, path),
    lambda path: draw_attention(
        np.zeros((1, 3, 8, 8), np.uint8), np.ones((1, 2, 2)), None, [0], NAMES, path
    ),
    lambda path: draw_predictions(np.zeros((3, 8, 8), np.uint8), NAMES, np.ones(4) / 4, path),
    lambda path: draw_positions(np.ones((2, 2, 2, 2)), path),
]


@pytest.mark.parametrize("draw", DRAWINGS)
def test_without_matplotlib_drawing_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: Callable[[Path], None]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"drawing pictures needs matplotlib, .*pip install"):
        draw(tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())


def test_a_picture_that_fails_leaves_the_older_one_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"older")
    sheet = Sheet(100, 100)
    sheet.figure.savefig = lambda *_, **__: 1 / 0
    with pytest.raises(ZeroDivisionError):
        sheet.save(path)
    assert path.read_bytes() == b"older"
    assert [entry.name for entry in tmp_path.iterdir()] == ["picture.png"]


def test_drawing_leaves_pyplot_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it would now fail
    draw_curves([row(1), row(2)], tmp_path / "curves.png")
    size_of(tmp_path / "curves.png")
