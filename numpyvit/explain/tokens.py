"""Which tokens answer and which are patches: from weights between tokens to maps of an image."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from numpyvit.models import ViTConfig

Floats = NDArray[np.floating]
Grid = tuple[int, int]  # rows and columns of patches


def patch_grid(num_patches: int, grid: Grid | None = None) -> Grid:
    """`grid`, (rows, columns), or that of a square; ValueError for another number of patches."""
    side = math.isqrt(max(num_patches, 0))
    rows, columns = grid or (side, side)
    if rows * columns != num_patches or num_patches < 1:
        shape = f"{rows} x {columns}" if grid else "a square has"
        raise ValueError(f"[patch_grid] expected as many patches as {shape}, got {num_patches}")
    return rows, columns


def tokens_read(config: ViTConfig) -> Floats:
    """How much the head reads of each token, (N,), sum 1: whose rows a map is taken from.

    The class token; with a head for the distillation token as well, half of each, as the logits are
    the mean of both. Models that average the patches: every patch alike. So too where the shares
    depend on the image, as in pooling by maximum, score or attention: what those prefer is not in
    the map. Class token and mean of the patches joined (DINOv2's head): half for the one, half for
    the rest.
    """
    prefix, patches = config.num_prefix_tokens, config.num_patches
    shares = np.zeros(prefix + patches)
    if config.pooling == "token":
        shares[: 1 + config.distillation_head] = 1
    else:
        shares[prefix:] = 1 / patches
        shares[0] += config.pooling == "token_avg"
    return shares / shares.sum()


def patch_map(
    weights: Floats, shares: Floats, num_prefix_tokens: int, grid: Grid | None = None
) -> Floats:
    """What the tokens that answer take from each patch: (..., N, N) -> (..., rows, columns).

    Rows of `weights` are added by `shares` (N,), for example those of `tokens_read`. The columns of
    the first `num_prefix_tokens` tokens (class, distillation, registers) are left out. `grid` as
    in `patch_grid`.
    """
    tokens = weights.shape[-1]
    if weights.ndim < 2 or weights.shape[-2] != tokens or shares.shape != (tokens,):
        raise ValueError(
            f"[patch_map] expected weights (..., N, N) and shares (N,), got shapes "
            f"{weights.shape} and {shares.shape}"
        )
    grid = patch_grid(tokens - num_prefix_tokens, grid)
    (asking,) = np.nonzero(shares)
    if len(asking) == 1 and shares[asking[0]] == 1:  # the usual case: one row, as it is
        rows = weights[..., asking[0], num_prefix_tokens:]
    else:
        rows = shares.astype(weights.dtype) @ weights[..., num_prefix_tokens:]
    return rows.reshape(*rows.shape[:-1], *grid)


def check_attention(component: str, attention: Floats) -> None:
    """Raise ValueError unless `attention` is weights (B, H, N, N) of one block."""
    if attention.ndim != 4 or attention.shape[-1] != attention.shape[-2]:
        raise ValueError(
            f"[{component}] expected attention weights (B, H, N, N), got shape {attention.shape}"
        )
