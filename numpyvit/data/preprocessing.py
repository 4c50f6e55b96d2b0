"""From a decoded picture to what a model takes, exactly as the model's makers evaluate it."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numpyvit.backend import require, suggest
from numpyvit.data.pictures import (
    Picture,
    as_rgb,
    central_square,
    open_picture,
    pillow_filter,
    to_pixels,
)
from numpyvit.data.processor_files import hugging_face_fields, timm_fields
from numpyvit.data.tensorflow_resize import area_rows_and_columns, bilinear_rows_and_columns
from numpyvit.data.transforms import Normalize

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

PILLOW_FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
TENSORFLOW_FILTERS = ("tf_bilinear", "tf_area")  # without antialias; areas, cut to whole numbers
CHOICES = {
    "mode": ("shortest", "squash", "square"),
    "filter": PILLOW_FILTERS + TENSORFLOW_FILTERS,
    "long_side": ("down", "round"),
    "crop": ("round", "floor"),
    "values": ("unit", "bytes", "folded"),
}
LARGEST_SIDE = 16384  # pixels; more is a mistake in a file, and would fill the memory
# A strip of 1 x 60000 pixels would become 256 x 15 million; only what is looked at is resized then.
LARGEST_RESIZED = 1 << 26


class _Plan(NamedTuple):
    """Resize a picture to `width` x `height`, then take the square that starts at (left, top)."""

    width: int
    height: int
    left: int
    top: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How an RGB picture becomes a model's input, float32 (3, size, size).

    `mode` and `resize` (pixels) say what is resized: "shortest" the short side, to `resize`, the
    long side in proportion (`long_side`: rounded "down", or to the nearest); "squash" both sides,
    to `resize`. Of that the central `size` x `size` pixels are taken, filled up with black;
    `crop` is how an odd margin is divided: "round" as torchvision and timm do (half to even),
    "floor" as Hugging Face and TensorFlow do. "square" resamples the largest central square in one
    go, which is what numpyvit's own models are trained with.

    `filter` is one of Pillow's, "tf_bilinear" (TensorFlow's, without antialias) or "tf_area"
    (means of areas, cut to whole numbers). `mean` and `std` are of pixels from 0 to 1, one or
    three numbers; `values` is the arithmetic in float32: "unit" (x / 255 - mean) / std, "bytes"
    (x - 255 mean) / (255 std), "folded" x * (1 / (255 std)) - mean / std.

    `crop_fraction` (timm's crop_pct) gives `resize` at another size; without it the proportion of
    `resize` and `size` is kept. `upright` turns pictures as their EXIF says, which no official
    evaluation does. `source` says whose evaluation this is.

    Raises ValueError for anything else.
    """

    size: int
    resize: int
    mode: str = "shortest"
    filter: str = "bicubic"
    long_side: str = "down"
    crop: str = "round"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    values: str = "unit"
    crop_fraction: float | None = None
    upright: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("size", "resize"):
            value = getattr(self, name)
            whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
            if not whole or not 1 <= value <= LARGEST_SIDE:
                raise _wrong(name, f"a whole number from 1 to {LARGEST_SIDE}", value)
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                raise _wrong(name, f"one of {', '.join(known)}", value)
        for name in ("mean", "std"):
            object.__setattr__(self, name, _channels(name, getattr(self, name)))
        if self.crop_fraction is not None and not _is_number(self.crop_fraction, above=0.0):
            raise _wrong("crop_fraction", "a positive number or None", self.crop_fraction)
        if not isinstance(self.upright, bool):
            raise _wrong("upright", "True or False", self.upright)
        if not isinstance(self.source, str):
            raise _wrong("source", "a text", self.source)
        if self.mode == "square" and (self.resize != self.size or self._is_tensorflow):
            raise ValueError(
                "[Preprocessing] expected, with mode 'square', resize equal to size and one of "
                f"Pillow's filters, got {self.resize}, {self.size} and {self.filter!r}"
            )

    def load(self, path: str | Path) -> Picture:
        """The picture in a file as this evaluation sees it, RGB; errors as `open_picture`."""
        return open_picture(path, upright=self.upright)

    def __call__(self, picture: Picture) -> NDArray[np.float32]:
        """The model's input, float32 (3, size, size), of a Pillow picture or uint8 (3, H, W)."""
        return self.normalize(self._resampled(picture))

    def pixels(self, picture: Picture) -> NDArray[np.uint8]:
        """What the model sees, before the normalisation, rounded: uint8 (3, size, size)."""
        resampled = self._resampled(picture)
        if resampled.dtype == np.uint8:
            return resampled
        return np.rint(resampled).astype(np.uint8)

    def shown(self, picture: Picture, least: int = 320) -> NDArray[np.uint8]:
        """What the model sees, for people: uint8 (3, T, T).

        T is `least`, less if the picture has fewer pixels there, but not below `size`.
        """
        picture = _picture(picture)
        short = min(picture.size)
        own = short if self.mode == "square" else short * self.size // self.resize
        side = max(self.size, min(own, least))
        if side == self.size:
            return self.pixels(picture)
        if self.mode == "square":
            return to_pixels(central_square(picture, side, filter_name=self.filter))
        plan, zoom = self._plan(*picture.size), side / self.size
        larger = _Plan(*(round(value * zoom) for value in plan))
        name = self.filter if self.filter in PILLOW_FILTERS else "bicubic"
        return to_pixels(_cropped(picture, larger, side, name))

    def normalize(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Pixels (..., 3, H, W) from 0 to 255, uint8 or float32, by `values`: float32."""
        if self.values == "folded" and pixels.dtype == np.uint8:
            whole = pixels.reshape(-1, *pixels.shape[-3:])
            return Normalize(self.mean, self.std)(whole).reshape(pixels.shape)
        mean, std = (np.array(values)[:, None, None] for values in (self.mean, self.std))
        result = pixels.astype(np.float32)
        if self.values == "unit":
            result /= np.float32(255)
            result -= mean.astype(np.float32)
            result /= std.astype(np.float32)
        else:
            result -= (255 * mean).astype(np.float32)
            result /= (255 * std).astype(np.float32)
        return result

    def at(self, size: int | tuple[int, int]) -> Preprocessing:
        """The same for a model that takes squares of `size` pixels; ValueError for oblong ones."""
        if isinstance(size, tuple):
            raise ValueError(
                f"[Preprocessing] expected a model of square images, as pictures are cut to "
                f"squares, got {size[0]} x {size[1]} pixels; open it for squares, and from Python "
                "use numpyvit.weights.resized and arrays"
            )
        if size == self.size:
            return self
        if self.crop_fraction is None:
            resize = self.resize * size // self.size
        else:
            resize = math.floor(size / self.crop_fraction)
        return dataclasses.replace(self, size=size, resize=max(1, resize))

    def describe(self) -> str:
        """One line for people: what is resized, cut out and normalised, and whose rule that is."""
        name = {"tf_bilinear": "bilinear without antialias", "tf_area": "area"}.get(
            self.filter, self.filter
        )
        square = f"{self.size} x {self.size}"
        steps = {
            "shortest": f"short side to {self.resize} ({name}), central {square}",
            "squash": f"both sides to {self.resize} ({name})",
            "square": f"largest central square to {square} ({name})",
        }[self.mode]
        if self.mode == "squash" and self.resize != self.size:
            steps += f", central {square}"
        means, deviations = (
            " ".join(f"{value:g}" for value in values) for values in (self.mean, self.std)
        )
        whose = f"; {self.source}" if self.source else ""
        return f"{steps}, mean {means}, std {deviations}{whose}"

    def to_dict(self) -> dict[str, Any]:
        """The fields, as JSON can hold them."""
        fields = dataclasses.asdict(self)
        return {**fields, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """What `to_dict` gave. Raises ValueError for fields that are unknown, missing or wrong."""
        if not isinstance(fields, Mapping):
            raise ValueError(f"[Preprocessing] expected fields with values, got {fields!r}")
        known = {field.name: field for field in dataclasses.fields(cls)}
        for name in fields:
            if name not in known:
                raise ValueError(
                    f"[Preprocessing] expected known fields, got {name!r}; "
                    f"{suggest(str(name), known)}"
                )
        if missing := {"size", "resize"} - fields.keys():
            raise ValueError(f"[Preprocessing] expected the fields {sorted(missing)}, got none")
        return cls(**fields)

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> Preprocessing:
        """By timm's `pretrained_cfg`, or the config.json that holds one.

        Raises ValueError for inputs that are not RGB squares and modes of cropping not used by
        Vision Transformers.
        """
        return cls(**timm_fields(config))

    @classmethod
    def from_hugging_face(cls, config: Mapping[str, Any], model_type: str = "") -> Preprocessing:
        """By Hugging Face's preprocessor_config.json; `model_type` is that of the config.json.

        Without entries the defaults of the processor's class count. Raises ValueError for
        processors of other kinds and for settings that leave no normalised square.
        """
        return cls(**hugging_face_fields(config, model_type))

    @property
    def _is_tensorflow(self) -> bool:
        return self.filter in TENSORFLOW_FILTERS

    def _plan(self, width: int, height: int) -> _Plan:
        """Where a picture of `width` x `height` goes; for the modes "shortest" and "squash"."""
        new = {width: self.resize, height: self.resize}
        short, long = min(width, height), max(width, height)
        if self.mode == "shortest" and short < long:
            new[long] = int(self.resize * long / short)
            if self.long_side == "round":  # as TensorFlow does, in float32
                factor = np.float32(self.resize) / np.float32(short)
                new[long] = int(np.rint(np.float32(long) * factor))
        left, top = (_offset(new[side], self.size, self.crop) for side in (width, height))
        return _Plan(new[width], new[height], left, top)

    def _resampled(self, picture: Picture) -> NDArray[Any]:
        """The square that the model sees: uint8 (3, S, S), float32 for "tf_bilinear"."""
        picture = _picture(picture)
        if self.mode == "square":
            return to_pixels(central_square(picture, self.size, filter_name=self.filter))
        plan = self._plan(*picture.size)
        if self._is_tensorflow:
            return _tensorflow(picture, plan, self.size, self.filter)
        return to_pixels(_cropped(picture, plan, self.size, self.filter))


def _cropped(picture: Picture, plan: _Plan, side: int, filter_name: str) -> Picture:
    """The square of `plan` by Pillow; black where the resized picture ends."""
    chosen = pillow_filter(filter_name)
    width, height, left, top = plan
    if width * height <= LARGEST_RESIZED:
        if picture.size != (width, height):
            picture = picture.resize((width, height), chosen)
        return picture.crop((left, top, left + side, top + side))
    # Along the long side, only the part that is kept; Pillow looks beyond the box as it must.
    box = [0.0, 0.0, float(picture.width), float(picture.height)]
    if width > height:
        box[0], box[2] = (place * picture.width / width for place in (left, left + side))
        picture = picture.resize((side, height), chosen, box=box)
        return picture.crop((0, top, side, top + side))
    box[1], box[3] = (place * picture.height / height for place in (top, top + side))
    picture = picture.resize((width, side), chosen, box=box)
    return picture.crop((left, 0, left + side, side))


def _tensorflow(picture: Picture, plan: _Plan, side: int, filter_name: str) -> NDArray[Any]:
    """The square of `plan` by TensorFlow's arithmetic, (3, side, side); 0 beyond the picture."""
    rows, columns = (
        (max(offset, 0), min(offset + side, length))
        for offset, length in ((plan.top, plan.height), (plan.left, plan.width))
    )
    area = filter_name == "tf_area"
    resize = area_rows_and_columns if area else bilinear_rows_and_columns
    seen = resize(np.asarray(picture), (plan.height, plan.width), rows, columns)
    result = np.zeros((side, side, 3), np.uint8 if area else np.float32)
    # big_vision casts the means to uint8, which cuts them down.
    result[
        rows[0] - plan.top : rows[1] - plan.top, columns[0] - plan.left : columns[1] - plan.left
    ] = seen
    return np.ascontiguousarray(result.transpose(2, 0, 1))


def _offset(length: int, side: int, rule: str) -> int:
    """Where the central `side` of `length` pixels start; below 0 where there are fewer."""
    if rule == "floor":
        return (length - side) // 2
    return round((length - side) / 2) if length >= side else -((side - length) // 2)


def _picture(picture: Picture | NDArray[np.uint8]) -> Picture:
    """A Pillow picture in RGB, from one of any mode or from uint8 (3, H, W)."""
    if not isinstance(picture, np.ndarray):
        return as_rgb(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or len(picture) != 3 or not picture.size:
        raise ValueError(
            "[Preprocessing] expected a picture, or uint8 pixels of shape (3, H, W), got "
            f"{picture.dtype} of shape {picture.shape}"
        )
    pillow = require("PIL.Image", extra="full", purpose="resizing pictures")
    return pillow.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))


def _channels(name: str, values: Any) -> tuple[float, ...]:
    above = 0.0 if name == "std" else -math.inf
    numeric = isinstance(values, list | tuple) and len(values) in (1, 3)
    if not numeric or not all(_is_number(value, above=above) for value in values):
        kind = "positive numbers" if name == "std" else "numbers"
        raise _wrong(name, f"1 or 3 {kind}", values)
    return tuple(float(value) for value in values)


def _is_number(value: Any, *, above: float) -> bool:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and above < float(value) < math.inf


def _wrong(name: str, expected: str, got: Any) -> ValueError:
    return ValueError(f"[Preprocessing] expected {expected} as {name}, got {got!r}")
