"""Pictures of pictures: training samples, attention maps, predictions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numpyvit.backend import Array, to_numpy
from numpyvit.explain.attention import fuse_heads
from numpyvit.explain.sheet import (
    BLUE,
    GAP,
    INK,
    LINE,
    QUIET,
    RIGHT,
    WRONG,
    Channels,
    check_count,
    displayable,
    fitted,
    grid,
    magnified,
    overlay,
)

Path = str | os.PathLike[str]
_PHOTO, _BAR = 320, 30  # pixels: the side of the picture beside predictions, a bar's row
_NAMES, _BARS, _PERCENTS = 230, 240, 56  # widths of the columns


class Title(NamedTuple):
    """Lines over an image, and their colour."""

    lines: list[str]
    color: str = INK


def draw_samples(
    images: Array,
    labels: ArrayLike,
    class_names: Sequence[str],
    path: Path,
    *,
    mean: Channels = 0.5,
    std: Channels = 0.5,
    title: str = "Training images as the model sees them",
) -> None:
    """A grid of images (B, C, H, W), each with the name of its class, as a PNG at `path`.

    `labels` are classes (B,) or shares of them (B, classes), of which the largest two are named;
    without `class_names` none is. Floats are un-normalised with `mean` and `std`, uint8 is shown as
    it is.
    """
    pixels = magnified(displayable(images, mean, std), 128)
    titles = class_titles(np.asarray(labels), class_names)
    check_count("draw_samples", len(pixels), labels=len(titles))
    height, width = pixels.shape[1:3]
    lines = max(map(len, titles), default=1)
    sheet, places = grid(len(pixels), (width, height + lines * LINE + 4), columns=8, heading=title)
    for picture, title_lines, (left, top) in zip(pixels, titles, places, strict=True):
        sheet.image(picture, left, top)
        for number, line in enumerate(title_lines):
            place = left + width / 2, top + height + 3 + number * LINE
            sheet.text(line, *place, align="center", width=width)
    sheet.save(path)


def class_titles(labels: NDArray[np.generic], class_names: Sequence[str]) -> list[list[str]]:
    """The lines under each image, from classes (B,) or the two largest shares (B, classes)."""
    if not class_names:
        return [[] for _ in labels]
    if labels.ndim == 1:
        return [[class_names[label]] for label in labels]
    titles = []
    for shares in labels:
        seen = [label for label in np.argsort(-shares, kind="stable")[:2] if shares[label] > 0]
        percent = len(seen) > 1
        titles.append([class_names[i] + f" {shares[i]:.0%}" * percent for i in seen])
    return titles


def draw_attention(
    images: Array,
    attention: NDArray[np.floating],
    true_labels: ArrayLike | None,
    predicted_labels: ArrayLike,
    class_names: Sequence[str],
    path: Path,
    *,
    mean: Channels = 0.5,
    std: Channels = 0.5,
) -> None:
    """Images and, under each, what the class token attends to, as a PNG at `path`.

    `attention` (B, rows, columns), or (B, H, rows, columns) whose heads are averaged, is spread
    bilinearly over `images` (B, C, H, W). `predicted_labels` are classes (B,) or probabilities
    (B, classes), which are then written too. The title is green where the prediction is the true
    label, red where it is not, and black without `true_labels`.
    """
    maps = fuse_heads(attention) if attention.ndim == 4 else attention
    titles = prediction_titles(true_labels, np.asarray(predicted_labels), class_names)
    check_count("draw_attention", len(images), attention=len(maps), predictions=len(titles))
    heading = "Class-token attention"
    if len(images) > 1:  # there is room for more
        heading += ": the brighter, the more"
    draw_overlays(images, maps, titles, path, heading=heading, mean=mean, std=std)


def draw_overlays(
    images: Array,
    maps: NDArray[np.floating],
    titles: Sequence[Title],
    path: Path,
    *,
    heading: str,
    mean: Channels = 0.5,
    std: Channels = 0.5,
) -> None:
    """Images (B, C, H, W) under their titles, and under each its map, as a PNG at `path`.

    `maps` (B, rows, columns) by whatever method, which the `heading` tells; `titles` such as those
    of `prediction_titles`.
    """
    pixels = displayable(images, mean, std)
    pixels = magnified(pixels, 192 if len(pixels) > 3 else 320)
    check_count("draw_overlays", len(pixels), maps=len(maps), titles=len(titles))
    heated = overlay(pixels, maps)
    height, width = pixels.shape[1:3]
    text_height = 2 * LINE + 2
    cell = (width, text_height + 2 * height + 4)
    sheet, places = grid(len(pixels), cell, columns=5, heading=heading)
    for position, (left, top) in enumerate(places):
        lines, color = titles[position]
        for number, line in enumerate(lines):
            place = (left + width / 2, top + number * LINE)
            sheet.text(line, *place, size=10, color=color, align="center", width=width + GAP - 4)
        below = top + text_height + height + 4
        sheet.image(pixels[position], left, top + text_height)
        sheet.image(heated[position], left, below)
        if not maps[position].any():
            sheet.note_empty("empty map", left, below, (width, height))
    sheet.save(path)


def draw_predictions(
    image: Array,
    names: Sequence[str],
    probabilities: ArrayLike,
    path: Path,
    *,
    mean: Channels = 0.5,
    std: Channels = 0.5,
    title: str = "",
) -> None:
    """One image (C, H, W) beside a bar for each of `names` and `probabilities`, best first.

    The `title` stands over them: its first line such as the picture's file, then, quieter, such as
    the model. All places are fixed, so that the drawings of several pictures line up; long names
    are cut.
    """
    chances = np.asarray(probabilities, np.float64)
    check_count("draw_predictions", len(names), probabilities=len(chances))
    picture = fitted(displayable(image[None], mean, std), _PHOTO)[0]
    rows = _BAR * len(names)
    height = max(_PHOTO, rows)
    first, *others = title.splitlines() or [""]
    cell = (_PHOTO + _NAMES + _BARS + _PERCENTS + 2 * GAP, height)
    sheet, [(start, line)] = grid(
        1, cell, columns=1, title=first, heading="\n".join([*others, "A full bar is 100%"])
    )
    place = (start + (_PHOTO - picture.shape[1]) // 2, line + (height - len(picture)) // 2)
    sheet.image(picture, *place)
    left, top = start + _PHOTO + GAP + _NAMES + GAP // 2, line + (height - rows) // 2
    axes = sheet.axes(left, top, _BARS, rows)
    axes.barh(range(len(names)), 1, height=0.5, color="#eceef1")
    axes.barh(range(len(names)), chances, height=0.5, color=BLUE)
    axes.set(xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    axes.set_axis_off()
    for row, (name, chance) in enumerate(zip(names, chances, strict=True)):
        line = top + row * _BAR + 8
        sheet.text(name, left - GAP // 2, line, size=10, align="right", width=_NAMES)
        end = left + _BARS + _PERCENTS + GAP // 2
        sheet.text(f"{chance:.1%}", end, line, size=10, color=QUIET, align="right")
    sheet.save(path)


def prediction_titles(
    true_labels: ArrayLike | None, predictions: NDArray[np.generic], class_names: Sequence[str]
) -> list[Title]:
    """Two lines and a colour for each image: what it is, if that is known, and is taken for.

    `predictions` are classes (B,) or probabilities (B, classes).
    """
    predictions = to_numpy(predictions)
    with_chances = predictions.ndim == 2
    predicted = predictions.argmax(1) if with_chances else predictions
    names = [class_names[label] for label in predicted]
    chances = [f"{chance:.0%}" for chance in predictions.max(1)] if with_chances else []
    if true_labels is None:
        return [Title([name, *chances[i : i + 1]], INK) for i, name in enumerate(names)]
    truth = np.asarray(true_labels)
    check_count("draw_attention", len(names), true_labels=len(truth))
    return [
        Title(
            [
                f"true: {class_names[truth[i]]}",
                " ".join([f"predicted: {name}", *chances[i : i + 1]]),
            ],
            RIGHT if truth[i] == predicted[i] else WRONG,
        )
        for i, name in enumerate(names)
    ]
