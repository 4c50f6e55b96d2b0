"""RandAugment: a few operations a picture, drawn from a list, all of one magnitude."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from numpyvit.backend import suggest
from numpyvit.data import affine, enhance

Pixels = NDArray[np.uint8]
Values = NDArray[np.float64]

# What an operation does: (images, values) -> images.
CHANGES: dict[str, Callable[[Pixels, Values], Pixels]] = {
    "Identity": lambda images, values: images,
    "AutoContrast": enhance.autocontrast,
    "Equalize": enhance.equalize,
    "Invert": enhance.invert,
    "Posterize": enhance.posterize,
    "Solarize": enhance.solarize,
    "SolarizeAdd": enhance.solarize_add,
    "Color": enhance.color,
    "Contrast": enhance.contrast,
    "Brightness": enhance.brightness,
    "Sharpness": enhance.sharpness,
}
# Or where it reads: (values, height, width) -> matrices.
PLACES: dict[str, Callable[[Values, int, int], Values]] = {
    "Rotate": affine.turns,
    "ShearX": affine.shears_x,
    "ShearY": affine.shears_y,
    "TranslateX": affine.moves_x,
    "TranslateY": affine.moves_y,
}

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")

# (levels with a sign, side of the picture that it moves along) -> the operation's values.
Range = Callable[[Values, int], Values]


@dataclasses.dataclass(frozen=True)
class Variant:
    """A published list of operations, and what a level means to each.

    `levels` is the highest level, `probability` that of an operation being carried out at all.
    """

    levels: float
    probability: float
    interpolation: str
    fill: int
    ranges: Mapping[str, Range]


VARIANTS = {
    # torchvision's RandAugment, levels 0 to 30: the 14 operations of the paper.
    "torchvision": Variant(
        levels=30,
        probability=1.0,
        interpolation="nearest",
        fill=0,
        ranges={
            "Identity": lambda level, side: level,
            "ShearX": lambda level, side: level * 0.3 / 30,
            "ShearY": lambda level, side: level * 0.3 / 30,
            "TranslateX": lambda level, side: np.trunc(level * (150 / 331 * side) / 30),
            "TranslateY": lambda level, side: np.trunc(level * (150 / 331 * side) / 30),
            "Rotate": lambda level, side: level,
            "Brightness": lambda level, side: 1 + level * 0.9 / 30,
            "Color": lambda level, side: 1 + level * 0.9 / 30,
            "Contrast": lambda level, side: 1 + level * 0.9 / 30,
            "Sharpness": lambda level, side: 1 + level * 0.9 / 30,
            "Posterize": lambda level, side: 8 - np.rint(abs(level) * 4 / 30),
            "Solarize": lambda level, side: 255 - abs(level) * 255 / 30,
            "AutoContrast": lambda level, side: level,
            "Equalize": lambda level, side: level,
        },
    ),
    # timm's "rand-m9-inc1", levels 0 to 10, each operation in half of the cases.
    "timm": Variant(
        levels=10,
        probability=0.5,
        interpolation="random",
        fill=128,
        ranges={
            "AutoContrast": lambda level, side: level,
            "Equalize": lambda level, side: level,
            "Invert": lambda level, side: level,
            "Rotate": lambda level, side: level / 10 * 30,
            "Posterize": lambda level, side: 4 - np.trunc(abs(level) / 10 * 4),
            "Solarize": lambda level, side: 256 - np.trunc(abs(level) / 10 * 256),
            "SolarizeAdd": lambda level, side: np.trunc(abs(level) / 10 * 110),
            "Color": lambda level, side: np.maximum(0.1, 1 + level / 10 * 0.9),
            "Contrast": lambda level, side: np.maximum(0.1, 1 + level / 10 * 0.9),
            "Brightness": lambda level, side: np.maximum(0.1, 1 + level / 10 * 0.9),
            "Sharpness": lambda level, side: np.maximum(0.1, 1 + level / 10 * 0.9),
            "ShearX": lambda level, side: level / 10 * 0.3,
            "ShearY": lambda level, side: level / 10 * 0.3,
            "TranslateX": lambda level, side: level / 10 * 0.45 * side,
            "TranslateY": lambda level, side: level / 10 * 0.45 * side,
        },
    ),
}


class RandAugment:
    """`num_ops` operations on each picture, drawn with replacement (Cubuk et al. 2020, figure 2).

    Images are uint8 (B, C, H, W) of 1 or 3 channels, before they are normalised, and stay so. The
    operations compute what Pillow's do, to the bit, without Pillow.

    `variant` "torchvision" has the paper's 14 operations and a `magnitude` from 0 to 30; "timm" has
    15, "rand-m9-mstd0.5-inc1" of its recipes being `RandAugment(2, 9, magnitude_std=0.5,
    variant="timm")`: `magnitude` from 0 to 10, drawn for each operation from a normal distribution
    of `magnitude_std` around it, and each operation left out in half of the cases.
    `interpolation` is "nearest", "bilinear", "bicubic" or "random" (one of the last two for each
    picture), `fill` the value, or one a channel, of what comes in from outside; by default the
    variant's: "nearest" and black, or "random" and grey.

    Raises ValueError for settings out of range and for other numbers of channels, TypeError for
    other dtypes.
    """

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: float = 9,
        *,
        magnitude_std: float = 0.0,
        variant: str = "torchvision",
        interpolation: str | None = None,
        fill: int | Sequence[int] | None = None,
    ) -> None:
        if variant not in VARIANTS:
            raise ValueError(
                f"[RandAugment] unknown variant {variant!r}; {suggest(variant, VARIANTS)}"
            )
        self.variant = variant
        is_whole = isinstance(num_ops, numbers.Integral)
        if not is_whole or num_ops < 0 or not 0 <= magnitude_std < np.inf:
            raise ValueError(
                f"[RandAugment] expected a whole num_ops and a finite magnitude_std of at least 0, "
                f"got {num_ops} and {magnitude_std}"
            )
        if not 0 <= magnitude <= self.published.levels:
            raise ValueError(
                f"[RandAugment] expected a magnitude from 0 to {self.published.levels:g} for "
                f"variant {variant!r}, got {magnitude}"
            )
        known = (*INTERPOLATIONS, "random")
        self.interpolation = interpolation or self.published.interpolation
        if self.interpolation not in known:
            raise ValueError(
                f"[RandAugment] unknown interpolation {interpolation!r}; "
                f"{suggest(self.interpolation, known)}"
            )
        self.fill = self.published.fill if fill is None else fill
        self.num_ops, self.magnitude, self.magnitude_std = num_ops, magnitude, magnitude_std

    @property
    def published(self) -> Variant:
        """The list of operations; looked up, so that this object can go to another process."""
        return VARIANTS[self.variant]

    def __call__(self, images: Pixels, rng: np.random.Generator) -> Pixels:
        """The batch, each picture changed in its own way."""
        if images.dtype != np.uint8:
            raise TypeError(
                f"[RandAugment] expected uint8 images from 0 to 255, got {images.dtype}; put it "
                "before Normalize and RandomResizedCrop, or convert with .astype('uint8')"
            )
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"[RandAugment] expected images (B, C, H, W) of 1 or 3 channels, got {images.shape}"
            )
        if np.size(self.fill) not in (1, images.shape[1]):
            raise ValueError(
                f"[RandAugment] expected a fill of 1 value or {images.shape[1]}, got {self.fill}"
            )
        images = images.copy()
        for _ in range(self.num_ops):
            self._change(images, rng)
        return images

    def _change(self, images: Pixels, rng: np.random.Generator) -> None:
        """One operation for each picture, in place."""
        count, (height, width) = len(images), images.shape[-2:]
        chosen = rng.integers(0, len(self.published.ranges), count)
        chosen[rng.random(count) >= self.published.probability] = -1
        levels = rng.normal(self.magnitude, self.magnitude_std, count)
        levels = np.clip(levels, 0, self.published.levels)
        levels[rng.random(count) < 0.5] *= -1
        interpolations = np.full(count, self.interpolation)
        if self.interpolation == "random":
            interpolations = np.where(rng.random(count) < 0.5, "bicubic", "bilinear")
        for number, (name, values_of) in enumerate(self.published.ranges.items()):
            rows = np.flatnonzero(chosen == number)
            if not len(rows):
                continue
            values = values_of(levels[rows], height if name.endswith("Y") else width)
            if name in CHANGES:
                images[rows] = CHANGES[name](images[rows], values)
                continue
            matrices = PLACES[name](values, height, width)
            for interpolation in INTERPOLATIONS:
                some = interpolations[rows] == interpolation
                if some.any():
                    images[rows[some]] = affine.affine_images(
                        images[rows[some]],
                        matrices[some],
                        interpolation=interpolation,
                        fill=self.fill,
                    )

    def __repr__(self) -> str:
        return (
            f"RandAugment({self.num_ops}, {self.magnitude}, magnitude_std={self.magnitude_std}, "
            f"variant={self.variant!r}, interpolation={self.interpolation!r}, fill={self.fill})"
        )
