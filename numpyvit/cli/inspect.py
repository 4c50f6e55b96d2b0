"""`numpyvit inspect`: what a file of weights holds."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from numpyvit.cli import errors, opening, output, parsing
from numpyvit.cli.classes import wordnet_ids
from numpyvit.cli.opening import Opened
from numpyvit.models import VARIANTS, ViTConfig, count_multiply_adds

ABOUT = f"""\
What a file of weights holds: its form, the model in it, how pictures are to be
prepared, and what was concluded from what.

{opening.FORMATS}"""

EXAMPLES = """
numpyvit inspect deit_tiny_patch16_224.safetensors
numpyvit inspect vit-base-patch16-224/ --arrays
numpyvit inspect runs/photos --classes
numpyvit inspect checkpoint.pth --json
"""

READ = {
    "token": "the class token",
    "avg": "the mean of the patches",
    "token_avg": "the class token and the mean of the patches",
    "max": "the maximum of the patches",
    "score": "a mean of the patches, weighted by learned scores",
    "map": "what a learned query attends to",
}

# What a name does not say: it depends on the training and its data.
UNTOLD = ("num_classes", "dropout", "attention_dropout", "drop_path")


def add_parser(commands: parsing.Commands) -> None:
    """Add the command."""
    parser = parsing.add_command(
        commands, "inspect", "say what a file of weights holds", ABOUT, EXAMPLES
    )
    parser.set_defaults(run=run)
    parser.add_argument("file", metavar="FILE", help="the model, see above")
    opening.add_changes(parser)
    parser.add_argument("--arrays", action="store_true", help="list the parameters too")
    parser.add_argument("--classes", action="store_true", help="list the classes too")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")


def run(args: argparse.Namespace) -> int:
    """Print what was found, on stdout."""
    opened = opening.open_model(args.file, args.image_size, args.settings)
    if args.json:
        output.print_json(_record(opened))
        return errors.SUCCESS
    parts = [output.report(_facts(opened))]
    if args.arrays:
        parts.append(output.table([("array", "shape", "type"), *_arrays(opened)], left=3))
    if args.classes and opened.class_names:
        parts.append(output.table(_classes(opened), left=3))
    print("\n\n".join(parts))
    return errors.SUCCESS


def _facts(opened: Opened) -> list[tuple[str, str]]:
    """What to say about the model, each fact under its name."""
    config = opened.model.config
    cost = f"{output.multiply_adds(count_multiply_adds(config))} multiply-adds a picture"
    facts = [
        ("file", str(opened.path)),
        ("model", f"{_name(opened)}, {opened.model.num_parameters():,} parameters, {cost}"),
        ("architecture", _architecture(config)),
    ]
    own = _own_facts(opened) if opened.record else []
    for group in (opened.report, own, [("preprocessing", opened.preprocessing.describe())]):
        known = {name for name, _ in facts}
        facts += [fact for fact in group if fact[0] not in known]
    return facts


def _name(opened: Opened) -> str:
    """The model's name, with what is otherwise in it than in the model of that name."""
    config: Any = opened.model.config
    named = VARIANTS.get(opened.name)
    if opened.record.get("family") == "mae":
        return f"the encoder of {opened.name}"
    if not opened.record or type(named) is not type(config):
        return opened.name
    fields = (
        field.name for field in dataclasses.fields(opened.model.config) if field.name not in UNTOLD
    )
    told = [
        f"{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name in fields
        if (value := getattr(config, name)) != getattr(named, name)
    ]
    return f"{opened.name} with {', '.join(told)}" if told else opened.name


def _architecture(config: Any) -> str:
    """The main sizes and choices in one sentence."""
    height, width = config.image_shape
    stages, window = getattr(config, "depths", ()), getattr(config, "window_size", 0)
    blocks = f"{output.by_stage(stages)} blocks" if stages else f"{config.depth} blocks"
    windows = f"windows of {window} x {window} tokens, " if window else ""
    return (
        f"{height} x {width} pixels in patches of {config.patch_size}, "
        f"{blocks}, {windows}width {config.embed_dim}, {output.by_stage(config.num_heads)} heads, "
        f"{'SwiGLU' if config.mlp == 'swiglu' else 'MLP'} of {config.mlp_dim} "
        f"({config.activation}){_other_parts(config)}"
    ) + (f"; the head reads {_read(config.pooling)}" if config.num_classes else "")


def _read(pooling: str) -> str:
    """What the head reads; of a pooling that has no words here, its name."""
    return READ.get(pooling, f"pooling {pooling}")


def _other_parts(config: Any) -> str:
    """The parts that are of another kind than those of the first ViTs."""
    kinds = {part: getattr(ViTConfig, part) for part in ("stem", "positions", "block", "norm")}
    own = {part: getattr(config, part, kind) for part, kind in kinds.items()}
    return "".join(f", {part} {kind}" for part, kind in own.items() if kind != kinds[part])


def _own_facts(opened: Opened) -> list[tuple[str, str]]:
    """Those of a checkpoint that numpyvit wrote, in which nothing has to be concluded."""
    names = opened.class_names
    listed = ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])])
    facts = [
        ("container", "numpyvit's own checkpoint"),
        ("classes", f"{len(names)}: {listed}" if names else "none, there is no head"),
    ]
    run = opening.run_of(opened)
    return (
        facts if run is None else [*facts, ("trained on", f"{run.data}, recipe {run.recipe_name}")]
    )


def _arrays(opened: Opened) -> list[tuple[str, str, str]]:
    return [
        (name, " x ".join(map(str, array.shape)) or "a number", str(array.dtype))
        for name, array in opened.model.state_dict().items()
    ]


def _classes(opened: Opened) -> list[tuple[str, str, str]]:
    ids = wordnet_ids(opened.class_names) or ("",) * len(opened.class_names)
    return [
        (str(index), identifier, name)
        for index, (identifier, name) in enumerate(zip(ids, opened.class_names, strict=True))
    ]


def _record(opened: Opened) -> dict[str, Any]:
    ids = wordnet_ids(opened.class_names)
    return {
        "file": str(opened.path),
        "model": opened.name,
        "parameters": opened.model.num_parameters(),
        "config": opened.model.config.to_dict(),
        "preprocessing": opened.preprocessing.to_dict(),
        "class_names": list(opened.class_names),
        **({"wordnet_ids": list(ids)} if ids else {}),
        "report": dict(_facts(opened)),
        "arrays": {name: list(array.shape) for name, array in opened.model.state_dict().items()},
    }
