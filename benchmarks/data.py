"""Images per second of the augmentation, beside those that the trainer consumes, and its waiting.

    python -m benchmarks data

For every named recipe: its transform alone, on one core, on batches of the recipe's size of random
uint8 images (3, 32, 32); then the trainer itself on such images with a worker on every core. Its
loader prepares batches in a background thread while steps are taken. Epochs with that loader and
epochs whose batches were prepared beforehand take turns, so that what loading costs in all shows as
well: the thread needs a core that a worker has. "Waiting" is the share of an epoch's seconds in
which the trainer asked for a batch and had to wait for it.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy

from benchmarks.side_by_side import parser, print_rows, rows_of, save
from numpyvit.data import ArrayDataset, Loader, Transform
from numpyvit.threads import single_threaded_blas
from numpyvit.train import RECIPES, Recipe, RunConfig, RunFolder, Trainer, available_cores

NAME = "data"
MODEL = "vit_cifar_patch4_32"
PREPARED, LOADING, ALONE = "training, batches prepared", "training, loading", "augmentation, 1 core"
Row = dict[str, Any]


def random_images(count: int, side: int = 32) -> ArrayDataset:
    """Noise in ten classes."""
    rng = numpy.random.default_rng(0)
    return ArrayDataset(
        rng.integers(0, 256, (count, 3, side, side), numpy.uint8), numpy.arange(count) % 10
    )


class WatchedLoader:
    """A loader's batches in epochs of even number, prepared ones in the others; waits are noted."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.prepared = list(loader.epoch(0))
        self.waits: list[float] = []

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Any]:
        """The batches of one epoch."""
        if epoch % 2 == 0:
            return self._watched(self.loader.epoch(epoch, start_batch))
        return self._watched(self.prepared[start_batch:])

    def _watched(self, batches: Iterable[Any]) -> Iterator[Any]:
        source, waited = iter(batches), 0.0
        while True:
            started = time.perf_counter()
            batch = next(source, None)
            waited += time.perf_counter() - started
            if batch is None:
                self.waits.append(waited)
                return
            yield batch


def augmentation(transform: Transform, data: ArrayDataset, batch: int, rounds: int) -> list[float]:
    """Seconds that the transform takes for all of `data`, on one core."""
    images = data.images(numpy.arange(len(data)))
    rng, found = numpy.random.default_rng(0), []
    with single_threaded_blas():
        transform(images[:batch], rng)
        for _ in range(rounds):
            started = time.perf_counter()
            for start in range(0, len(images), batch):
                transform(images[start : start + batch], rng)
            found.append(time.perf_counter() - started)
    return found


def trained(
    recipe: Recipe, data: ArrayDataset, rounds: int, model: str = MODEL, workers: int | None = None
) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of epochs of the trainer, with and without its loader; and of waiting for the loader.

    The first epoch of each kind is for warming up.
    """
    recipe = recipe.replace(epochs=2 * (rounds + 1))
    config = RunConfig(recipe=recipe, model=model)
    with tempfile.TemporaryDirectory() as path, contextlib.redirect_stderr(io.StringIO()):
        folder = RunFolder(path)
        folder.create(config)
        trainer = Trainer(config, folder, data, data_for_validation(data), workers=workers)
        watched = WatchedLoader(trainer.loader)
        trainer.loader = watched  # type: ignore[assignment]
        rows = trainer.fit()
    seconds = [len(data) / row["images_per_second"] for row in rows]
    return {PREPARED: seconds[3::2], LOADING: seconds[2::2]}, watched.waits[2::2]


def data_for_validation(data: ArrayDataset) -> ArrayDataset:
    """Ten images, so that little time goes there."""
    chosen = numpy.arange(10)
    return ArrayDataset(data.images(chosen), data.labels[chosen], data.class_names)


def measure(name: str, recipe: Recipe, data: ArrayDataset, rounds: int) -> list[Row]:
    """Rows of one recipe; ratios are to training on batches that were prepared beforehand."""
    transform = recipe.train_transform(data.image_shape[-1])
    alone = augmentation(transform, data, recipe.batch_size, rounds)
    seconds, waits = trained(recipe, data, rounds)
    rows = rows_of(f"{name}, batch {recipe.batch_size}", {**seconds, ALONE: alone}, PREPARED)
    share = statistics.median(
        wait / epoch for wait, epoch in zip(waits, seconds[LOADING], strict=True)
    )
    return [
        row
        | {
            "images_per_second": len(data) / row["median_s"],
            "waiting_percent": 100 * share if row["contender"] == LOADING else None,
        }
        for row in rows
    ]


def draw(rows: list[Row], path: Path) -> None:
    """Images per second, logarithmic: a group of bars a recipe."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = list(dict.fromkeys(row["case"] for row in rows))
    shades = {ALONE: "tab:green", LOADING: "tab:blue", PREPARED: "silver"}
    figure, axes = pyplot.subplots(figsize=(9, 1 + 1.2 * len(cases)))
    for row in rows:
        place = cases.index(row["case"]) + 0.27 * (list(shades).index(row["contender"]) - 1)
        axes.barh(place, row["images_per_second"], 0.25, color=shades[row["contender"]])
        text = f" {row['images_per_second']:.0f}"
        if row["waiting_percent"] is not None:
            text += f", {row['waiting_percent']:.2f}% of the time waiting"
        axes.text(row["images_per_second"], place, text, va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(100, 10 * max(row["images_per_second"] for row in rows))
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.set_xlabel("images per second")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=shade) for shade in shades.values()]
    axes.legend(handles, shades, fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=140)
    pyplot.close(figure)
    print(f"written: {path}")


def main(argv: list[str] | None = None) -> None:
    """Measure, print, save."""
    options = parser(__doc__ or "", rounds=5).parse_args(argv)
    data = random_images(512 if options.quick else 2048)
    rows = []
    for name, recipe in RECIPES.items():
        rows += measure(name, recipe, data, options.rounds)
    print(f"training on {available_cores()} workers")
    print_rows(rows)
    save(NAME, rows, options.out)
    draw(rows, options.out / f"{NAME}.png")
