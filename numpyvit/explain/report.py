"""Pictures of numbers: how a training went, and which classes are taken for which."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numpyvit.explain.sheet import BLUE, INK, LINE, ORANGE, QUIET, Sheet, matplotlib

Path = str | os.PathLike[str]
_LABEL_PIXELS = 11  # the least distance between two labels that do not touch
_LONGEST_LABEL = 150
# The least that an axis shows, for a small change not to look like a collapse.
_LEAST_ACCURACY_SPAN, _LEAST_LOSS_SPAN = 20, 0.25  # points; share of the largest loss
_TICKS = (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1)  # of the shares
_LETTER = 0.8  # pixels that a letter is wide, for each point of its size: an upper estimate


def draw_curves(
    rows: Sequence[Mapping[str, Any]], path: Path, *, training_loss: str = "training"
) -> None:
    """Loss, accuracy in percent and learning rate by epoch, as a PNG at `path`.

    `rows` are those of `metrics.jsonl`; a number that is missing or None leaves a gap, and without
    a single accuracy their axes are left out. `training_loss` is what the legend calls it. Raises
    ValueError where there are no rows.
    """
    if not rows:
        raise ValueError("[draw_curves] expected at least one row of metrics, got none")
    parts = (("train", "training", BLUE), ("val", "validation", ORANGE))
    classified = any(row.get(f"{name}_accuracy") is not None for row in rows for name, *_ in parts)
    count = 2 + classified
    sheet = Sheet(420 * count, 380)
    loss, *others, rate = (sheet.axes(64 + 420 * i, 48, 330, 272) for i in range(count))
    epochs = _column(rows, "epoch")
    for name, label, color in parts:
        style = _style(len(rows), color, label)
        named = {"label": training_loss} if name == "train" else {}
        loss.plot(epochs, _column(rows, f"{name}_loss"), **style | named)
        for accuracy in others:
            accuracy.plot(epochs, 100 * _column(rows, f"{name}_accuracy"), **style)
    rate.plot(epochs, _column(rows, "learning_rate"), **_style(len(rows), INK, "learning rate"))
    rate.set_ylim(bottom=0)
    rate.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    loss.set_title("Loss", fontsize=11, loc="left")
    rate.set_title("Learning rate", fontsize=11, loc="left")
    if len(rows) > 1:
        _widen(loss, _LEAST_LOSS_SPAN * loss.get_ylim()[1])
    for accuracy in others:
        accuracy.set_title(_accuracy_title(rows), fontsize=11, loc="left")
        if len(rows) == 1:
            accuracy.set_ylim(0, 100)
        else:
            _widen(accuracy, _LEAST_ACCURACY_SPAN, top=100)
        accuracy.legend(frameon=False, fontsize=9, loc="lower right")
    for axes in (loss, *others, rate):
        _finish(axes, epochs)
    loss.legend(frameon=False, fontsize=9)
    sheet.save(path)


def draw_confusion(matrix: ArrayLike, class_names: Sequence[str], path: Path) -> None:
    """How often each class (row) is taken for each class (column), as a PNG at `path`.

    `matrix` (classes, classes) holds counts. A cell's shade is its share of the row; the share and
    the count are written where there is room. If there are no images of the last class, such as
    "other classes", it has no row. Raises ValueError for another shape.
    """
    counts = np.asarray(matrix)
    classes = len(class_names)
    if counts.shape != (classes, classes):
        raise ValueError(
            f"[draw_confusion] expected a matrix ({classes}, {classes}), got shape {counts.shape}"
        )
    if counts.any() and not counts[-1].any():
        counts = counts[:-1]
    totals = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    cell = 62 if classes <= 12 else 42 if classes <= 25 else max(1, min(24, 1200 // classes))
    size = 9.5 if cell >= 20 else 7 if cell >= 14 else 6
    names = [_short(name, int(_LONGEST_LABEL / (_LETTER * size))) for name in class_names]
    margin = 44 + int(max(map(len, names)) * size * _LETTER)
    side, height, top = classes * cell, len(counts) * cell, 92
    sheet = Sheet(margin + max(side, 340) + 100, top + height + margin)
    axes = sheet.axes(margin, top, side, height)
    # Shades by the square root: a confusion of a few percent is to be seen beside a hundred.
    norm = matplotlib("colors").PowerNorm(0.5, 0, max(shares.max(), 0.01))
    image = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    _name_axes(axes, names, len(counts), cell, size)
    if cell >= 42:
        _write_cells(axes, counts, shares, norm, with_shares=cell >= 60)
    scale = sheet.axes(margin + side + 16, top, 14, height)
    ticks = _ticks(norm, height)
    bar = sheet.figure.colorbar(
        image, cax=scale, ticks=ticks, format=lambda x, _: f"{100 * x:.3g}%"
    )
    bar.outline.set_visible(False)
    _write_summary(sheet, counts, margin)
    sheet.save(path)


def _write_summary(sheet: Sheet, counts: NDArray[Any], left: int) -> None:
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    sheet.text("Confusion matrix", left, 14, size=12)
    summary = f"{accuracy:.2%} of {counts.sum():,} images right"
    shade = "shade: share of the true class, on a square-root scale"
    for number, line in enumerate((summary, shade)):
        sheet.text(line, left, 40 + LINE * number, size=9.5, color=QUIET)


def _ticks(norm: Any, height: int) -> list[float]:
    """Round shares whose labels do not touch on a bar of `height` pixels."""
    found: list[float] = []
    for share in _TICKS:
        place = float(norm(share)) * height
        if share <= norm.vmax and (not found or place - norm(found[-1]) * height >= LINE):
            found.append(share)
    return found


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    values = [row.get(name) for row in rows]
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _style(count: int, color: str, label: str) -> dict[str, Any]:
    """Points that can be told apart are marked; a single one would be invisible without."""
    marks = {"marker": "o", "markersize": 6 if count == 1 else 3.5} if count <= 30 else {}
    return {"color": color, "label": label, "linewidth": 1.6, **marks}


def _widen(axes: Any, span: float, top: float = np.inf) -> None:
    """Let the axis show at least `span`, around what it shows and within 0 to `top`."""
    low, high = axes.get_ylim()
    if high - low < span:
        middle = (low + high) / 2
        low = min(max(middle - span / 2, 0), top - span)
        axes.set_ylim(low, low + span)


def _accuracy_title(rows: Sequence[Mapping[str, Any]]) -> str:
    values = _column(rows, "val_accuracy")
    if np.isnan(values).all():
        return "Accuracy in %"
    best = int(np.nanargmax(values))
    return f"Accuracy in %: best {100 * values[best]:.2f}, epoch {rows[best]['epoch']}"


def _finish(axes: Any, epochs: NDArray[np.float64]) -> None:
    first, last = epochs.min(), epochs.max()
    margin = max(0.5, 0.03 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.set_xlabel("epoch", fontsize=9)
    axes.grid(color="#e3e5e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _name_axes(axes: Any, names: Sequence[str], rows: int, cell: int, size: float) -> None:
    """Names along both axes; where they would touch, only every second, third, ... one."""
    step = -(-_LABEL_PIXELS // cell)
    places = range(0, len(names), step)
    style: dict[str, Any] = {"fontsize": size, "parse_math": False}
    axes.set_yticks(range(0, rows, step), names[:rows:step], **style)
    if max(map(len, names)) * size * _LETTER >= cell:
        slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        style |= slanted if cell >= 20 else {"rotation": 90}
    axes.set_xticks(places, names[::step], **style)
    axes.tick_params(length=0 if cell >= 20 else 2)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("true class", fontsize=10, color=QUIET)
    axes.set_xlabel("predicted class", fontsize=10, color=QUIET)


def _write_cells(
    axes: Any, counts: NDArray[Any], shares: NDArray[np.float64], norm: Any, *, with_shares: bool
) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        share = shares[row, column]
        ink = "white" if norm(share) > 0.55 else INK
        style = {"ha": "center", "color": ink}
        if not with_shares:
            axes.text(column, row, f"{counts[row, column]}", va="center", fontsize=8, **style)
            continue
        axes.text(column, row + 0.02, f"{counts[row, column]}", va="bottom", fontsize=10, **style)
        axes.text(column, row + 0.08, f"{share:.1%}", va="top", fontsize=7.5, **style)


def _short(name: str, letters: int) -> str:
    return name if len(name) <= letters else name[: letters - 1].rstrip() + "…"
