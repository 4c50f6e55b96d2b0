"""Draw the package's layers, and list what every file is, from the sources themselves.

    python tools/write_architecture.py

Writes docs/images/architecture.png, and the list between the markers of docs/architecture.md.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

from write_results import replace_between

from numpyvit.backend import require

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))
from architecture import LAYERS  # noqa: E402 (found by the line above)

PAGE, PICTURE = ROOT / "docs" / "architecture.md", ROOT / "docs" / "images" / "architecture.png"
PACKAGE = ROOT / "numpyvit"
COLUMNS = 7  # files side by side in the picture


def files_of(layer: str) -> list[Path]:
    """A layer's files in the order in which they build on each other: that of its imports."""
    folder = PACKAGE / layer
    if not folder.is_dir():
        return [folder.with_suffix(".py")]
    tree = ast.parse((folder / "__init__.py").read_text())
    names: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"numpyvit.{layer}"):
            tail = (node.module or "").split(".")[2:]
            names += tail[:1] or [alias.name for alias in node.names]
    found = [folder / f"{name}.py" for name in dict.fromkeys(names)]
    return [path if path.is_file() else path.with_suffix("") for path in found]


def first_line(path: Path) -> str:
    """What the file says that it is."""
    source = path / "__init__.py" if path.is_dir() else path
    text = ast.get_docstring(ast.parse(source.read_text())) or ""
    return text.partition("\n")[0]


def lines(path: Path) -> int:
    """Lines of a file, or of all files in a folder."""
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return sum(len(file.read_text().splitlines()) for file in files)


def listing() -> str:
    """One table a layer, the top one first."""
    parts = []
    for layer in (name for row in reversed(LAYERS) for name in row):
        folder, files = PACKAGE / layer, files_of(layer)
        if not folder.is_dir():
            file = files[0]
            parts.append(f"**`{layer}.py`** ({lines(file)} lines): {first_line(file)}\n")
            continue
        rows = [f"| `{file.stem}` | {lines(file)} | {first_line(file)} |" for file in files]
        head = f"**`{layer}/`** ({lines(folder):,} lines): {first_line(folder)}"
        parts.append("\n".join([f"{head}\n", "| file | lines | |", "|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def draw(path: Path) -> None:
    """A band a layer, the top one first; in it a box a file, as dark as it is long."""
    figure_class = require("matplotlib.figure", extra="full", purpose="drawing").Figure
    bands = [(layer, files_of(layer)) for row in reversed(LAYERS) for layer in row]
    heights = [-(-len(files) // COLUMNS) for _, files in bands]
    figure = figure_class(figsize=(13, 0.36 * (sum(heights) + 0.6 * len(bands))), dpi=100)
    axes = figure.add_axes((0.005, 0.005, 0.99, 0.99))
    top = 0.0
    for (layer, files), height in zip(bands, heights, strict=True):
        _band(axes, layer, files, top, height)
        top -= height + 0.6
    axes.annotate(
        "imports go down only",
        (-0.06, top + 0.6),
        (-0.06, 0.0),
        rotation=90,
        va="top",
        ha="center",
        color="0.4",
        arrowprops={"arrowstyle": "->", "color": "0.4"},
    )
    axes.set(xlim=(-0.2, COLUMNS + 1.35), ylim=(top + 0.2, 0.3))
    axes.axis("off")
    figure.savefig(path)


def _band(axes: Any, layer: str, files: list[Path], top: float, height: int) -> None:
    rectangle = require("matplotlib.patches", extra="full", purpose="drawing").Rectangle
    axes.add_patch(rectangle((0.1, top - height - 0.25), COLUMNS + 1.2, height + 0.4, fc="0.95"))
    total = sum(map(lines, files))
    axes.text(0.16, top - 0.5, layer, weight="bold", va="center", size=12)
    if height > 1:
        axes.text(0.16, top - 1.3, f"{total:,} lines", va="center", size=8, color="0.35")
    for index, file in enumerate(files):
        row, column = divmod(index, COLUMNS)
        share = min(lines(file) / 400, 1)
        colour = (1 - 0.55 * share, 1 - 0.35 * share, 1 - 0.1 * share)
        x, y = 1.25 + column, top - row - 0.95
        axes.add_patch(rectangle((x, y), 0.96, 0.85, fc=colour, ec="0.6", lw=0.6))
        name = f"{file.name}/" if file.is_dir() else file.stem
        axes.text(x + 0.48, y + 0.42, name, ha="center", va="center", size=8)


def main() -> None:
    """Write both."""
    draw(PICTURE)
    PAGE.write_text(replace_between(PAGE.read_text(), "files", listing()))


if __name__ == "__main__":
    main()
