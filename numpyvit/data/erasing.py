"""Random erasing: a rectangle of a picture replaced by noise, a colour or nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numpyvit.backend import suggest

FILLS = ("pixel", "color", "zero")

Images = NDArray[Any]


class RandomErasing:
    """Rectangles of some pictures erased, each picture with probability `p`; any dtype.

    A rectangle's area is `scale` of the picture's, uniformly; its height over width is
    log-uniform from `min_ratio` to 1 / `min_ratio`. What does not fit is drawn again, ten times in
    all, and then left out (Zhong et al. 2020, algorithm 1). A picture gets 1 to `max_count`
    rectangles, which share the area.

    `fill` is "pixel", a random value for each pixel and channel, "color", one for each channel of
    a rectangle, or "zero". Random values are standard normal for floats, which are taken to be
    normalised, as timm does, and 0..255 for uint8, as in the paper. The default suits DeiT
    (Touvron et al. 2021) with `p=0.25`.

    Raises ValueError for settings out of range.
    """

    TRIES = 10

    def __init__(
        self,
        p: float = 0.25,
        *,
        scale: tuple[float, float] = (0.02, 1 / 3),
        min_ratio: float = 0.3,
        fill: str = "pixel",
        max_count: int = 1,
    ) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"[RandomErasing] expected p from 0 to 1, got {p}")
        if np.shape(scale) != (2,) or not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"[RandomErasing] expected scale as 0 < low <= high <= 1, got {scale}")
        if not 0 < min_ratio <= 1:
            raise ValueError(f"[RandomErasing] expected 0 < min_ratio <= 1, got {min_ratio}")
        if fill not in FILLS:
            raise ValueError(f"[RandomErasing] unknown fill {fill!r}; {suggest(fill, FILLS)}")
        if max_count < 1:
            raise ValueError(f"[RandomErasing] expected max_count of at least 1, got {max_count}")
        self.p, self.scale, self.min_ratio = p, scale, min_ratio
        self.fill, self.max_count = fill, max_count

    def boxes(
        self, shares: NDArray[np.float64], height: int, width: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """(n, 4) rectangles as (top, left, height, width) in pixels; of size 0 where none fits.

        Their areas are `scale` of the picture's, times `shares` (n,).
        """
        shape = (len(shares), self.TRIES)
        area = height * width * rng.uniform(*self.scale, size=shape) * shares[:, None]
        widest = math.log(1 / self.min_ratio)
        ratio = np.exp(rng.uniform(-widest, widest, size=shape))
        high = np.rint(np.sqrt(area * ratio)).astype(np.int64)
        wide = np.rint(np.sqrt(area / ratio)).astype(np.int64)
        fits: NDArray[np.bool_] = (high < height) & (wide < width)
        first = np.arange(len(shares)), fits.argmax(1)
        size = np.stack([high[first], wide[first]], 1) * fits.any(1, keepdims=True)
        place = rng.integers(0, np.array([height, width]) - size + 1)
        return np.concatenate([place, size], 1)

    def __call__(self, images: Images, rng: np.random.Generator) -> Images:
        """The batch with some rectangles erased."""
        result = images.copy()
        chosen = np.flatnonzero(rng.random(len(images)) < self.p)
        counts = rng.integers(1, self.max_count + 1, len(chosen))
        pictures = np.repeat(chosen, counts)
        height, width = images.shape[-2:]
        boxes = self.boxes(1 / np.repeat(counts, counts), height, width, rng)
        for picture, (top, left, high, wide) in zip(pictures.tolist(), boxes.tolist(), strict=True):
            part = result[picture, :, top : top + high, left : left + wide]
            part[...] = self._values(part, rng)
        return result

    def _values(self, part: Images, rng: np.random.Generator) -> Images | int:
        """What replaces `part` (C, h, w): of its shape, or to be broadcast to it."""
        if self.fill == "zero":
            return 0
        shape = part.shape if self.fill == "pixel" else (len(part), 1, 1)
        if part.dtype.kind == "f":
            return rng.standard_normal(shape, np.float32)
        return rng.integers(0, 256, shape, np.uint8)

    def __repr__(self) -> str:
        return (
            f"RandomErasing(p={self.p}, scale={self.scale}, min_ratio={self.min_ratio}, "
            f"fill={self.fill!r}, max_count={self.max_count})"
        )
