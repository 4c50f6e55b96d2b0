"""`numpyvit attention`: where a model looks, as pictures and as arrays."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy

from numpyvit.backend import suggest
from numpyvit.cli import errors, maps, opening, output, parsing
from numpyvit.cli.classes import class_index
from numpyvit.cli.maps import Drawing, Plan
from numpyvit.cli.opening import Opened
from numpyvit.cli.photos import (
    PICTURES_HELP,
    STATUS_HELP,
    Photo,
    Reader,
    as_batch,
    picture_files,
)
from numpyvit.cli.progress import Progress
from numpyvit.explain import (
    GRADIENT_METHODS,
    METHODS,
    MapOptions,
    draw_filters,
    draw_measures,
    draw_positions,
    measure_heads,
    model_filters,
    model_positions,
    possible_methods,
)

ABOUT = f"""\
Show where a model looks. The brighter a part of the picture is, the more.
The files written are printed; their names hold the methods, and the class and
the other settings that were asked for.
{STATUS_HELP}

{opening.FORMATS}
Without it the weights that come with the package are used.

methods, one map a picture (several, as in rollout,relevance, or "all", are
drawn side by side):
  attention           what the class token attends to in one block (default)
  rollout             attention followed through all blocks (Abnar, Zuidema)
  gradient-rollout    the same, weighted by the gradient of a class
  relevance           evidence for a class (Chefer et al.)
  gradcam             attention of one block, weighted the same way
methods, one drawing a picture:
  heads               attention of every head of one block
methods, one drawing for all pictures:
  distance            how far every head of every block looks, in pixels
methods, one drawing of the model, without pictures:
  positions           how alike the position embeddings are
  filters             what the patch embedding looks for: principal components"""

EXAMPLES = """
numpyvit attention cat.jpg --out maps/
numpyvit attention photos/ --weights deit.pth --method rollout --out maps/
numpyvit attention cats.jpg --weights vit.npz --method relevance \\
  --class "tiger cat" --save-arrays --out maps/
numpyvit attention photos/*.jpg --weights deit.pth --method all --out maps/
numpyvit attention --weights dino.pth --method positions --out maps/
"""

WITHOUT_PICTURES = ("positions", "filters")
OTHERS = ("heads", "distance", *WITHOUT_PICTURES)
# Which methods an option is for: with others it would be ignored, which nobody would notice.
OPTIONS: dict[str, set[str]] = {
    "heads": {"attention", "rollout"},
    "discard": {"rollout", "gradient-rollout"},
    "block": {*METHODS, "heads"},
    "class": set(GRADIENT_METHODS),
    "mass": {*METHODS, "heads"},
}
AT_ONCE = 4  # pictures
# Options that files are named after, where they are given.
NAMED = ("heads", "discard", "mass", "image_size")


def add_parser(commands: parsing.Commands) -> None:
    """Add the command."""
    parser = parsing.add_command(
        commands, "attention", "show what a model looks at", ABOUT, EXAMPLES
    )
    parser.set_defaults(run=run)
    parser.add_argument("images", metavar="IMAGE", nargs="*", help=PICTURES_HELP)
    parser.add_argument("--out", metavar="FOLDER", required=True, help="folder for the pictures")
    opening.add_weights(parser, "default: the package's own")
    _add_method_options(parser)
    parser.add_argument(
        "--batch-size",
        metavar="N",
        type=parsing.positive,
        default=AT_ONCE,
        help=f"pictures computed together (default {AT_ONCE}); fewer need less memory",
    )
    parser.add_argument(
        "--save-arrays",
        action="store_true",
        help="write the numbers too, as .npz beside each picture",
    )


def _add_method_options(parser: parsing.Parser) -> None:
    parser.add_argument(
        "--method",
        metavar="NAME",
        dest="methods",
        type=method_names,
        help="one or more of the methods above (default attention; gradcam for models whose "
        "attention stays inside windows, which have no other map)",
    )
    parser.add_argument(
        "--class",
        metavar="CLASS",
        help="explain this class, by name, number or WordNet id (default: the likeliest)",
    )
    parser.add_argument(
        "--block",
        metavar="N",
        type=int,
        help="block to look into, or to follow up to: 0 is the first, -1 the last (default)",
    )
    parser.add_argument(
        "--heads",
        choices=("mean", "max", "min"),
        help="how the heads become one map: mean (default), max or min",
    )
    parser.add_argument(
        "--discard",
        metavar="X",
        type=parsing.share,
        help="share of the smallest weights to leave out, 0 (default) to below 1",
    )
    parser.add_argument(
        "--mass",
        metavar="X",
        type=parsing.portion,
        help="show only the fewest patches that hold this share of a map, above 0 to 1 (default)",
    )


def method_names(text: str) -> list[str]:
    """Methods from "rollout,relevance" or "all"; a mistake suggests the nearest."""
    if text == "all":
        return list(METHODS)
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in METHODS and name not in OTHERS:
            near = suggest(name, [*METHODS, *OTHERS, "all"])
            raise argparse.ArgumentTypeError(f"unknown method {name!r}; {near}")
    if len(names) > 1 and (alone := [name for name in names if name in OTHERS]):
        raise argparse.ArgumentTypeError(
            f"{alone[0]} makes a drawing of its own; give it alone (side by side: "
            f"{', '.join(METHODS)})"
        )
    return names


def run(args: argparse.Namespace) -> int:
    """Draw; file names on stdout. A picture that cannot be read costs status 1, not the others."""
    given = args.methods
    args.methods = given or ["attention"]
    _check_options(args)
    needs_pictures = args.methods[0] not in WITHOUT_PICTURES
    if needs_pictures != bool(args.images):
        got = f"got {len(args.images)}" if args.images else "got none"
        wanted = "at least one picture" if needs_pictures else "no picture"
        raise ValueError(f"expected {wanted} with --method {args.methods[0]}, {got}")
    files = picture_files(args.images)
    can_draw = _can_draw(args)
    opened = opening.open_weights(args)
    if given is None:
        args.methods = possible_methods(opened.model)[:1]
        _check_options(args)
    plan = _plan(args, opened)
    settings, folder = _settings_in_names(args, range(opened.model.config.depth)), Path(args.out)
    with output.undone_on_failure(folder), Progress(len(files), "pictures") as progress:
        names = output.Names(output.writable_folder(folder), files)
        finish = Finish(can_draw, args.save_arrays, progress.print)
        reader = Reader(opened.preprocessing, progress, with_shown=True)
        if args.methods[0] in ("distance", *WITHOUT_PICTURES):
            drawing = _of_model(opened, args.methods[0], reader.groups(files, args.batch_size))
            if drawing is not None:
                name = output.in_a_name(opened.name.replace(".", "-"))
                finish(drawing, names.file(name, f"-{args.methods[0]}{settings}.png"))
        else:
            for photos in reader.groups(files, args.batch_size):
                for drawing in maps.drawings(plan, photos):
                    path = names.file(drawing.picture, f"-{plan.name}{settings}.png")
                    finish(drawing, path)
                    if drawing.picture in names.doubles:
                        progress.note(f"note: {path.stem} is of {drawing.picture}")
    output.note_replaced(names.replaced, folder)
    return reader.status


def _plan(args: argparse.Namespace, opened: Opened) -> Plan:
    methods = _possible(args, opened)
    options = MapOptions(
        heads=args.heads or "mean",
        discard=args.discard or 0.0,
        block=_block(args.block, opened),
        target=_target(getattr(args, "class"), methods, opened),
    )
    return Plan(opened, methods, options, args.mass or 1.0)


def _can_draw(args: argparse.Namespace) -> bool:
    """Whether there is matplotlib; without it, arrays can be written, but nothing else."""
    try:
        output.check_can_draw()
    except ImportError as error:
        if not args.save_arrays:
            raise
        output.note(f"{errors.one_line(str(error))} (only the arrays are written)")
        return False
    return True


def _settings_in_names(args: argparse.Namespace, blocks: range) -> str:
    """What was asked for besides the method and the class, as the end of a file's name."""
    block = None if args.block is None else blocks[args.block]  # -2 would look like 2
    given = [("block", block), *((name.split("_")[-1], getattr(args, name)) for name in NAMED)]
    words = [f"{name}-{value}" for name, value in [*given, *args.settings] if value is not None]
    return "".join(f"-{output.in_a_name(word)}" for word in words)


def _check_options(args: argparse.Namespace) -> None:
    """ValueError for an option that has no meaning for any of the methods."""
    for option, methods in OPTIONS.items():
        if getattr(args, option) is not None and not methods & set(args.methods):
            known = [name for name in (*METHODS, *OTHERS) if name in methods]
            raise ValueError(
                f"--{option} has no effect with --method {','.join(args.methods)}; it is for "
                f"{', '.join(known)}"
            )


def _possible(args: argparse.Namespace, opened: Opened) -> list[str]:
    """The methods; of "all" those that the model has, without a class those that need none."""
    methods: list[str] = args.methods
    if methods != list(METHODS):
        return methods
    methods = possible_methods(opened.model)
    others = [name for name in methods if name not in GRADIENT_METHODS]
    if opened.class_names or getattr(args, "class") is not None or not others:
        return methods
    output.note(f"without classes there is no {', '.join(sorted(GRADIENT_METHODS))}")
    return others


def _block(block: int | None, opened: Opened) -> int:
    depth = opened.model.config.depth
    if block is not None and not -depth <= block < depth:
        raise ValueError(f"expected --block from {-depth} to {depth - 1}, got {block}")
    return -1 if block is None else block


def _target(text: str | None, methods: Sequence[str], opened: Opened) -> int | None:
    """The class to explain, or the feature of a model without classes; None for the likeliest."""
    config = opened.model.config
    names = opened.class_names
    if names:
        return class_index(text, names, config.num_classes, opened.path) if text else None
    known = f"from 0 to {config.num_features - 1}"
    if text is None:
        if GRADIENT_METHODS.isdisjoint(methods):
            return None
        raise ValueError(
            f"expected --class with --method {','.join(methods)} and a model without classes, got "
            f"none; --class N explains feature N, {known}"
        )
    if not (text.isdecimal() and int(text[:18]) < config.num_features):
        raise ValueError(
            f"expected --class {known}, a feature, as the model is without classes, got {text!r}"
        )
    return int(text)


def _of_model(opened: Opened, method: str, groups: Iterator[list[Photo]]) -> Drawing | None:
    if method == "distance":
        return _distance(opened, groups)
    if method == "filters":
        filters = model_filters(opened.model)
        arrays = {"components": filters.components, "explained": filters.explained}
        return Drawing("", lambda path: draw_filters(filters, path), arrays)
    found = model_positions(opened.model)
    return Drawing("", lambda path: draw_positions(found, path), {"similarity": found.maps})


def _distance(opened: Opened, groups: Iterator[list[Photo]]) -> Drawing | None:
    """The mean over all pictures, read a few at a time; None without any."""
    total: Any = None
    count = 0
    for photos in groups:
        found = measure_heads(opened.model, as_batch(photos))
        parts = [value * len(photos) for value in found]
        total = parts if total is None else [a + b for a, b in zip(total, parts, strict=True)]
        count += len(photos)
    if total is None:
        return None
    measures = type(found)(*(value / count for value in total))
    arrays = {name: numpy.asarray(value) for name, value in measures._asdict().items()}
    told: dict[str, Any] = {"model": opened.name, "images": count}
    return Drawing("", lambda path: draw_measures(measures, path, **told), arrays)


@dataclasses.dataclass(frozen=True)
class Finish:
    """Writes drawings, and the arrays if they are asked for; shows which files these are."""

    can_draw: bool
    save_arrays: bool
    show: Callable[[str], None]

    def __call__(self, drawing: Drawing, path: Path) -> None:
        """Write it to `path`."""
        if self.save_arrays:
            arrays = path.with_suffix(".npz")
            maps.save_arrays(arrays, drawing.arrays)
            self.show(str(arrays))
        if self.can_draw:
            drawing.draw(path)
            self.show(str(path))
