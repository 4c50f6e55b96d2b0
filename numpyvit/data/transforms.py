"""Changes to a whole batch of pictures at once: `(images, rng) -> images`.

Images are (B, C, H, W), uint8 from 0 to 255 or float32; unless a transform says otherwise the dtype
and the range stay. Inputs are never written to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from numpyvit.data.resample import resize_images, resize_matrix

Images = NDArray[Any]


class Transform(Protocol):
    """Anything that takes a batch and a source of randomness and gives a batch."""

    def __call__(self, images: Images, rng: np.random.Generator) -> Images:
        """The changed batch; random choices come from `rng`."""


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = tuple(transforms)

    def __call__(self, images: Images, rng: np.random.Generator) -> Images:
        """All transforms in their order."""
        for transform in self.transforms:
            images = transform(images, rng)
        return images

    def __repr__(self) -> str:
        return f"Compose([{', '.join(map(repr, self.transforms))}])"


class Normalize:
    """(x / 255 - mean) / std by channel: uint8 0..255 to float32, or float 0..1 to float32.

    Floats are taken as 0..1 and not divided by 255. Raises ValueError for a number of values that
    does not fit the channels, TypeError for whole numbers that are not uint8.
    """

    def __init__(self, mean: float | Sequence[float] = 0.5, std: float | Sequence[float] = 0.5):
        self.mean = np.atleast_1d(np.asarray(mean, np.float64))
        self.std = np.atleast_1d(np.asarray(std, np.float64))
        if (self.std <= 0).any():
            raise ValueError(f"[Normalize] expected a positive std, got {std}")

    def __call__(self, images: Images, rng: np.random.Generator | None = None) -> Images:
        """Float32 images; `rng` is not used."""
        if images.dtype.kind != "f" and images.dtype != np.uint8:
            raise TypeError(
                f"[Normalize] expected uint8 images from 0 to 255 or floats from 0 to 1, got "
                f"{images.dtype}; convert them with .astype('uint8')"
            )
        channels = images.shape[1]
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ValueError(
                    f"[Normalize] expected 1 or {channels} values for {name}, got {len(values)}"
                )
        unit = 255.0 if images.dtype == np.uint8 else 1.0
        scale = (1 / (unit * self.std)).astype(np.float32)[:, None, None]
        shift = (self.mean / self.std).astype(np.float32)[:, None, None]
        result = np.multiply(images, scale, dtype=np.float32)
        result -= shift
        return result

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean.tolist()}, std={self.std.tolist()})"


class ToFloat(Normalize):
    """uint8 0..255 to float32 0..1."""

    def __init__(self) -> None:
        super().__init__(mean=0.0, std=1.0)

    def __repr__(self) -> str:
        return "ToFloat()"


class ToUint8:
    """Floats from 0 to 1 to uint8 from 0 to 255, rounded and clipped; uint8 stays as it is."""

    def __call__(self, images: Images, rng: np.random.Generator | None = None) -> Images:
        """uint8 images; `rng` is not used."""
        if images.dtype == np.uint8:
            return images
        return np.clip(np.rint(images * 255), 0, 255).astype(np.uint8)

    def __repr__(self) -> str:
        return "ToUint8()"


class RandomHorizontalFlip:
    """Each picture mirrored left to right with probability `p`; any dtype."""

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"[RandomHorizontalFlip] expected p from 0 to 1, got {p}")
        self.p = p

    def __call__(self, images: Images, rng: np.random.Generator) -> Images:
        """The batch with some pictures mirrored."""
        chosen = rng.random(len(images)) < self.p
        result = images.copy()
        result[chosen] = images[chosen, :, :, ::-1]
        return result

    def __repr__(self) -> str:
        return f"RandomHorizontalFlip(p={self.p})"


class RandomCrop:
    """Each picture padded by `padding` pixels and cut back to its size at a random place.

    `mode` "zero" pads with the value 0 (black in uint8), "reflect" mirrors without repeating the
    border. Any dtype.
    """

    def __init__(self, padding: int = 4, *, mode: str = "zero") -> None:
        if padding < 0:
            raise ValueError(f"[RandomCrop] expected padding of at least 0, got {padding}")
        if mode not in ("zero", "reflect"):
            raise ValueError(f"[RandomCrop] expected mode 'zero' or 'reflect', got {mode!r}")
        self.padding = padding
        self.mode = mode

    def __call__(self, images: Images, rng: np.random.Generator) -> Images:
        """The batch, each picture shifted by up to `padding` pixels."""
        batch, _, height, width = images.shape
        p = self.padding
        if self.mode == "reflect" and p >= min(height, width):
            raise ValueError(
                f"[RandomCrop] expected padding below the image's side {min(height, width)} "
                f"for mode 'reflect', got {p}"
            )
        top, left = rng.integers(0, 2 * p + 1, (2, batch))
        around = ((0, 0), (0, 0), (p, p), (p, p))
        padded = np.pad(images, around, mode="constant" if self.mode == "zero" else "reflect")
        result = np.empty_like(images)
        for i, (y, x) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
            result[i] = padded[i, :, y : y + height, x : x + width]
        return result

    def __repr__(self) -> str:
        return f"RandomCrop(padding={self.padding}, mode={self.mode!r})"


class RandomResizedCrop:
    """A random part of each picture, resized to `size` (bilinear, antialiased); float32.

    The part's area is `scale` of the picture's, uniformly; its width over height log-uniformly in
    `ratio`: what does not fit is drawn again, ten times in all, and then the largest central part
    with an allowed ratio is taken (Szegedy et al. 2015, as torchvision draws it). uint8 input is
    scaled to 0..1 first; floats keep their range. `flip` mirrors a picture with that probability,
    free of charge in the same matrices.
    """

    TRIES = 10

    def __init__(
        self,
        size: int | tuple[int, int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        *,
        flip: float = 0.0,
        antialias: bool = True,
    ) -> None:
        self.size = _pair(size, "RandomResizedCrop")
        for name, (low, high) in (("scale", scale), ("ratio", ratio)):
            if not 0 < low <= high:
                raise ValueError(
                    f"[RandomResizedCrop] expected {name} as 0 < low <= high, got ({low}, {high})"
                )
        self.scale, self.ratio, self.flip, self.antialias = scale, ratio, flip, antialias

    def boxes(
        self, count: int, height: int, width: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """(count, 4) parts of a picture as (top, left, height, width), in pixels."""
        shape = (count, self.TRIES)
        area = height * width * rng.uniform(*self.scale, size=shape)
        ratio = np.exp(rng.uniform(np.log(self.ratio[0]), np.log(self.ratio[1]), size=shape))
        wide = np.rint(np.sqrt(area * ratio)).astype(np.int64)
        high = np.rint(np.sqrt(area / ratio)).astype(np.int64)
        fits: NDArray[np.bool_] = (wide > 0) & (wide <= width) & (high > 0) & (high <= height)
        first = np.arange(count), fits.argmax(1)
        some = fits.any(1, keepdims=True)
        central = _largest_with_ratio(height, width, self.ratio)
        size = np.where(some, np.stack([high[first], wide[first]], 1), central)
        room = np.array([height, width]) - size
        place = rng.integers(0, room + 1)
        place = np.where(some, place, room // 2)
        return np.concatenate([place, size], 1)

    def __call__(self, images: Images, rng: np.random.Generator) -> Images:
        """Float32 images of the new size."""
        if images.dtype == np.uint8:  # a resized picture has no whole numbers any more
            images = ToFloat()(images)
        height, width = images.shape[-2:]
        boxes = self.boxes(len(images), height, width, rng)
        flips = rng.random(len(images)) < self.flip
        return resized_crops(images, boxes, self.size, flips, antialias=self.antialias)

    def __repr__(self) -> str:
        return (
            f"RandomResizedCrop(size={self.size}, scale={self.scale}, ratio={self.ratio}, "
            f"flip={self.flip}, antialias={self.antialias})"
        )


def resized_crops(
    images: Images,
    boxes: NDArray[np.int64],
    size: tuple[int, int],
    flips: NDArray[np.bool_] | None = None,
    *,
    antialias: bool = True,
) -> NDArray[np.float32]:
    """Each picture's box (top, left, height, width) resized to `size`, bilinear; float32.

    As two products with one matrix a picture: rows, then columns. `flips` (B,) mirrors.
    """
    height, width = images.shape[-2:]
    rows = _axis_matrices(height, size[0], boxes[:, 0], boxes[:, 2], antialias)
    columns = _axis_matrices(width, size[1], boxes[:, 1], boxes[:, 3], antialias)
    if flips is not None:
        columns[flips] = columns[flips, ::-1]
    pixels = images.astype(np.float32, copy=False)
    # b h' h, b c h w, b w' w -> b c h' w'
    return np.matmul(np.matmul(rows[:, None], pixels), columns[:, None].swapaxes(-1, -2))


class Resize:
    """Every picture resized to `size`, centres aligned; uint8 stays uint8 (rounded and clipped).

    `mode` "bilinear" or "bicubic"; `antialias` widens the kernel when shrinking, as Pillow does.
    """

    def __init__(
        self, size: int | tuple[int, int], *, mode: str = "bilinear", antialias: bool = True
    ) -> None:
        if mode not in ("bilinear", "bicubic"):
            raise ValueError(f"[Resize] expected mode 'bilinear' or 'bicubic', got {mode!r}")
        self.size, self.mode, self.antialias = _pair(size, "Resize"), mode, antialias

    def __call__(self, images: Images, rng: np.random.Generator | None = None) -> Images:
        """The batch at its new size; `rng` is not used."""
        if images.shape[-2:] == self.size:
            return images
        if images.dtype != np.uint8:
            return resize_images(images, self.size, mode=self.mode, antialias=self.antialias)
        pixels = images.astype(np.float32)
        result = resize_images(pixels, self.size, mode=self.mode, antialias=self.antialias)
        return np.clip(np.rint(result), 0, 255).astype(np.uint8)

    def __repr__(self) -> str:
        return f"Resize(size={self.size}, mode={self.mode!r}, antialias={self.antialias})"


def _axis_matrices(
    source: int, target: int, start: NDArray[np.int64], length: NDArray[np.int64], antialias: bool
) -> NDArray[np.float32]:
    """(B, target, source): a batch repeats few windows, and each is worked out once."""
    windows, which = np.unique(start * (source + 1) + length, return_inverse=True)
    matrices = resize_matrix(
        source,
        target,
        antialias=antialias,
        start=windows // (source + 1),
        length=windows % (source + 1),
    )
    return matrices.astype(np.float32, copy=False)[which]


def _largest_with_ratio(height: int, width: int, ratio: tuple[float, float]) -> NDArray[np.int64]:
    allowed = min(max(width / height, ratio[0]), ratio[1])
    if allowed > width / height:
        return np.array([round(width / allowed), width], np.int64)
    return np.array([height, round(height * allowed)], np.int64)


def _pair(size: int | tuple[int, int], name: str) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"[{name}] expected a positive size, got {size}")
    return height, width
