"""Draw what each kind of positions says of a small grid of patches, into the docs.

    python tools/write_positions.py --relative RUN

Draws docs/images/positions-kinds.png: learned positions (of the model that comes with the package),
the fixed and the rotary ones, and the relative bias of RUN, a run folder or weights of
`numpyvit train --set positions=relative`; and of the latter every head as positions-relative.png.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy

from numpyvit import explain
from numpyvit.explain.sheet import LINE, QUIET, grid, matplotlib
from numpyvit.models import ImageModel, create_model
from numpyvit.weights import load_pretrained

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
NAME = "vit_cifar_patch4_32"
FROM = ((4, 4), (1, 1))  # rows and columns of the patches whose maps are drawn
HEADS = ((1, 1), (1, 2))  # blocks and heads of a relative bias, from the middle patch
SIDE = 136  # pixels of a map


def panels(relative: ImageModel) -> list[tuple[str, str, numpy.ndarray]]:
    """Title, second line and map of each panel, a row of the picture after the other."""
    kinds = {
        "learned, trained": create_model(NAME, pretrained=True),
        "sincos (big_vision)": create_model(NAME, positions="sincos"),
        "sincos_mae": create_model(NAME, positions="sincos_mae"),
        "rotary": create_model(NAME, positions="rotary"),
    }
    found = {title: explain.model_positions(model).maps for title, model in kinds.items()}
    biases = explain.model_positions(relative).maps
    rows = []
    for place, head in zip(FROM, HEADS, strict=True):
        where = f"row {place[0]}, column {place[1]}"
        rows += [(title, where, maps[place]) for title, maps in found.items()]
        where = f"block {head[0]}, head {head[1]}"
        rows.append(("relative, trained", where, biases[head]))
    return rows


def draw(drawn: list[tuple[str, str, numpy.ndarray]], path: Path) -> None:
    """Each map in colours of its own range, which is written below it."""
    heading = "How the position of one patch is like those of all others, dark blue to yellow"
    sheet, places = grid(
        len(drawn), (SIDE, SIDE + 3 * LINE + 6), columns=len(drawn) // 2, heading=heading
    )
    for (title, where, values), (left, top) in zip(drawn, places, strict=True):
        colours = matplotlib("cm").ScalarMappable(cmap="viridis").to_rgba(values, bytes=True)
        scale = SIDE // max(values.shape)
        sheet.image(colours[..., :3].repeat(scale, 0).repeat(scale, 1), left, top)
        about = (title, where, f"{values.min():.2f} to {values.max():.2f}")
        for line, text in enumerate(about):
            color = {"color": QUIET} if line else {}
            sheet.text(text, left, top + SIDE + 4 + line * LINE, width=SIDE + 8, **color)
    sheet.save(path)


def main() -> None:
    """Draw both pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--relative", type=Path, required=True, metavar="RUN")
    relative = load_pretrained(parser.parse_args().relative).model
    draw(panels(relative), IMAGES / "positions-kinds.png")
    explain.draw_positions(explain.model_positions(relative), IMAGES / "positions-relative.png")


if __name__ == "__main__":
    main()
