"""Models from files, whatever wrote them, with the classes and the preprocessing that they know."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from numpyvit.backend import nearest, suggest
from numpyvit.cli import errors, output, parsing
from numpyvit.data import PREPROCESSINGS, Preprocessing
from numpyvit.data.preprocessing import LARGEST_SIDE
from numpyvit.models import (
    FAMILIES,
    ImageModel,
    Labelling,
    SavedModel,
    load_model,
    packaged_archive,
)
from numpyvit.nn import Size
from numpyvit.train import RunConfig, RunFolder
from numpyvit.weights import Pretrained, load_pretrained
from numpyvit.weights import open_weights as check_weights

RECORD = "__numpyvit__"  # the entry that tells numpyvit's own checkpoints from others' files
PACKAGED = "vit_cifar_patch4_32"
FORMATS = """\
FILE is a run folder or checkpoint of `numpyvit train`, or a Vision Transformer
of timm, torchvision, Hugging Face (the folder), Google, DeiT, MAE, DINO, or a
Swin Transformer: .safetensors, .npz, .pth, .pt or .bin. None of their libraries
is needed."""
# What files leave open, which is what --set is for; all else is decided by their arrays.
SETTABLE = ("num_heads", "norm_eps", "activation", "pooling", "patch_size", "preprocessing")
SET_HELP = (
    f"correct what was concluded from the file, as in num_heads=6: {', '.join(SETTABLE)}; can be "
    "repeated"
)
INSPECTED = {"heads": "num_heads", "epsilon": "norm_eps"}  # as `numpyvit inspect` calls them
_HEADS = re.compile(r"expected a width that (-?\d+) heads divide, got (\d+)")
# What --set leaves to other options, to the file, or to training.
NOT_SET = {
    "image_size": "use --image-size",
    "num_classes": "the file has its classes",
    "encoder": "set its fields, as in depth=6",
    "dropout": "it is for training",
    "attention_dropout": "it is for training",
    "drop_path": "it is for training",
}


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model in `eval()` mode, and what is needed to use it.

    `report` says what was found out about a file that others wrote, and from what, or what is not
    taken of an own one; `record` is that of one of numpyvit's own checkpoints.
    """

    path: Path
    name: str
    model: ImageModel
    labelling: Labelling
    preprocessing: Preprocessing
    report: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    record: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class; none for a model without a head."""
        return self.labelling.class_names

    def check_classes(self) -> None:
        """ValueError for a model that was not trained to name classes."""
        if not self.model.config.num_classes:
            raise ValueError(
                f"expected a model that knows classes, got one without a head: {self.path}; "
                "`numpyvit features` writes what it computes, `numpyvit train --weights` gives it "
                "a head"
            )


def add_weights(parser: parsing.Parser, without: str) -> None:
    """Add the options that choose a model; `without` says what happens if none is named."""
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help=f"run folder or file with a model, see above ({without}); --checkpoint is the same",
    )
    parser.add_argument("--checkpoint", dest="weights", help=argparse.SUPPRESS)
    add_changes(parser)


def add_changes(parser: parsing.Parser) -> None:
    """Add the options that change how a model's file is read."""
    parser.add_argument(
        "--image-size",
        metavar="N",
        type=side,
        help="pixels of the square that the model gets; its positions are resized",
    )
    parser.add_argument(
        "--set",
        dest="settings",
        metavar="FIELD=VALUE",
        type=setting,
        action="append",
        default=[],
        help=SET_HELP,
    )


def side(text: str) -> int:
    """Pixels of a square that pictures are resized to."""
    pixels = parsing.positive(text)
    if pixels > LARGEST_SIDE:
        raise argparse.ArgumentTypeError(f"expected at most {LARGEST_SIDE} pixels, got {pixels}")
    return pixels


def setting_of_model(text: str) -> tuple[str, Any]:
    """The same for a model to train, of which every field can be set."""
    fields = [
        field.name for family in FAMILIES.values() for field in dataclasses.fields(family.config)
    ]
    return setting(text, [name for name in dict.fromkeys(fields) if name not in NOT_SET])


def setting(text: str, known: Sequence[str] = SETTABLE) -> tuple[str, Any]:
    """A field of a model's configuration, or "preprocessing", and its value: from "num_heads=6".

    The `known` ones are offered instead of an unknown one.
    """
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    name = INSPECTED.get(name, name)
    kinds = {"preprocessing": ["str"]}  # a field can be another in each family
    for family in FAMILIES.values():
        for field in dataclasses.fields(family.config):
            kinds.setdefault(field.name, []).append(str(field.type))
    if not equals:
        raise argparse.ArgumentTypeError(f"expected FIELD=VALUE as in num_heads=6, got {text!r}")
    if name in NOT_SET:
        raise argparse.ArgumentTypeError(f"{name} cannot be set: {NOT_SET[name]}")
    if name not in kinds:
        raise argparse.ArgumentTypeError(
            f"unknown field {name!r}; {nearest(name, kinds)}known: {', '.join(known)}"
        )
    if name == "preprocessing" and value.strip() not in PREPROCESSINGS:
        near = suggest(value.strip(), PREPROCESSINGS)
        raise argparse.ArgumentTypeError(f"unknown preprocessing {value.strip()!r}; {near}")
    convert: dict[str, Any] = {
        "int": int,
        "float": float,
        "str": str,
        "bool": _truth,
        "Size": lambda text: int(text) if text.isdecimal() else _whole_numbers(text),
        "tuple[int, ...]": _whole_numbers,
    }
    for kind in kinds[name]:
        with contextlib.suppress(KeyError, ValueError):
            return name, convert[kind](value.strip())
    meaning = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "Size": "a whole number, or two with a comma between",
        "tuple[int, ...]": "whole numbers with commas between",
    }
    raise argparse.ArgumentTypeError(f"expected {meaning[kinds[name][0]]} as {name}, got {value!r}")


def _whole_numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def open_weights(args: argparse.Namespace) -> Opened:
    """The model that the options choose; what matters of a file's reading goes to stderr."""
    opened = open_model(args.weights, args.image_size, args.settings)
    if opened.report:
        output.note(output.summary(opened.report, args.weights or opened.path))
    return opened


def open_model(
    path: str | None,
    image_size: int | None = None,
    settings: Sequence[tuple[str, Any]] = (),
) -> Opened:
    """The model at `path`, a file or a folder; without a path the packaged one.

    Raises FileNotFoundError where there is none, ValueError for a file that is no model.
    """
    file = _packaged() if path is None else weights_file(path)
    if _is_own(file) and image_size is None and not settings:
        check_weights(file)  # its limits hold for numpyvit's own files, too
        return _own(load_model(file))
    found = read_pretrained(file, image_size, settings)
    return Opened(
        file,
        found.name,
        found.model,
        found.labelling,
        found.preprocessing,
        list(found.report),
        _record(file) if _is_own(file) else {},
    )


def read_pretrained(
    file: Path, image_size: int | None, settings: Sequence[tuple[str, Any]]
) -> Pretrained:
    """`load_pretrained`, whose errors speak of options: UsageError for one that --set causes."""
    try:
        return load_pretrained(file, image_size=image_size, **dict(settings))
    except ValueError as error:
        text = re.sub(r"\b(\w+)=\.\.\.", _as_option, str(error))
        name = _culprit(file, image_size, dict(settings), str(error))
        if name is not None:
            raise errors.UsageError(f"argument --set: {name}: {_said(text)}") from error
        raise ValueError(text) from error


def _as_option(field: re.Match[str]) -> str:
    name = field[1]
    return "--image-size" if name == "image_size" else f"--set {name}=..."


def _culprit(
    file: Path, image_size: int | None, settings: dict[str, Any], fault: str
) -> str | None:
    """The field without which the file opens, or has another fault; None if it is no field's."""
    others = {}
    for name in settings:
        rest = {other: value for other, value in settings.items() if other != name}
        try:
            load_pretrained(file, image_size=image_size, **rest)
        except ValueError as error:
            others[name] = str(error)
        else:
            return name
    return next((name for name, other in others.items() if other != fault), None)


def _said(fault: str) -> str:
    """A fault for those who can change the number of heads, but not the width that they divide."""
    text = errors.one_line(fault)
    heads = _HEADS.search(text)
    if heads is None:
        return text
    width = int(heads[2])
    divisors = ", ".join(str(n) for n in range(1, width + 1) if width % n == 0)
    return f"expected heads that divide the width {width} ({divisors}), got {heads[1]}"


def weights_file(path: str | Path) -> Path:
    """What holds the weights that `path` names: of a run folder its last checkpoint."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"expected a file or folder with a model, found none at {path}")
    run = RunFolder(path)
    if not path.is_dir() or not (run.last.is_file() or _is_run(run)):
        return path
    run.config()
    if not run.last.is_file():
        raise FileNotFoundError(
            f"expected a run with a checkpoint, but {path} was stopped before its first one; "
            f"continue it with train --resume {path}"
        )
    return run.last


def run_of(opened: Opened) -> RunConfig | None:
    """The configuration of the run that a model comes from, if it says; ValueError if damaged."""
    fields = opened.record.get("run")
    if fields is None:
        return None
    try:
        return RunConfig.from_dict(fields)
    except ValueError as error:
        raise ValueError(
            f"expected a checkpoint that says how it was trained, but {opened.path} does "
            f"not ({errors.one_line(str(error))}); name the data with --data"
        ) from error


def _packaged() -> Path:
    try:
        return packaged_archive(PACKAGED)
    except ValueError as error:
        raise FileNotFoundError(
            "this copy of numpyvit comes without trained weights; name a file with --weights "
            f"(or train a model first: {output.this_command()} train)"
        ) from error


def _is_run(folder: RunFolder) -> bool:
    """Whether there is a run's config.json: others put files of that name beside weights."""
    try:
        return "recipe" in json.loads(folder.config_file.read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _is_own(file: Path) -> bool:
    """Whether numpyvit wrote the checkpoint; only the list of what is in it is read."""
    try:
        with zipfile.ZipFile(file) as archive:
            return f"{RECORD}.npy" in archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def _record(file: Path) -> dict[str, Any]:
    """What one of numpyvit's checkpoints says of itself, without its arrays."""
    with numpy.load(file, allow_pickle=False) as archive:
        return dict(json.loads(archive[RECORD].tobytes()))


def _own(saved: SavedModel) -> Opened:
    archive, labelling, model = saved.archive, saved.labelling, saved.model.backbone().eval()
    try:
        preprocessing = (
            _squares(model.config.image_size, labelling)
            if saved.preprocessing is None
            else Preprocessing.from_dict(saved.preprocessing)
        )
    except ValueError as error:
        raise ValueError(
            f"expected a checkpoint that says how pictures are prepared, but {archive.path} does "
            f"not ({errors.one_line(str(error))})"
        ) from error
    text = saved.model.left_out()
    report = [("left out", text)] if text else []
    return Opened(archive.path, saved.name, model, labelling, preprocessing, report, archive.record)


def _squares(size: Size, labelling: Labelling) -> Preprocessing:
    """What models are trained with that do not start from the weights of others."""
    rule = PREPROCESSINGS["numpyvit"].at(size)
    return dataclasses.replace(rule, mean=labelling.mean, std=labelling.std)
