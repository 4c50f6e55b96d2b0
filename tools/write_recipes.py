"""Write the table of recipes in docs/recipe.md from the recipes themselves.

python tools/write_recipes.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

from write_results import replace_between

from numpyvit.train import RECIPES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "recipe.md"


def recipes_table() -> str:
    """One row a recipe: its numbers, what it does against overfitting, its source."""
    lines = [
        "| recipe | epochs | batch | learning rate | weight decay | against overfitting | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, recipe in RECIPES.items():
        words = ", ".join([*recipe.augmentation, *recipe.regularization]) or "nothing"
        lines.append(
            f"| `{name}` | {recipe.epochs} | {recipe.batch_size} | {recipe.lr:g} | "
            f"{recipe.weight_decay:g} | {words} | {recipe.source} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()
    PAGE.write_text(replace_between(PAGE.read_text(), "recipes", recipes_table()))
