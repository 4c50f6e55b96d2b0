"""What the commands share: options, checkpoints, data, folders, tables."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy

from numpyvit.backend import suggest
from numpyvit.cli import errors
from numpyvit.data import (
    Dataset,
    ImageFolder,
    Normalize,
    Subset,
    hold_out,
    load_dataset,
    read_picture,
)
from numpyvit.data.catalogue import NAMES, SHAPES_COUNT
from numpyvit.models import (
    SavedModel,
    load_model,
    load_packaged_model,
    model_config,
    packaged_archive,
)
from numpyvit.train import RunConfig, RunFolder

Commands = Any  # what argparse's add_subparsers returns; its type is private
SHOWN_PIXELS = 320  # side of the square that is drawn, of a picture that has as many
PACKAGED = "vit_cifar_patch4_32"
# Of larger `shapes` than usual no more than these are made: they lie in memory.
USUAL_PIXELS, LARGEST_BYTES = 32, 2_000_000_000


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line and exits with status 2."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an unknown option is a mistake, and the nearest one is suggested."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            options = [
                name
                for action in self._actions
                for name in action.option_strings
                if name.startswith("--")
            ]
            self.error(f"unknown argument {unknown[0]!r}; {suggest(unknown[0], options)}")
        return found, unknown

    def error(self, message: str) -> Any:
        """Report and leave."""
        errors.report(f"{message}; see {self.prog} --help")
        raise SystemExit(errors.USAGE)


class Help(argparse.RawDescriptionHelpFormatter):
    """Help whose own line breaks stay, with room for the names on the left."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, **{"max_help_position": 26, **settings})


def add_command(commands: Commands, name: str, summary: str, about: str, examples: str) -> Parser:
    """A sub-command's parser; its help ends with `examples`, one command a line."""
    lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=about,
        epilog=f"examples:\n{lines}",
        formatter_class=Help,
        allow_abbrev=False,
    )
    return parser


def positive(text: str) -> int:
    """A whole number above 0."""
    return _number(text, int, "a whole number above 0", lambda value: value > 0)


def natural(text: str) -> int:
    """A whole number of at least 0."""
    return _number(text, int, "a whole number of at least 0", lambda value: value >= 0)


def positive_real(text: str) -> float:
    """A finite number above 0."""
    return _number(text, float, "a number above 0", lambda value: 0 < value < float("inf"))


def real(text: str) -> float:
    """A finite number of at least 0."""
    return _number(text, float, "a number of at least 0", lambda value: 0 <= value < float("inf"))


def share(text: str) -> float:
    """A number from 0 to below 1."""
    return _number(text, float, "a number from 0 to below 1", lambda value: 0 <= value < 1)


def _number(text: str, kind: Any, meaning: str, is_valid: Any) -> Any:
    with contextlib.suppress(ValueError):
        if is_valid(value := kind(text)):
            return value
    raise argparse.ArgumentTypeError(f"expected {meaning}, got {text!r}")


def note(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """A result for programs, on stdout."""
    print(json.dumps(value, indent=2))


def table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Rows of text in columns, the first `left` of them aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            text.ljust(width) if number < left else text.rjust(width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def this_command() -> str:
    """How the program was called, for the commands that it suggests: they work as they stand."""
    called = Path(sys.argv[0])
    if called.parts[-2:] == ("numpyvit", "__main__.py"):
        return f"{shlex.quote(sys.orig_argv[0])} -m numpyvit"
    if called.stem != "numpyvit" or not called.is_file():  # called from another program
        return "numpyvit"
    found = shutil.which("numpyvit")
    is_on_path = found is not None and called.samefile(found)
    return "numpyvit" if is_on_path else shlex.quote(sys.argv[0])


def writable_folder(path: str | Path) -> Path:
    """`path`, made if need be and tried out; OSError that says why it cannot be written to."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise OSError(
            f"expected an output folder that can be written to, got {path} "
            f"({error.strerror}); give another one"
        ) from error


@contextlib.contextmanager
def undone_on_failure(path: Path) -> Iterator[None]:
    """Take back, when the block fails, the folders on the way to `path` that were not there."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):  # other files in it: it stays
                folder.rmdir()
        raise


def checkpoint_file(path: str | Path) -> Path:
    """The checkpoint that `path` names: a file, or the last one of a run folder."""
    path = Path(path)
    if not path.is_dir():
        return path
    run = RunFolder(path)
    run.config()
    if not run.last.is_file():
        raise FileNotFoundError(
            f"expected a run with a checkpoint, but {path} was stopped before its first one; "
            f"continue it with train --resume {path}"
        )
    return run.last


def open_checkpoint(path: str | None) -> SavedModel:
    """The model at `path`, a checkpoint or a run folder; without a path the packaged one."""
    if path is not None:
        return load_model(checkpoint_file(path))
    try:
        packaged_archive(PACKAGED)
    except ValueError as error:
        raise FileNotFoundError(
            "this copy of numpyvit comes without trained weights; name a run folder or a "
            f"checkpoint (train a model first: {this_command()} train)"
        ) from error
    return load_packaged_model(PACKAGED)


def run_of(saved: SavedModel) -> RunConfig | None:
    """The configuration of the run that `saved` comes from, if it says; ValueError if damaged."""
    fields = saved.archive.record.get("run")
    if fields is None:
        return None
    try:
        return RunConfig.from_dict(fields)
    except ValueError as error:
        raise ValueError(
            f"expected a checkpoint that says how it was trained, but {saved.archive.path} does "
            f"not ({errors.one_line(str(error))}); name the data with --data"
        ) from error


def normalization(saved: SavedModel) -> Normalize:
    """From uint8 pixels to what the model takes."""
    return Normalize(saved.labelling.mean, saved.labelling.std)


def read_input(saved: SavedModel, path: str) -> numpy.ndarray:
    """A picture file as the model takes it: float32 (1, C, H, W)."""
    pixels = read_picture(path, saved.model.config.image_size)
    return normalization(saved)(pixels[None])


def read_shown(saved: SavedModel, path: str) -> numpy.ndarray:
    """The square that the model sees, uint8 (3, S, S), with more pixels if the file has them."""
    short_side = min(read_picture(path).shape[1:])
    return read_picture(path, max(saved.model.config.image_size, min(short_side, SHOWN_PIXELS)))


@dataclasses.dataclass
class Names:
    """Different files in one folder for pictures that may have the same name; never an input."""

    folder: Path
    inputs: Sequence[str]
    taken: set[str] = dataclasses.field(default_factory=set)

    def file(self, picture: str, ending: str) -> Path:
        """Where what is drawn for `picture` goes."""
        stem, number = Path(picture).stem, 1
        while not self._is_free(name := f"{stem}{f'-{number}' if number > 1 else ''}{ending}"):
            number += 1
        self.taken.add(name)
        return self.folder / name

    def _is_free(self, name: str) -> bool:
        file = self.folder / name
        return name not in self.taken and not (
            file.exists()
            and any(Path(path).exists() and file.samefile(path) for path in self.inputs)
        )


def absolute_data(name: str, data_dir: str | None) -> tuple[str, str | None]:
    """Data as a run's configuration names it: folders in full, so that it works from anywhere."""
    if name not in NAMES and Path(name).is_dir():
        name = str(Path(name).resolve())
    return name, None if data_dir is None else str(Path(data_dir).resolve())


def run_data(config: RunConfig) -> tuple[Dataset, Dataset]:
    """The images that a run trains on, and those that it validates on."""
    image_size, count = model_config(config.model).image_size, config.train_images
    settings: dict[str, Any] = {"data_dir": config.data_dir, "image_size": image_size}
    _check_counts(config, image_size)
    if config.data == "shapes" and count:
        train = load_dataset(config.data, count=count + config.validation_split, **settings)
    else:
        train = load_dataset(config.data, **settings)
    if isinstance(train, ImageFolder):  # sorted by class, so that a part would miss some
        train = Subset(train, numpy.random.default_rng(0).permutation(len(train)))
    if config.validation_split:
        train, validation = hold_out(train, config.validation_split)
    else:
        validation = run_test_data(config, image_size)
    if count > len(train):
        raise ValueError(
            f"expected at most the {len(train)} training images of {config.data}, got "
            f"--train-images {count}"
        )
    return Subset(train, numpy.arange(count)) if count else train, validation


def run_test_data(config: RunConfig, image_size: int) -> Dataset:
    """The test images of a run's data; of large `shapes` at most as many as it trains on."""
    count = None
    if config.data == "shapes" and image_size > USUAL_PIXELS and config.train_images:
        count = min(config.train_images, SHAPES_COUNT["test"])
    return load_dataset(
        config.data, "test", data_dir=config.data_dir, image_size=image_size, count=count
    )


def _check_counts(config: RunConfig, image_size: int) -> None:
    """ValueError, before any picture is made, where there are too few or too many of them."""
    split, batch, count = config.validation_split, config.recipe.batch_size, config.train_images
    if config.data == "shapes" and not count:
        count = SHAPES_COUNT["train"] - split
        if count < 1:
            raise ValueError(
                f"expected --validation-split below {SHAPES_COUNT['train']}, got {split}"
            )
    if count and batch > count:
        raise ValueError(
            f"expected --batch-size of at most the {count} training images, got {batch}"
        )
    if config.data != "shapes" or image_size <= USUAL_PIXELS:
        return
    tests = SHAPES_COUNT["test"]
    total = count + split + (0 if split else min(count, tests) if config.train_images else tests)
    most = LARGEST_BYTES // (3 * image_size**2)
    if total > most:
        room = most - split if split else max(most // 2, most - tests)
        raise ValueError(
            f"expected at most {LARGEST_BYTES / 1e9:g} GB of pictures, got {total:,} of "
            f"{image_size}x{image_size} pixels ({3 * total * image_size**2 / 1e9:.1f} GB); make "
            f"fewer with --train-images, {max(room, 1):,} at most"
        )


def check_classes(saved: SavedModel, data: Dataset, name: str) -> None:
    """ValueError unless the model's classes are the data set's."""
    known, found = saved.labelling.class_names, data.class_names
    if known != found:
        raise ValueError(
            f"expected data with the {len(known)} classes of {saved.archive.path} "
            f"({_listed(known)}), got the {len(found)} classes of {name} ({_listed(found)}); "
            "choose the data that the model was trained on"
        )


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])
