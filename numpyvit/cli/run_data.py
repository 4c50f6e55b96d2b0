"""The data of a run: which pictures, and whether there are enough of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy

from numpyvit.data import (
    Dataset,
    ImageFolder,
    Preprocessing,
    Subset,
    hold_out,
    load_dataset,
)
from numpyvit.data.catalogue import NAMES, SHAPES_COUNT
from numpyvit.train import PreparedPictures, RunConfig, training_view

# Of larger `shapes` than usual no more than these are made: they lie in memory.
USUAL_PIXELS, LARGEST_BYTES = 32, 2_000_000_000


def absolute_data(name: str, data_dir: str | None) -> tuple[str, str | None]:
    """Data as a run's configuration names it: folders in full, so that it works from anywhere."""
    if name not in NAMES and Path(name).is_dir():
        name = str(Path(name).resolve())
    return name, None if data_dir is None else str(Path(data_dir).resolve())


def run_data(config: RunConfig) -> tuple[Dataset, Dataset]:
    """The images that a run trains on, and those that it validates on."""
    rule, count = config.preprocessing, config.train_images
    # With a preprocessing, pictures are resized when they are asked for.
    image_size = USUAL_PIXELS if rule else config.named_model().image_size
    settings: dict[str, Any] = {"data_dir": config.data_dir, "image_size": image_size}
    _check_counts(config, image_size)
    if config.data == "shapes" and count:
        train = load_dataset(config.data, count=count + config.validation_split, **settings)
    else:
        train = load_dataset(config.data, **settings)
    order = numpy.arange(len(train))
    if isinstance(train, ImageFolder):  # sorted by class, so that a part would miss some
        order = numpy.random.default_rng(0).permutation(len(train))
    wider = training_view(rule, config.recipe) if rule else None
    if rule and not isinstance(train, ImageFolder) and max(train.image_shape[1:]) <= rule.size:
        wider = rule  # enlarged, pictures in memory would not show more
    held_out = Subset(_prepared(train, rule), order)
    train = Subset(_prepared(train, wider), order)
    if config.validation_split:
        train = hold_out(train, config.validation_split)[0]
        validation = hold_out(held_out, config.validation_split)[1]
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
    size = USUAL_PIXELS if config.preprocessing else image_size
    data = load_dataset(config.data, "test", data_dir=config.data_dir, image_size=size, count=count)
    return _prepared(data, config.preprocessing)


def _prepared(data: Dataset, rule: Preprocessing | None) -> Dataset:
    return PreparedPictures(data, rule) if rule else data


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
