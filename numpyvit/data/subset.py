"""Part of a data set."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from numpyvit.data.dataset import Dataset


class Subset(Dataset):
    """The pictures of `dataset` at `indices` (N,), in that order.

    Raises ValueError for no indices, IndexError for one outside the data set.
    """

    def __init__(self, dataset: Dataset, indices: ArrayLike) -> None:
        self._dataset = dataset
        self._indices = np.asarray(indices, np.int64)
        if self._indices.size == 0:
            raise ValueError("[Subset] expected at least one index, got none")
        self.labels = dataset.labels[self._indices]
        self.class_names = dataset.class_names
        self.image_shape = dataset.image_shape

    def images(self, indices: ArrayLike) -> NDArray[np.uint8]:
        """The pictures at `indices` (B,) of this part, uint8 (B, C, H, W)."""
        return self._dataset.images(self._indices[np.asarray(indices)])


def hold_out(dataset: Dataset, count: int) -> tuple[Dataset, Dataset]:
    """`dataset` without its last `count` pictures, and these: to choose without the test data.

    Raises ValueError unless both parts get a picture.
    """
    if not 0 < count < len(dataset):
        raise ValueError(
            f"[hold_out] expected to hold out 1 to {len(dataset) - 1} pictures, got {count}"
        )
    cut = len(dataset) - count
    return Subset(dataset, np.arange(cut)), Subset(dataset, np.arange(cut, len(dataset)))
