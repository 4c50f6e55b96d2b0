"""Fine-tune a pretrained ViT on two look-alike classes, and write the table of the results.

    python tools/write_fine_tuning.py --weights DEIT_TINY.safetensors --data-dir CIFAR_10

Every row of docs/fine_tuning.md comes from a run of `numpyvit train` that this starts; what is
finished is not run again, and what was stopped by Ctrl-C goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import shlex
from pathlib import Path

import numpy
import training_runs
from write_results import replace_between

from numpyvit.backend import require
from numpyvit.data import load_cifar10
from numpyvit.models import ImageModel, load_model
from numpyvit.train import RunConfig, RunFolder, available_cores, freeze

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "fine_tuning.md"
CLASSES = ("cat", "dog")
COUNTS = {"train": 200, "test": 500}  # pictures of each class: the first ones of CIFAR-10


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the table: what it is called, and the options of its run."""

    name: str
    title: str
    options: tuple[str, ...]


CASES = (
    Case("head", "linear probe", ("--weights", "{weights}", "--tune", "head")),
    Case("last-2", "the last 2 blocks", ("--weights", "{weights}", "--tune", "last:2")),
    Case("all", "all of it", ("--weights", "{weights}")),
    Case(
        "nothing-small",
        "from nothing, the tiny ViT for 32 pixels",
        ("--epochs", "100", "--batch-size", "32"),
    ),
    Case(
        "nothing-same",
        "from nothing, the same ViT",
        ("--model", "vit_tiny_patch16_224", "--epochs", "10", "--batch-size", "32", "--lr", "3e-4"),
    ),
)


def write_pictures(folder: Path, data_dir: str) -> None:
    """PNGs of two of CIFAR-10's classes, 32 x 32 pixels: folder/train/cat/00009.png, ..."""
    pillow = require("PIL.Image", extra="full", purpose="writing pictures")
    for split, count in COUNTS.items():
        data = load_cifar10(split, data_dir=data_dir)
        for name in CLASSES:
            place = folder / split / name
            place.mkdir(parents=True, exist_ok=True)
            chosen = numpy.flatnonzero(data.labels == data.class_names.index(name))[:count]
            for index, pixels in zip(chosen.tolist(), data.images(chosen), strict=True):
                path = place / f"{index:05}.png"
                if not path.exists():
                    pillow.fromarray(pixels.transpose(1, 2, 0)).save(path)


def row(case: Case, run: RunFolder) -> str:
    """A finished run as a line of the table."""
    config, rows = run.config(), run.rows()
    last, rate = rows[-1], numpy.median([row["images_per_second"] for row in rows])
    unit = " features" if config.tune == "head" else ""
    minutes, seconds = divmod(round(last["seconds"]), 60)
    model = load_model(run.last).model
    return (
        f"| {case.title} | {trained(model, config):,} | {last['epoch']} | "
        f"{rate:,.0f}{unit} | {minutes} min {seconds:02d} s | "
        f"{last['train_accuracy']:.1%} | **{last['val_accuracy']:.1%}** |"
    )


def trained(model: ImageModel, config: RunConfig) -> int:
    """How many numbers of the model the run trained."""
    freeze(model, config.tune)
    return sum(parameter.size for parameter in model.parameters() if parameter.requires_grad)


def table(runs: dict[str, RunFolder]) -> str:
    """The table, the commands, and what it was measured on."""
    tests = COUNTS["test"] * len(CLASSES)
    lines = [
        "| what is trained | parameters | epochs | images a second | wall time "
        "| on training pictures | **on test pictures** |",
        "|---|---|---|---|---|---|---|",
        *(row(case, runs[case.name]) for case in CASES),
    ]
    shown = [
        shlex.join(["numpyvit", "train", "--data", "catdog", *case.options]).replace(
            "'{weights}'", "deit_tiny_patch16_224.safetensors"
        )
        for case in CASES
    ]
    error = 100 * (0.9 * 0.1 / tests) ** 0.5
    return "\n".join(
        [
            *lines,
            "",
            f"{COUNTS['train'] * len(CLASSES):,} training and {tests:,} test pictures; accuracy on "
            "the test pictures after the last epoch, one seed",
            f"each (standard error at 90%: {error:.1f} points). Images a second while training, "
            "the median epoch; wall time of training,",
            f"features and validation together, on {available_cores()} cores that other programs "
            f"used as well. Python {platform.python_version()}, NumPy {numpy.__version__}.",
            "The commands:",
            "```",
            *shown,
            "```",
        ]
    )


def main() -> None:
    """Make the pictures, run what is left to run, and write the page's table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="a DeiT-Tiny, as timm names it")
    parser.add_argument("--data-dir", required=True, help="where CIFAR-10 lies")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "fine-tuning")
    options = parser.parse_args()
    data = options.work / "catdog"
    write_pictures(data, options.data_dir)
    runs = {case.name: RunFolder(options.work / case.name) for case in CASES}
    for case in CASES:
        words = [option.format(weights=options.weights) for option in case.options]
        training_runs.finish(runs[case.name].path, ["--data", str(data), *words])
    PAGE.write_text(replace_between(PAGE.read_text(), "fine-tuning", table(runs)))


if __name__ == "__main__":
    main()
