"""The features that a linear probe is trained on: computed once, and kept in the run folder."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy

from numpyvit.data import Dataset, Transform
from numpyvit.models import ImageModel, read_archive, write_archive
from numpyvit.train.parallel import WorkerPool
from numpyvit.train.probe import FeatureData, head_inputs
from numpyvit.train.progress import counting
from numpyvit.train.run import RunConfig, RunFolder

_CHUNK = 16  # micro-batches between two steps of the progress bar, for each worker
_PARTS = ("train", "val")


def compute_features(
    model: ImageModel,
    dataset: Dataset,
    transform: Transform,
    pool: WorkerPool,
    *,
    micro_batch: int = 8,
    what: str = "features",
) -> numpy.ndarray:
    """What the head of `model` reads of every picture of `dataset`: (N, F), in its order.

    `transform` as for `evaluate`. The bits do not depend on the number of workers.
    """
    task = _FeatureTask(model, transform)
    starts = range(0, len(dataset), micro_batch)
    found: list[numpy.ndarray] = []
    with counting(len(dataset), what) as done:
        for first in range(0, len(starts), _CHUNK * pool.workers):
            chunk = starts[first : first + _CHUNK * pool.workers]

            def arguments(index: int, chunk: range = chunk) -> tuple[Any, ...]:
                end = min(chunk[index] + micro_batch, len(dataset))
                return (dataset.images(numpy.arange(chunk[index], end, dtype=numpy.int64)),)

            parts = pool.map(task, arguments, len(chunk))
            found += parts
            done(sum(map(len, parts)))
    return numpy.concatenate(found)


def probe_data(
    config: RunConfig,
    folder: RunFolder,
    model: ImageModel,
    data: tuple[Dataset, Dataset],
    pool: WorkerPool,
) -> tuple[FeatureData, FeatureData]:
    """The features of the training and the validation pictures of a run.

    They are read from the run folder where they lie there and belong to this run, and else
    computed and written to it.
    """
    found = _kept(config, folder, data)
    if found is None:
        normalize = config.recipe.normalize()
        found = [
            compute_features(model, part, normalize, pool, what=f"features ({name})")
            for part, name in zip(data, ("training", "validation"), strict=True)
        ]
        arrays = dict(zip(_PARTS, found, strict=True))
        arrays |= {f"{name}_labels": part.labels for name, part in zip(_PARTS, data, strict=True)}
        write_archive(folder.features, {}, _origin(config), arrays)
    train, val = (FeatureData(*pair) for pair in zip(data, found, strict=True))
    return train, val


@dataclasses.dataclass(frozen=True)
class _FeatureTask:
    """A few pictures: what the head reads of them."""

    model: ImageModel
    transform: Transform

    def __call__(self, images: numpy.ndarray) -> numpy.ndarray:
        return head_inputs(self.model, self.transform(images, numpy.random.default_rng(0)))


def _origin(config: RunConfig) -> dict[str, Any]:
    """What features depend on besides the pictures."""
    rule = config.preprocessing.to_dict() if config.preprocessing else None
    return {"weights_sha256": config.weights_sha256, "preprocessing": rule, "data": config.data}


def _kept(
    config: RunConfig, folder: RunFolder, data: tuple[Dataset, Dataset]
) -> list[numpy.ndarray] | None:
    """The features in the run folder; None where there are none, or others."""
    if not folder.features.exists():
        return None
    archive = read_archive(folder.features)
    if archive.record != _origin(config):
        return None
    for name, part in zip(_PARTS, data, strict=True):
        if not numpy.array_equal(archive.arrays.get(f"{name}_labels", ()), part.labels):
            return None
    return [archive.arrays[name] for name in _PARTS]
