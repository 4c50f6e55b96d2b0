"""A data set made from a seed: ten kinds of shapes over textured backgrounds, NumPy only.

Every shape is a signed distance (negative inside) in coordinates where the shape has about
radius one; a pixel's coverage is the distance in pixels, clipped, which smooths the edges.
Place, size, angle and colours are random, so that no pixel tells the class by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numpyvit.data.resample import resize_matrix

Array = NDArray[Any]  # float32

# Made in chunks, each from its own stream: a longer set begins with the images of a shorter one.
CHUNK = 50
GRIDS = (4, 9)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def _length(x: Array, y: Array) -> Array:
    """Several times as fast as np.hypot, which guards against overflow."""
    return np.sqrt(x * x + y * y)


def _box(u: Array, v: Array, half_width: float, half_height: float) -> Array:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


def _disk(u: Array, v: Array) -> Array:
    return _length(u, v) - 0.85


def _ring(u: Array, v: Array) -> Array:
    return np.abs(_length(u, v) - 0.75) - 0.2


def _square(u: Array, v: Array) -> Array:
    return _box(u, v, 0.75, 0.75)


def _triangle(u: Array, v: Array) -> Array:
    return np.maximum(0.8660254 * np.abs(u) - 0.5 * v, v) - 0.53


def _star(u: Array, v: Array) -> Array:
    """Five points: one edge, seen from the fold that the point lies in."""
    fold = np.float32(np.pi / 5)
    angle = np.abs(np.mod(np.arctan2(v, u) + fold, 2 * fold) - fold)
    radius = _length(u, v)
    tip, dent = 1.1, 0.45
    edge = np.array([dent * np.cos(fold) - tip, dent * np.sin(fold)])
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    normal = normal.astype(np.float32)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    return (x - np.float32(tip)) * normal[0] + y * normal[1]


def _cross(u: Array, v: Array) -> Array:
    return np.minimum(_box(u, v, 1.0, 0.3), _box(u, v, 0.3, 1.0))


def _crescent(u: Array, v: Array) -> Array:
    return np.maximum(_length(u, v) - 1.0, 0.85 - _length(u - 0.5, v))


def _heart(u: Array, v: Array) -> Array:
    """A square on its corner with half a disk on each upper side."""
    half, turn = 0.58, np.float32(np.sqrt(0.5))
    low = v - np.float32(0.15)
    x, y = (u + low) * turn, (u - low) * turn
    disks = np.minimum(_length(x, y - half), _length(x + half, y)) - half
    return np.minimum(np.maximum(np.abs(x), np.abs(y)) - half, disks)


def _bar(u: Array, v: Array) -> Array:
    return _box(u, v, 1.1, 0.24)


def _arrow(u: Array, v: Array) -> Array:
    turn = np.float32(np.sqrt(0.5))
    head = np.maximum((u + np.abs(v)) * turn - 1.1 * turn, 0.15 - u)
    return np.minimum(head, _box(u + 0.4, v, 0.65, 0.2))


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disk": _disk,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "crescent": _crescent,
    "heart": _heart,
    "bar": _bar,
    "arrow": _arrow,
}
CLASS_NAMES = tuple(SHAPES)


def make_shapes(
    count: int, *, seed: int = 0, stream: int = 0, image_size: int = 32
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`count` images (count, 3, image_size, image_size) uint8 and their classes (count,) int64.

    `stream` numbers independent sets of the same seed (0 for training, 1 for test). Raises
    ValueError for a count below one and for images smaller than 16 pixels.
    """
    if count < 1:
        raise ValueError(f"[shapes] expected a positive number of images, got {count}")
    if image_size < 16:
        raise ValueError(
            f"[shapes] expected image_size of at least 16, got {image_size}: "
            "smaller pictures cannot show the shapes"
        )
    images = np.empty((count, 3, image_size, image_size), np.uint8)
    labels = np.empty(count, np.int64)
    for number, first in enumerate(range(0, count, CHUNK)):
        rng = np.random.default_rng((seed, stream, number + 1))
        taken = min(CHUNK, count - first)
        order = rng.permutation(CHUNK)[:taken]
        labels[first : first + taken] = (np.arange(CHUNK) % len(SHAPES))[order]
        images[first : first + taken] = _chunk(rng, image_size)[order]
    return images, labels


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> Array:
    return rng.random(shape, np.float32) * np.float32(high - low) + np.float32(low)


def _chunk(rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """CHUNK images; image i is of class i % 10."""
    axis = ((np.arange(size) + 0.5) * (32 / size) - 16).astype(np.float32)  # -16 .. 16
    canvas, base = _background(rng, axis)
    for _ in range(3):
        _paint(canvas, _clutter(rng, axis, size), _uniform(rng, 0, 1, CHUNK, 3))
    _paint(canvas, _objects(rng, axis, size), _contrasting(rng, base), _shading(rng, axis))
    canvas += rng.standard_normal(canvas.shape, np.float32) * _uniform(rng, 0.01, 0.05, CHUNK, 1, 1)
    canvas *= 255
    canvas += 0.5
    np.clip(canvas, 0, 255, out=canvas)
    return canvas.astype(np.uint8).reshape(CHUNK, 3, size, size)


def _paint(canvas: Array, coverage: Array, colour: Array, shading: Array | None = None) -> None:
    """Lay `colour` (B, 3) over the canvas (B, 3, HW) where coverage (B, HW) says so."""
    over = colour[:, :, None] - canvas
    if shading is not None:
        over += shading[:, None]
    over *= coverage[:, None]
    canvas += over


def _background(rng: np.random.Generator, axis: Array) -> tuple[Array, Array]:
    """Textures (B, 3, HW) about a base colour (B, 3): slope, waves, smooth noise, each tinted."""
    size = len(axis)
    patterns = [_slope(rng, axis), _waves(rng, axis)]
    for grid in GRIDS:
        up = resize_matrix(grid, size, mode="bicubic", antialias=False)
        coarse = _uniform(rng, -1, 1, CHUNK, grid, grid)
        patterns.append(np.matmul(np.matmul(up, coarse), up.T))
    stacked = np.stack(patterns, 1).reshape(CHUNK, len(patterns), -1)
    base = _uniform(rng, 0.05, 0.6, CHUNK, 3)
    strength = _uniform(rng, 0.0, 0.15, CHUNK, 1, len(patterns))
    tint = _uniform(rng, -0.4, 1.0, CHUNK, 3, len(patterns)) * strength
    return np.matmul(tint, stacked) + base[:, :, None], base


def _slope(rng: np.random.Generator, axis: Array) -> Array:
    tilt = _uniform(rng, -1 / 16, 1 / 16, CHUNK, 2)
    return tilt[:, :1, None] * axis[:, None] + tilt[:, 1:, None] * axis


def _waves(rng: np.random.Generator, axis: Array) -> Array:
    """sin(a x + b y + phase) by the addition theorem: sines of the two axes only."""
    turn = _uniform(rng, 0, 2 * np.pi, CHUNK, 1)
    pitch = _uniform(rng, 0.15, 1.2, CHUNK, 1)
    along = pitch * np.cos(turn) * axis + _uniform(rng, 0, 2 * np.pi, CHUNK, 1)
    across = pitch * np.sin(turn) * axis
    rows = np.stack([np.sin(across), np.cos(across)], 2)
    columns = np.stack([np.cos(along), np.sin(along)], 1)
    return np.matmul(rows, columns)


def _shading(rng: np.random.Generator, axis: Array) -> Array:
    return (0.15 * (_slope(rng, axis) + _waves(rng, axis) * 0.5)).reshape(CHUNK, -1)


def _contrasting(rng: np.random.Generator, base: Array) -> Array:
    """A colour for each image, far enough from its background's in lightness to be seen."""
    candidates = _uniform(rng, 0, 1, CHUNK, 12, 3)
    difference = candidates - base[:, None]
    distance = difference @ LUMA
    chosen = np.where((distance > 0.3).any(1), (distance > 0.3).argmax(1), distance.argmax(1))
    return candidates[np.arange(CHUNK), chosen]


def _placed(
    rng: np.random.Generator, axis: Array, centre: Array, radius: Array
) -> tuple[Array, Array]:
    """Coordinates (B, H, W) turned by a random angle, with `centre` at 0 and `radius` at 1."""
    turn = _uniform(rng, 0, 2 * np.pi, CHUNK)
    cos, sin = (np.cos(turn) / radius)[:, None, None], (np.sin(turn) / radius)[:, None, None]
    y = axis[:, None] - centre[:, :1, None]
    x = axis[None, :] - centre[:, 1:, None]
    return cos * x + sin * y, cos * y - sin * x


def _objects(rng: np.random.Generator, axis: Array, size: int) -> Array:
    """Coverage (B, HW) of the shapes: radius 7.5 to 13 of 32 pixels, whole inside the picture."""
    radius = _uniform(rng, 7.5, 13.0, CHUNK)
    centre = _uniform(rng, -1, 1, CHUNK, 2) * (15.5 - radius)[:, None]
    u, v = _placed(rng, axis, centre, radius)
    distance = np.empty_like(u)
    for label, shape in enumerate(SHAPES.values()):
        mine = slice(label, None, len(SHAPES))
        distance[mine] = shape(u[mine], v[mine])
    distance *= radius[:, None, None]
    return _coverage(distance, size)


def _coverage(distance: Array, size: int) -> Array:
    """How much of each pixel is covered (B, HW), from distances in 32nds of a picture."""
    distance *= np.float32(-size / 32)
    distance += np.float32(0.5)
    return np.clip(distance, 0, 1, out=distance).reshape(len(distance), -1)


def _clutter(rng: np.random.Generator, axis: Array, size: int) -> Array:
    """Coverage (B, HW) of a short stroke or dot, half of them faint, anywhere in the picture."""
    half_width = _uniform(rng, 0.4, 0.9, CHUNK)
    half_length = _uniform(rng, 0.1, 3.5, CHUNK)
    u, v = _placed(rng, axis, _uniform(rng, -16, 16, CHUNK, 2), np.ones(CHUNK, np.float32))
    np.abs(u, out=u)
    u -= half_length[:, None, None]
    np.maximum(u, 0, out=u)
    distance = _length(u, v)
    distance -= half_width[:, None, None]
    cover = _coverage(distance, size)
    cover *= _uniform(rng, 0.3, 1.0, CHUNK, 1)
    return cover
