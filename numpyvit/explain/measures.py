"""How far attention reaches, how spread it is, and how alike positions are: one number a head."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from numpyvit.backend import Array, to_numpy
from numpyvit.explain.observe import observe_attention
from numpyvit.explain.tokens import Floats, Grid, check_attention, patch_grid
from numpyvit.models import ImageModel
from numpyvit.nn import AttentionPositions, Size, as_pair


class PositionMaps(NamedTuple):
    """Small maps of the patches, (down, across, rows, columns), and what they are called."""

    maps: Floats
    title: str = "Cosine of each position with all others"
    down: str = "row of the patch"
    across: str = "column of the patch"


class HeadMeasures(NamedTuple):
    """`distance` in pixels and `entropy` in nats, (blocks, heads) each, averaged over images.

    `even_distance` and `even_entropy` are those of a head that attends to all patches alike.
    """

    distance: Floats
    entropy: Floats
    even_distance: float
    even_entropy: float


def attention_distance(
    attention: Floats,
    patch_size: Size = 1,
    num_prefix_tokens: int = 1,
    *,
    rescale: bool = True,
    grid: Grid | None = None,
) -> Floats:
    """How far away, in pixels, the patches lie that a patch attends to: (B, H, N, N) -> (B, H).

    The mean over patches q of sum over patches k of A[q, k] * |centre of q - centre of k|
    (Dosovitskiy et al. 2021, figure 7, right, and appendix D.7). Patches only: with `rescale` each
    of their rows is scaled to sum 1, otherwise what goes to the tokens in front counts as distance
    0. `grid` as in `patch_grid`.
    """
    weights = _between_patches("attention_distance", attention, num_prefix_tokens, rescale)
    places = np.indices(patch_grid(weights.shape[-1], grid)).reshape(2, -1).T
    places = places * np.array(as_pair(patch_size), float)
    apart = np.linalg.norm(places[:, None] - places, axis=-1).astype(weights.dtype)
    distance: Floats = np.einsum("bhqk,qk->bh", weights, apart) / weights.shape[-1]
    return distance


def attention_entropy(attention: Floats, num_prefix_tokens: int = 1) -> Floats:
    """How spread attention is, from 0 (all on one patch) to log P: (B, H, N, N) -> (B, H).

    The mean over the P patches q of -sum over patches k of A[q, k] log A[q, k], in nats, each row
    scaled to sum 1.
    """
    weights = _between_patches("attention_entropy", attention, num_prefix_tokens, True)
    logs = np.log(np.maximum(weights, np.finfo(weights.dtype).tiny))
    entropy: Floats = -np.einsum("bhqk,bhqk->bh", weights, logs) / weights.shape[-1]
    return entropy


def measure_heads(model: ImageModel, images: Array, *, rescale: bool = True) -> HeadMeasures:
    """Distance and entropy of every head, averaged over images (B, C, H, W): (blocks, heads) each.

    The paper averages over 128 images.
    """
    config, prefix = model.config, model.config.num_prefix_tokens
    far = functools.partial(attention_distance, patch_size=config.patch_shape, grid=config.grid)
    distance, entropy = np.zeros((2, 1, 1))
    for seen in observe_attention(model, images):
        apart = [far(each, num_prefix_tokens=prefix, rescale=rescale) for each in seen.attention]
        spread = [attention_entropy(each, prefix) for each in seen.attention]
        distance = distance + np.sum(apart, 1) / len(images)
        entropy = entropy + np.sum(spread, 1) / len(images)
    patches = config.num_patches
    even = np.full((1, 1, patches, patches), 1 / patches)
    return HeadMeasures(distance, entropy, far(even, num_prefix_tokens=0).item(), math.log(patches))


def position_similarity(
    pos_embed: Array, num_prefix_tokens: int | None = None, grid: Grid | None = None
) -> Floats:
    """The cosine of every patch's position with all others: (rows, columns, rows, columns).

    `pos_embed` (N, D) or (1, N, D). The first `num_prefix_tokens` positions are left out; by
    default one, if the patches form a square without it (Dosovitskiy et al. 2021, figure 7).
    `model_positions` knows how many a model has. Raises ValueError where the patches do not form a
    square, nor the `grid` (rows, columns) if one is given.
    """
    positions = to_numpy(pos_embed)
    if positions.ndim not in (2, 3) or (positions.ndim == 3 and len(positions) != 1):
        raise ValueError(
            f"[position_similarity] expected positions (N, D) or (1, N, D), got {positions.shape}"
        )
    positions = positions.reshape(positions.shape[-2:])
    if num_prefix_tokens is None:
        # No number above 1 is a square and one more than a square, so the count tells which it is.
        num_prefix_tokens = int(math.isqrt(len(positions)) ** 2 != len(positions))
    positions = positions[num_prefix_tokens:]
    rows, columns = patch_grid(len(positions), grid)
    lengths = np.linalg.norm(positions, axis=-1, keepdims=True)
    unit = positions / np.maximum(lengths, np.finfo(positions.dtype).tiny)
    return (unit @ unit.T).reshape(rows, columns, rows, columns)


def model_positions(model: ImageModel) -> PositionMaps:
    """What a model's positions, of whatever kind, say of its patches.

    For those that are added to tokens `position_similarity`; for others what attention is told (see
    `AttentionPositions.likeness`), between all patches, or where heads differ from the middle patch
    alone. Raises ValueError for a model that knows no positions.
    """
    config = model.config
    if (added := model.positions.added(model.pos_embed)) is not None:
        first = len(added) - config.num_patches
        return PositionMaps(position_similarity(added, first, config.grid))
    layers = [m for _, m in model.named_modules() if isinstance(m, AttentionPositions)]
    found = [to_numpy(each) for layer in layers if (each := layer.likeness()) is not None]
    if not found and not model.attends_globally:
        raise ValueError(
            "[model_positions] expected a model with positions in the whole picture, got one that "
            "has them inside its windows alone, which are not drawn"
        )
    if not found:
        raise ValueError(
            "[model_positions] expected a model that knows where its patches are, got one without "
            "positions"
        )
    rows, columns = config.grid
    if found[0].ndim == 2:
        return PositionMaps(found[0].reshape(rows, columns, rows, columns), layers[0].about)
    from_middle = np.stack(found)[:, :, rows // 2 * columns + columns // 2]
    maps = from_middle.reshape(*from_middle.shape[:2], rows, columns)
    return PositionMaps(maps, layers[0].about, "block", "head")


def _between_patches(
    component: str, attention: Floats, num_prefix_tokens: int, rescale: bool
) -> Floats:
    """Weights (B, H, P, P) from patches to patches."""
    check_attention(component, attention)
    weights = attention[..., num_prefix_tokens:, num_prefix_tokens:]
    if weights.size == 0:
        raise ValueError(
            f"[{component}] expected more tokens than the {num_prefix_tokens} in front, got "
            f"{attention.shape[-1]}"
        )
    if not rescale:
        return weights
    sums = weights.sum(-1, keepdims=True)
    return weights / np.maximum(sums, np.finfo(weights.dtype).tiny)
