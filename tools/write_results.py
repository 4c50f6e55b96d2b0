"""Write the README's table of trainings from the runs themselves, so that no figure is typed.

    python tools/write_results.py --runs runs/tutorial runs/cifar10-1 runs/cifar10-2

Replaces what stands between the README's markers, and copies the runs' curves and attention maps
to docs/images/.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

from numpyvit.train import RunFolder

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"


def results_table(runs: list[RunFolder]) -> str:
    """One row a run: recipe, epochs, accuracy on the test images after the last epoch."""
    lines = ["| recipe | epochs | test accuracy | test loss | pictures |", "|---|---|---|---|---|"]
    for run in runs:
        config, last = run.config(), run.rows()[-1]
        name = f"{config.recipe_name}-{config.recipe.epochs}"
        for picture in ("curves", "attention"):
            shutil.copy(run.path / f"{picture}.png", IMAGES / f"{picture}-{name}.png")
        lines.append(
            f"| `{config.recipe_name}` | {last['epoch']} | {last['val_accuracy']:.1%} | "
            f"{last['val_loss']:.3f} | [curves](docs/images/curves-{name}.png), "
            f"[attention](docs/images/attention-{name}.png) |"
        )
    return "\n".join(lines)


def replace_between(text: str, marker: str, content: str) -> str:
    """`text` with `content` between the comments `marker:begin` and `marker:end`."""
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    return pattern.sub(lambda _: f"{begin}\n{content}\n{end}", text)


def main() -> None:
    """Replace the README's table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", required=True, help="run folders, in order")
    options = parser.parse_args()
    IMAGES.mkdir(parents=True, exist_ok=True)
    readme = ROOT / "README.md"
    table = results_table([RunFolder(path) for path in options.runs])
    readme.write_text(replace_between(readme.read_text(), "results", table))


if __name__ == "__main__":
    main()
