"""Pictures of a model itself: its positions, its patch filters, how far its heads reach."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from numpyvit.explain.filters import Filters, filter_images
from numpyvit.explain.measures import HeadMeasures, PositionMaps
from numpyvit.explain.sheet import (
    BLUE,
    LINE,
    ORANGE,
    QUIET,
    Sheet,
    displayable,
    grid,
    magnified,
    matplotlib,
)

Path = str | os.PathLike[str]
_MOST_MAPS = 16  # in a row of small maps: more would be too small to see, or the picture too large


def draw_positions(found: PositionMaps | NDArray[np.floating], path: Path) -> None:
    """One small map for each patch's position, bright for the patches whose positions are like it.

    `found` is from `model_positions` or `position_similarity`. Of a grid with more than 16 rows,
    evenly spaced positions are drawn.
    """
    named = found if isinstance(found, PositionMaps) else PositionMaps(found)
    maps = named.maps
    down, right = (-(-edge // _MOST_MAPS) for edge in maps.shape[:2])
    # As much is left out at one end as at the other.
    above, left = (maps.shape[0] - 1) % down // 2, (maps.shape[1] - 1) % right // 2
    shown = maps[above::down, left::right]
    rows, columns = shown.shape[:2]
    magnification = max(2, round(600 / max(rows, columns) / max(maps.shape[2:])))
    step_x, step_y = (edge * magnification + 4 for edge in (maps.shape[3], maps.shape[2]))
    margin, top = 58, 50
    width, height = columns * step_x - 4, rows * step_y - 4
    sheet = Sheet(max(width + 2 * margin + 70, 520), height + top + 58)  # the heading fits
    sheet.text(named.title, margin, 12, size=11)
    frame = sheet.axes(margin, top, width, height)
    frame.set(xlabel=named.across, ylabel=named.down)
    frame.spines[:].set_visible(False)
    frame.tick_params(length=0)
    frame.set(xlim=(0, width), ylim=(height, 0))
    frame.set_xticks(step_x * (np.arange(columns) + 0.5), left + right * np.arange(columns))
    frame.set_yticks(step_y * (np.arange(rows) + 0.5), above + down * np.arange(rows))
    colours = matplotlib("cm").ScalarMappable(cmap="viridis")
    colours.set_clim(min(maps.min(), maps.max() - 0.1), maps.max())  # however alike they are
    for row, column in np.ndindex(rows, columns):
        pixels = colours.to_rgba(shown[row, column], bytes=True)[None, ..., :3]
        pixels = pixels.repeat(magnification, 1).repeat(magnification, 2)[0]
        sheet.image(pixels, margin + column * step_x, top + row * step_y)
    scale = sheet.axes(width + margin + 16, top, 14, height)
    sheet.figure.colorbar(colours, cax=scale).outline.set_visible(False)
    sheet.save(path)


def draw_filters(filters: Filters, path: Path) -> None:
    """Each principal component of the patch filters as a small image, as a PNG at `path`.

    Under each its number and its share of the variance. Filters of 1 or 3 channels; ValueError for
    others. Grey in a filter of 3 channels is where they are equal, not where they are 0.
    """
    levels = filter_images(filters.components)
    pixels = magnified(displayable(levels, mean=0, std=1), 96)
    height, width = pixels.shape[1:3]
    cell = (max(width, 84), height + LINE + 4)
    total, count = filters.explained.sum(), len(filters.explained)
    share = f"the first {count} hold {total:.0%} of the variance"
    heading = f"Principal components of the patch filters: {share}"
    sheet, places = grid(len(pixels), cell, columns=7, heading=heading)
    for index, (left, top) in enumerate(places):
        sheet.image(pixels[index], left, top)
        label = f"{index + 1}: {filters.explained[index]:.1%}"
        sheet.text(label, left, top + height + 3, color=QUIET, width=cell[0])
    sheet.save(path)


def draw_measures(
    measures: HeadMeasures, path: Path, *, model: str = "", images: int | None = None
) -> None:
    """How far each head looks and how spread its attention is, by block, as a PNG at `path`.

    One dot a head, a line through their means, and a dashed one where a head would be that attends
    to all patches alike. The name of the `model` and the number of `images` that were averaged are
    written above.
    """
    averaged = (
        "" if images is None else "one picture" if images == 1 else f"mean of {images:,} pictures"
    )
    heading = ", ".join(filter(None, [model, averaged]))
    above = 30 if heading else 0
    sheet = Sheet(1040, 424 + above)
    sheet.text(heading, 64, 12, size=11, width=940)
    panels = (
        (
            "Mean attention distance in pixels of the model's input",
            measures.distance,
            measures.even_distance,
        ),
        ("Entropy of attention in nats", measures.entropy, measures.even_entropy),
    )
    for index, (title, values, even) in enumerate(panels):
        axes = sheet.axes(64 + 510 * index, 48 + above, 430, 290)
        blocks, heads = values.shape
        axes.axhline(
            even, color=QUIET, linestyle="--", linewidth=1.2, label="attention spread evenly"
        )
        axes.plot(values.mean(1), color=ORANGE, linewidth=1.6, label="mean of the heads")
        where = np.repeat(np.arange(blocks), heads)
        axes.scatter(where, values, s=26, color=BLUE, alpha=0.75, label="a head", zorder=3)
        axes.set_title(title, fontsize=11, loc="left")
        axes.set_xlabel("block", fontsize=9)
        axes.set(xlim=(-0.5, blocks - 0.5), ylim=(0, 1.12 * max(even, values.max())))
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(color="#e3e5e8", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    style = {"frameon": False, "fontsize": 9, "ncol": len(labels)}
    sheet.figure.legend(handles, labels, loc="lower center", **style)
    sheet.save(path)
