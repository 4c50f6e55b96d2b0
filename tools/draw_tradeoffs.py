"""The pictures and tables of docs/efficiency.md, out of the rows that were measured."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

Row = dict[str, Any]

COLOURS = ("#1f6fb2", "#d1602a", "#3a8f4d", "#8a5aa8")
LABELS = ((0, 6), (-16, -3), (12, -8), (0, -11))  # where a series has them, in points
LOSSES = (0.01, 0.03, 0.06)  # of accuracy, for which the tables say what can be saved


def draw_all(rows: list[Row], folder: Path) -> None:
    """Write tradeoff-*.png for every technique that has rows."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "attention": draw_attention,
        "tokens": draw_tokens,
        "heads": draw_heads,
        "weights": draw_weights,
    }
    for technique, draw in pictures.items():
        if _of(rows, technique):
            draw(rows).savefig(folder / f"tradeoff-{technique}.png", dpi=110)


def _of(rows: list[Row], technique: str) -> dict[str, list[Row]]:
    """The rows of a technique by series, in the order of their settings."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row["technique"] == technique:
            found.setdefault(row["series"], []).append(row)
    return {name: sorted(series, key=lambda row: row["setting"]) for name, series in found.items()}


def _untouched(rows: list[Row]) -> float:
    return _of(rows, "untouched")["untouched"][0]["accuracy"]


def _axes(axes: Axes, rows: list[Row], xlabel: str) -> None:
    axes.axhline(_untouched(rows), color="0.6", linewidth=1, linestyle=":", label="untouched")
    axes.set(xlabel=xlabel, ylabel="accuracy on the test images")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(color="0.92")
    axes.set_axisbelow(True)


def _against_time(axes: Axes, rows: list[Row], series: dict[str, list[Row]], labels: str) -> None:
    """Accuracy against time, a line a series; `labels` formats the setting beside its point."""
    looks = itertools.cycle(zip(COLOURS, LABELS, strict=True))
    for (name, points), (colour, place) in zip(series.items(), looks, strict=False):
        x, y = ([row[key] for row in points] for key in ("time", "accuracy"))
        axes.plot(x, y, "o-", color=colour, label=name, markersize=5, linewidth=1.2)
        for row in points:
            axes.annotate(
                labels.format(row["setting"]),
                (row["time"], row["accuracy"]),
                xytext=place,
                textcoords="offset points",
                fontsize=7,
                color=colour,
                ha="center",
            )
    axes.plot(1, _untouched(rows), "k*", markersize=11)
    _axes(axes, rows, "time, of the untouched model's")
    axes.xaxis.set_major_locator(MultipleLocator(0.05))
    axes.xaxis.set_major_formatter("{x:.2f}")
    axes.legend(fontsize=8)


def draw_attention(rows: list[Row]) -> Figure:
    """What local attention costs a model that was trained without, and when it saves time."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, points), colour in zip(_of(rows, "attention").items(), COLOURS, strict=False):
        slower = [row["time"] for row in points]
        label = f"{name}: time x {min(slower):.2f} to {max(slower):.2f}"
        x, y = ([row[key] for row in points] for key in ("setting", "accuracy"))
        left.plot(x, y, "o-", color=colour, label=label)
    _axes(left, rows, "patches along a side of a window or neighbourhood")
    left.set_xticks(range(1, 8))
    left.legend(fontsize=8)
    left.set_title("8 x 8 patches: a model that was trained with full attention", fontsize=10)
    for (name, points), colour in zip(
        _of(rows, "growth").items(), (COLOURS[1], COLOURS[0]), strict=False
    ):
        x, y = ([row[key] for row in points] for key in ("setting", "time"))
        size = "8 x 8" if name == "windows" else "7 x 7"
        right.plot(x, y, "o-", color=colour, label=f"{name} of {size}")
    right.axhline(1, color="0.6", linewidth=1, linestyle=":")
    right.set(xscale="log", yscale="log", xlabel="tokens", ylabel="time, of full attention's")
    ticks = [65, 257, 1025, 4097]
    right.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    right.set_yticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
    right.minorticks_off()
    right.grid(color="0.92")
    right.legend(fontsize=8)
    right.set_title("one attention layer, width 192, 3 heads", fontsize=10)
    return figure


def draw_tokens(rows: list[Row]) -> Figure:
    """Accuracy against time with fewer tokens."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots()
    _against_time(axes, rows, _of(rows, "tokens"), "{:g}")
    axes.set_title(
        "merged: so many tokens a block; dropped: the share of patches that stays", fontsize=10
    )
    return figure


def _with_mean_of_orders(series: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """The series by importance, and the mean of those in random order."""
    random = [points for name, points in series.items() if name.startswith("in random")]
    together: dict[str, list[Row]] = {
        name: points for name, points in series.items() if not name.startswith("in random")
    }
    together[f"in random order (mean of {len(random)})"] = [
        {
            "setting": group[0]["setting"],
            **{key: float(np.mean([row[key] for row in group])) for key in ("time", "accuracy")},
        }
        for group in zip(*random, strict=False)
    ]
    return together


def draw_heads(rows: list[Row]) -> Figure:
    """Accuracy against time with fewer heads, and how important each head is."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    _against_time(left, rows, _with_mean_of_orders(_of(rows, "heads")), "{:g}")
    left.set_title("so many of the 16 heads removed", fontsize=10)
    (found,) = _of(rows, "importance")["importance"]
    heads = np.array(found["heads"])
    picture = right.imshow(heads, cmap="viridis", vmin=0)
    for (block, head), value in np.ndenumerate(heads):
        colour = "white" if value < 0.6 * heads.max() else "black"
        right.text(head, block, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=9)
    right.set(xlabel="head", ylabel="block", xticks=range(4), yticks=range(4))
    right.set_title("importance, by the gradient of its gate", fontsize=10)
    figure.colorbar(picture, ax=right, shrink=0.8)
    return figure


def draw_weights(rows: list[Row]) -> Figure:
    """Accuracy, file size and time against the share of weights that are zero."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    series = _of(rows, "weights")
    for (name, points), colour in zip(series.items(), COLOURS, strict=False):
        x, y = ([row[key] for row in points] for key in ("setting", "accuracy"))
        left.plot(x, y, "o-", color=colour, label=name, markersize=5, linewidth=1.2)
    _axes(left, rows, "share of the weights that are zero")
    left.legend(fontsize=8, loc="lower left")
    whole = _of(rows, "untouched")["untouched"][0]["compressed_bytes"]
    points = series["of all layers together"]
    x = [row["setting"] for row in points]
    right.plot(
        [0, *x],
        [1, *(row["compressed_bytes"] / whole for row in points)],
        "o-",
        color=COLOURS[2],
        label="compressed file",
    )
    right.plot(
        x, [row["time"] for row in points], "o-", color=COLOURS[3], label="time, dense products"
    )
    right.set(
        xlabel="share of the weights that are zero",
        ylabel="of the untouched model's",
        ylim=(0, 1.3),
    )
    right.grid(color="0.92")
    right.legend(fontsize=8)
    return figure


def tables(rows: list[Row]) -> dict[str, str]:
    """The tables by the marker that they stand between."""
    if not _of(rows, "untouched"):
        return {}
    return {
        "savings": _savings(rows),
        "growth": _growth(rows),
        "deit": _deit(rows),
        "weights": _weights(rows),
    }


def _savings(rows: list[Row]) -> str:
    """For each series: the most that it saves at a loss of at most LOSSES."""
    base = _untouched(rows)
    lines = [
        "| technique | "
        + " | ".join(f"at most {100 * loss:g} point{'s' * (loss > 0.01)} lost" for loss in LOSSES)
        + " |",
        "|---" * (1 + len(LOSSES)) + "|",
    ]
    for technique in ("tokens", "heads", "attention"):
        series = _of(rows, technique)
        if technique == "heads":
            series = _with_mean_of_orders(series)
        for name, points in series.items():
            cells = []
            for loss in LOSSES:
                able = [r for r in points if r["accuracy"] >= base - loss and r["time"] < 1]
                best = min(able, key=lambda row: row["time"], default=None)
                cells.append("nothing" if best is None else _cell(best))
            lines.append(f"| {technique}: {name} | " + " | ".join(cells) + " |")
    return f"Untouched: {base:.2%}.\n\n" + "\n".join(lines)


def _cell(row: Row) -> str:
    return f"{row['setting']:g}: {row['accuracy']:.2%} in {row['time']:.2f} of the time"


def _growth(rows: list[Row]) -> str:
    series = _of(rows, "growth")
    tokens = [row["setting"] for row in next(iter(series.values()), [])]
    lines = ["| tokens | " + " | ".join(f"{count:,}" for count in tokens) + " |"]
    lines.append("|---" * (1 + len(tokens)) + "|")
    for name, points in series.items():
        lines.append(f"| {name} | " + " | ".join(f"{row['time']:.2f}" for row in points) + " |")
    return "\n".join(lines)


def _deit(rows: list[Row]) -> str:
    lines = ["| merged in each block | time | photographs that keep their class |", "|---|---|---|"]
    for points in _of(rows, "deit").values():
        lines += [
            f"| {row['setting']} | {row['time']:.2f} | {row['same']} of {row['photographs']} |"
            for row in points
        ]
    return "\n".join(lines)


def _weights(rows: list[Row]) -> str:
    lines = [
        "| zero | accuracy | after 100 steps | compressed file | time |",
        "|---|---|---|---|---|",
    ]
    whole = _of(rows, "untouched")["untouched"][0]["compressed_bytes"]
    series = _of(rows, "weights")
    trained = {
        row["setting"]: row for row in series.get("together, then trained for 100 steps", [])
    }
    for row in series.get("of all layers together", []):
        after = trained.get(row["setting"])
        lines.append(
            f"| {row['setting']:.0%} | {row['accuracy']:.1%} | "
            f"{'' if after is None else format(after['accuracy'], '.1%')} | "
            f"{row['compressed_bytes'] / whole:.2f} | {row['time']:.2f} |"
        )
    return "\n".join(lines)
