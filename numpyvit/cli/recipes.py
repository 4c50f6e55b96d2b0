"""`numpyvit recipes`: the named ways to train, and where each comes from."""

from __future__ import annotations

import argparse
import dataclasses

from numpyvit.cli import errors, output, parsing
from numpyvit.train import RECIPES, Recipe

ABOUT = """\
The recipes that `numpyvit train --recipe` takes. Each says where its settings
come from; options of `train` change single ones."""

EXAMPLES = """
numpyvit recipes
numpyvit recipes --json
"""

HEADER = ("recipe", "epochs", "batch", "rate", "decay", "warm-up", "start")


def add_parser(commands: parsing.Commands) -> None:
    """Add the command."""
    parser = parsing.add_command(commands, "recipes", "list the recipes", ABOUT, EXAMPLES)
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print every field as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the table on stdout, and what each recipe does to pictures and weights."""
    if args.json:
        output.print_json({name: dataclasses.asdict(recipe) for name, recipe in RECIPES.items()})
        return errors.SUCCESS
    print(output.table([HEADER, *(_row(name, recipe) for name, recipe in RECIPES.items())]))
    for name, recipe in RECIPES.items():
        words = {what: ", ".join(parts) for what, parts in recipe.describe().items() if parts}
        print(f"\n{name}\n{output.report([*words.items(), ('source', recipe.source)])}")
    return errors.SUCCESS


def _row(name: str, recipe: Recipe) -> tuple[str, ...]:
    numbers = (recipe.epochs, recipe.batch_size, recipe.lr, recipe.weight_decay)
    return name, *(f"{n:g}" for n in (*numbers, recipe.warmup_epochs)), recipe.initialization
