"""`numpyvit models`: the named models and what they cost."""

from __future__ import annotations

import argparse
from typing import Any

from numpyvit.backend import nearest
from numpyvit.cli import errors, output, parsing
from numpyvit.models import (
    VARIANTS,
    count_multiply_adds,
    count_parameters,
    list_models,
)

ABOUT = """\
The models that can be built by name, with their sizes. Multiply-adds are those
of one image's forward pass, in billions (G). Of masked autoencoders (mae_...)
width and heads are the encoder's, and the depth is encoder + decoder."""

EXAMPLES = """
numpyvit models
numpyvit models "vit_*_224"
numpyvit models --json
"""

HEADER = ("model", "parameters", "mult-adds", "image", "patch", "width", "depth", "heads")


def add_parser(commands: parsing.Commands) -> None:
    """Add the command."""
    parser = parsing.add_command(commands, "models", "list the models", ABOUT, EXAMPLES)
    parser.set_defaults(run=run)
    parser.add_argument(
        "pattern", metavar="PATTERN", nargs="?", default="*", help="only these, as in 'vit_tiny*'"
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the table on stdout."""
    names = list_models(args.pattern)
    if not names:
        near = nearest(args.pattern, VARIANTS, 3)
        raise ValueError(
            f"no model is called {args.pattern!r}; {near}without a name all are listed"
        )
    if args.json:
        output.print_json(
            [
                {
                    "model": name,
                    "parameters": count_parameters(VARIANTS[name]),
                    "multiply_adds": count_multiply_adds(VARIANTS[name]),
                    **VARIANTS[name].to_dict(),
                }
                for name in names
            ]
        )
    else:
        print(output.table([HEADER, *(_row(name, VARIANTS[name]) for name in names)]))
    return errors.SUCCESS


def _row(name: str, config: Any) -> tuple[str, ...]:
    more = config.num_blocks - config.depth  # a decoder's
    depth = f"{config.depth}+{more}" if more else config.depth
    sizes = config.image_size, config.patch_size, config.embed_dim, depth, config.num_heads
    giga = output.multiply_adds(count_multiply_adds(config))
    return name, f"{count_parameters(config):,}", giga, *map(output.by_stage, sizes)
