"""What the class token attends to, and how alike positions are: arrays in, arrays out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from numpyvit.backend import Array, to_device, to_numpy
from numpyvit.data import resize_images
from numpyvit.models import VisionTransformer, ViTOutput
from numpyvit.nn import Module
from numpyvit.tensor import no_grad

Floats = NDArray[np.floating]


def class_attention(model: VisionTransformer, images: Array, block: int = -1) -> Floats:
    """How much the class token looks at each patch: weights (B, H, rows, columns) of one block.

    `images` (B, C, H, W) as the model takes them. The weights are the softmax's own; what the class
    token pays to itself is left out, so a map sums to less than 1. The model computes in evaluation
    mode and is left in the mode that it was in. Raises IndexError for a block that does not exist.
    """
    depth = len(model.blocks)
    if not -depth <= block < depth:
        raise IndexError(
            f"[class_attention] expected a block from {-depth} to {depth - 1}, got {block}"
        )
    with evaluating(model), no_grad():
        output: ViTOutput = model(to_device(images, model.cls_token.device), return_attention=True)
    weights = to_numpy(output.attention[block].data)  # b h n n
    prefix = weights.shape[-1] - model.patch_embed.num_patches
    rows, columns = patch_grid(model.patch_embed.num_patches)
    return weights[:, :, 0, prefix:].reshape(*weights.shape[:2], rows, columns)


def fuse_heads(attention: Floats, how: str = "mean") -> Floats:
    """One map from those of all heads, by "mean" or "max": (B, H, rows, columns) -> (B, ...)."""
    if how not in ("mean", "max"):
        raise ValueError(f"[fuse_heads] expected 'mean' or 'max', got {how!r}")
    if attention.ndim != 4:
        raise ValueError(
            f"[fuse_heads] expected maps (B, H, rows, columns), got shape {attention.shape}"
        )
    return attention.mean(1) if how == "mean" else attention.max(1)


def resize_attention(attention: Floats, size: int | tuple[int, int]) -> Floats:
    """Maps (..., rows, columns) spread bilinearly over an image of `size` pixels, same dtype."""
    return resize_images(attention, (size, size) if isinstance(size, int) else size)


def position_similarity(pos_embed: Array) -> Floats:
    """The cosine of every patch's position with all others: (rows, columns, rows, columns).

    `pos_embed` (N, D) or (1, N, D); a class token in front is left out (Dosovitskiy et al. 2021,
    figure 7). Raises ValueError where the patches do not form a square.
    """
    positions = to_numpy(pos_embed)
    if positions.ndim not in (2, 3) or (positions.ndim == 3 and len(positions) != 1):
        raise ValueError(
            f"[position_similarity] expected positions (N, D) or (1, N, D), got {positions.shape}"
        )
    positions = positions.reshape(positions.shape[-2:])
    # No number above 1 is a square and one more than a square, so the count tells which it is.
    if math.isqrt(len(positions)) ** 2 != len(positions):
        positions = positions[1:]
    rows, columns = patch_grid(len(positions))
    lengths = np.linalg.norm(positions, axis=-1, keepdims=True)
    unit = positions / np.maximum(lengths, np.finfo(positions.dtype).tiny)
    return (unit @ unit.T).reshape(rows, columns, rows, columns)


def patch_grid(num_patches: int) -> tuple[int, int]:
    """Rows and columns of the patches of a square image; ValueError where there is no square."""
    side = math.isqrt(max(num_patches, 0))
    if side < 1 or side * side != num_patches:
        raise ValueError(
            f"[patch_grid] expected as many patches as a square has, got {num_patches}"
        )
    return side, side


@contextlib.contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Evaluation mode inside the block; after it, every module is in the mode that it was in."""
    modes = [(module, module.training) for _, module in model.named_modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
