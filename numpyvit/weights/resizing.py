"""Positions, bias tables and patch kernels for another size, each family in its own way."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from numpyvit.backend import suggest, to_device, to_numpy
from numpyvit.data.resample import resize_matrix
from numpyvit.models import VisionTransformer
from numpyvit.nn import Size, as_pair, init

Array = NDArray[Any]


class _Interpolation(NamedTuple):
    """How one axis of the grid is interpolated."""

    mode: str
    antialias: bool = False
    corners: bool = False  # the outermost pixel centres stay where they are
    surplus: float = 0.0  # added to the new size where the scale is worked out from it


_SMOOTH = _Interpolation("bicubic", antialias=True)
_PLAIN = _Interpolation("bicubic")

POSITION_RULES: dict[str, _Interpolation] = {
    "timm": _SMOOTH,
    "timm_npz": _Interpolation("bilinear"),
    "google": _Interpolation("bilinear", corners=True),  # scipy.ndimage.zoom(order=1)
    "torchvision": _Interpolation("bicubic", corners=True),
    "deit": _PLAIN,
    "mae": _PLAIN,
    "hf": _PLAIN,
    "dino": _Interpolation("bicubic", surplus=0.1),
    "dinov2": _Interpolation("bicubic", surplus=0.1),
    "dinov2_registers": _SMOOTH,
}
"""The rule of each family, by name: what its own code does when an image has another size."""


def resize_positions(
    positions: Array,
    num_prefix_tokens: int,
    grid: tuple[int, int],
    rule: str,
    *,
    old_grid: tuple[int, int] | None = None,
) -> Array:
    """Position embeddings (1, prefix + P, D) for a `grid` of (rows, columns) patches.

    The first `num_prefix_tokens` positions stay as they are; the rest are an image of `old_grid`
    patches (by default a square) with D channels, interpolated as `rule`, one of POSITION_RULES,
    says. The answer is (1, prefix + rows * columns, D) of the same dtype, worked out in float64;
    for the same grid it is a copy. Where SciPy's zoom, by rounding, leaves the last row and column
    zero (8 x 8 to 26 x 26 patches is such a size), "google" interpolates them like the others.

    Raises ValueError for an unknown rule, a shape other than the above and an empty grid.
    """
    if rule not in POSITION_RULES:
        raise ValueError(
            f"[resize_positions] unknown rule {rule!r}; {suggest(rule, list(POSITION_RULES))}"
        )
    if positions.ndim != 3 or len(positions) != 1:
        raise ValueError(
            f"[resize_positions] expected positions of shape (1, N, D), got {positions.shape}"
        )
    if min(grid) < 1:
        raise ValueError(f"[resize_positions] expected a grid of at least (1, 1), got {grid}")
    rows, columns = old_grid or _square(positions.shape[1] - num_prefix_tokens)
    if num_prefix_tokens < 0 or num_prefix_tokens + rows * columns != positions.shape[1]:
        raise ValueError(
            f"[resize_positions] expected {num_prefix_tokens} + {rows} x {columns} positions, "
            f"got {positions.shape[1]}; old_grid says how many rows and columns there are"
        )
    if (rows, columns) == tuple(grid):
        return positions.copy()
    prefix, patches = positions[:, :num_prefix_tokens], positions[0, num_prefix_tokens:]
    image = patches.reshape(rows, columns, -1).transpose(2, 0, 1)  # (r c) d -> d r c
    resized = _between(
        _matrix(rows, grid[0], POSITION_RULES[rule]),
        image.astype(np.float64),
        _matrix(columns, grid[1], POSITION_RULES[rule]),
    )
    patches = resized.transpose(1, 2, 0).reshape(1, grid[0] * grid[1], -1)  # d r c -> 1 (r c) d
    return np.concatenate([prefix, patches.astype(positions.dtype)], axis=1)


def resized(model: VisionTransformer, image_size: Size, rule: str = "timm") -> VisionTransformer:
    """The model for images of another size, (height, width) or the side of a square.

    Learned positions are interpolated by `rule`, one of POSITION_RULES, and the tables of relative
    ones by `resize_bias_table`; all other arrays are those of `model`, not copies. Raises
    ValueError for a size that cannot be, and for a model with arrays that depend on the size in
    another way.
    """
    old, new = model.config, model.config.replace(image_size=image_size)
    with init.undrawn():
        other = type(model)(new).to(model.dtype, model.device).train(model.training)
    state = model.state_dict()
    if model.pos_embed is not None:
        first = old.num_positions - old.num_patches
        positions = to_numpy(model.pos_embed.data)
        positions = resize_positions(positions, first, new.grid, rule, old_grid=old.grid)
        state["pos_embed"] = to_device(positions, model.device)
    for name in state:
        if name.endswith("rel_pos.relative_position_bias_table"):
            table = resize_bias_table(to_numpy(state[name]), new.grid, old.grid)
            state[name] = to_device(table, model.device)
    other.load_state_dict(state, assign=True)
    return other


def resize_patch_kernel(weight: Array, size: tuple[int, int], rule: str = "timm") -> Array:
    """A patch embedding's kernel (D, C, p, q) for patches of another `size`.

    With B the matrix that resizes an old patch to a new one, the new kernel is pinv(B)^T w: on an
    image that was enlarged the same way, its answers are those of the old kernel (FlexiViT, Beyer
    et al. 2023, section 3.4). B is bicubic with antialias; bilinear without for the rule
    "timm_npz", as timm does for Google's files. Same dtype, worked out in float64.

    Raises ValueError for another shape and an empty size.
    """
    if weight.ndim != 4:
        raise ValueError(
            f"[resize_patch_kernel] expected a kernel of shape (D, C, p, q), got {weight.shape}"
        )
    if min(size) < 1:
        raise ValueError(f"[resize_patch_kernel] expected a size of at least (1, 1), got {size}")
    if weight.shape[2:] == tuple(size):
        return weight.copy()
    how = POSITION_RULES["timm_npz"] if rule == "timm_npz" else _SMOOTH
    # The pseudo-inverse of a Kronecker product is that of its factors, so each axis has its own.
    rows, columns = (
        np.linalg.pinv(_matrix(old, new, how)).T
        for old, new in zip(weight.shape[2:], size, strict=True)
    )
    return _between(rows, weight.astype(np.float64), columns).astype(weight.dtype)


def resize_bias_table(table: Array, grid: Size, old_grid: Size | None = None) -> Array:
    """A relative position bias table (R, H) for another grid or window: ((2h-1)(2w-1) + K, H).

    The last K = R - (2h-1)(2w-1) rows, for tokens in front, stay as they are; without `old_grid`
    there are none, and the table is a square's. Bicubic (a = -0.75) without antialias, as
    Microsoft's code and timm's simple rule do it; same dtype, worked out in float64. Raises
    ValueError for a table that is not of `old_grid`, and for an empty grid.
    """
    side = (math.isqrt(len(table)) + 1) // 2
    old, new = ([2 * edge - 1 for edge in as_pair(size)] for size in (old_grid or side, grid))
    places = math.prod(old)
    fits = len(table) - places in ((0, 3) if old_grid else (0,))
    if table.ndim != 2 or not fits or min(old + new) < 1:
        raise ValueError(
            "[resize_bias_table] expected a table ((2h-1)(2w-1), H) and a grid of at least 1, got "
            f"shape {table.shape} and {grid}"
        )
    if old == new:
        return table.copy()
    rows, columns = (_matrix(*edges, _PLAIN) for edges in zip(old, new, strict=True))
    image = table[:places].astype(np.float64).T.reshape(-1, *old)  # (r c) h -> h r c
    resized = _between(rows, image, columns).reshape(len(image), -1).T
    return np.concatenate([resized.astype(table.dtype), table[places:]])


def _matrix(old: int, new: int, how: _Interpolation) -> Array:
    """The matrix (new, old), float64, that interpolates one axis."""
    build = partial(
        resize_matrix, old, new, mode=how.mode, antialias=how.antialias, dtype=np.float64
    )
    if not how.corners:
        return build(length=new * old / (new + how.surplus))
    if new == 1:
        return np.eye(1, old)  # the first corner, as SciPy and PyTorch have it
    # A window whose first and last pixel centres are those of the axis.
    step = (old - 1) / (new - 1)
    return build(start=0.5 - 0.5 * step, length=new * step)


def _between(rows: Array, images: Array, columns: Array) -> Array:
    """The two matrices applied to the last two axes of `images`."""
    return np.matmul(np.matmul(rows, images), columns.T)


def _square(count: int) -> tuple[int, int]:
    side = math.isqrt(max(count, 0))
    return side, side
