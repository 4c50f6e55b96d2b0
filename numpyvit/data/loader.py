"""Batches in an order drawn from the seed, each prepared in the background."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numpyvit.data.dataset import Dataset
from numpyvit.data.transforms import ToFloat, Transform

Labels = NDArray[Any]  # classes int64 (B,), or what a mixing made of them
Batch = tuple[NDArray[np.float32], Labels]
Mix = Callable[
    [NDArray[np.float32], NDArray[np.int64], np.random.Generator],
    tuple[NDArray[np.float32], Labels],
]


class Loader:
    """Batches of a data set: images float32 (B, C, H, W) and labels int64 (B,).

    The order comes from (seed, epoch) and a batch's transforms from (seed, epoch, batch index), so
    a batch is the same wherever one starts and whoever prepares it. The last batch may be short.
    Pictures that the transform leaves in uint8 are scaled to 0..1. `prefetch` batches are prepared
    ahead by one background thread; 0 prepares each when it is asked for.

    `mixing(images, labels, rng)` comes last and gives the images and the labels of the batch: with
    `Mixing` the labels are probabilities (B, classes). With `repeats` of R each picture of an epoch
    stands R times in a row, every time transformed anew, and an epoch of unchanged length shows
    one picture in R (repeated augmentation: Hoffer et al. 2020, in epochs as DeiT counts them);
    without `shuffle` those would always be the same, and that is refused.

    Raises ValueError for a batch larger than the data and for settings out of range.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        transform: Transform | None = None,
        shuffle: bool = True,
        seed: int = 0,
        prefetch: int = 2,
        mixing: Mix | None = None,
        repeats: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"[Loader] expected a positive batch_size, got {batch_size}")
        if batch_size > len(dataset):
            raise ValueError(
                f"[Loader] expected batch_size of at most the {len(dataset)} pictures of the data "
                f"set, got {batch_size}; choose a smaller batch"
            )
        if seed < 0 or prefetch < 0:
            raise ValueError(
                f"[Loader] expected seed and prefetch of at least 0, got {seed} and {prefetch}"
            )
        if repeats < 1:
            raise ValueError(f"[Loader] expected repeats of at least 1, got {repeats}")
        if repeats > 1 and not shuffle:
            raise ValueError(f"[Loader] expected shuffle=True with repeats={repeats}, got False")
        self.dataset = dataset
        self.batch_size = batch_size
        self.transform = transform
        self.shuffle = shuffle
        self.seed = seed
        self.prefetch = prefetch
        self.mixing = mixing
        self.repeats = repeats
        self._to_float = ToFloat()

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.batch_size)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of one epoch, from `start_batch` on; stop early by leaving the loop.

        What goes wrong while a batch is prepared is raised where that batch is asked for.
        """
        if epoch < 0 or not 0 <= start_batch <= len(self):
            raise ValueError(
                f"[Loader] expected epoch of at least 0 and start_batch from 0 to {len(self)}, "
                f"got {epoch} and {start_batch}"
            )
        return self._batches(epoch, start_batch)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The indices (N,) of the pictures in the order in which `epoch` sees them."""
        count = len(self.dataset)
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(count)
        else:
            order = np.arange(count)
        return order if self.repeats == 1 else np.repeat(order, self.repeats)[:count]

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        order = self.order(epoch)
        if self.prefetch == 0:
            for index in range(start, len(self)):
                yield self._prepare(order, epoch, index)
            return
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="loader") as pool:
            try:
                for index in range(start, len(self)):
                    waiting.append(pool.submit(self._prepare, order, epoch, index))
                    if len(waiting) > self.prefetch:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _prepare(self, order: NDArray[np.int64], epoch: int, index: int) -> Batch:
        chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
        images, labels = self.dataset.images(chosen), self.dataset.labels[chosen]
        # index + 1: a seed sequence ignores trailing zeros, and (seed, epoch) is the order's.
        rng = np.random.Generator(np.random.SFC64((self.seed, epoch, index + 1)))
        if self.transform is not None:
            images = self.transform(images, rng)
        if images.dtype == np.uint8:
            images = self._to_float(images)
        pixels = np.ascontiguousarray(images, np.float32)
        return (pixels, labels) if self.mixing is None else self.mixing(pixels, labels, rng)
