"""What the tokens that answer attend to, as maps of the image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from numpyvit.backend import Array
from numpyvit.data import resize_images
from numpyvit.explain.observe import check_block, observe_attention
from numpyvit.explain.tokens import Floats, patch_map, tokens_read
from numpyvit.models import ImageModel


def class_attention(model: ImageModel, images: Array, block: int = -1) -> Floats:
    """How much the class token looks at each patch: weights (B, H, rows, columns) of one block.

    `images` (B, C, H, W) as the model takes them. The weights are the softmax's own; what goes to
    class token, distillation token and registers is left out, so a map sums to less than 1. Where
    the head reads other tokens, theirs are averaged (see `tokens_read`): those of all patches, for
    a model that averages patches. The model computes in evaluation mode and is left in the mode
    that it was in. Raises IndexError for a block that does not exist.
    """
    index = check_block("class_attention", model, block)
    only = slice(index, index + 1)
    shares, prefix = tokens_read(model.config), model.config.num_prefix_tokens
    maps = [
        patch_map(observed.attention[0], shares, prefix, model.config.grid)
        for observed in observe_attention(model, images, only)
    ]
    return np.concatenate(maps)


def fuse_heads(attention: Floats, how: str = "mean") -> Floats:
    """One map from those of all heads, by "mean", "max" or "min": (B, H, ...) -> (B, ...).

    Works on maps (B, H, rows, columns) and on weights (B, H, N, N).
    """
    if how not in ("mean", "max", "min"):
        raise ValueError(f"[fuse_heads] expected 'mean', 'max' or 'min', got {how!r}")
    if attention.ndim != 4:
        raise ValueError(
            f"[fuse_heads] expected maps (B, H, rows, columns), got shape {attention.shape}"
        )
    fused: Floats = getattr(attention, how)(axis=1)
    return fused


def attention_mass(attention: Floats, share: float = 0.6) -> NDArray[np.bool_]:
    """The fewest patches that hold `share` of a map's sum: maps (..., rows, columns) -> True there.

    Patches are added from the least; those that come after 1 - `share` of the sum stay (Caron et
    al. 2021, DINO, figure 1 and appendix). Raises ValueError unless 0 < share <= 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"[attention_mass] expected a share in (0, 1], got {share}")
    flat = attention.reshape(*attention.shape[:-2], -1).astype(np.float64)
    order = flat.argsort(-1, kind="stable")
    cumulated = np.take_along_axis(flat, order, -1).cumsum(-1)
    kept = np.zeros(flat.shape, np.bool_)
    np.put_along_axis(kept, order, cumulated > (1 - share) * cumulated[..., -1:], -1)
    return kept.reshape(attention.shape)


def resize_attention(attention: Floats, size: int | tuple[int, int]) -> Floats:
    """Maps (..., rows, columns) spread bilinearly over an image of `size` pixels, same dtype."""
    return resize_images(attention, (size, size) if isinstance(size, int) else size)


def without_padding(maps: Floats, model: ImageModel) -> Floats:
    """Maps (..., rows, columns) of a model that fills images up, over the image alone: (..., H, W).

    Spread over all that the patches see, then cut. Maps of other models stay as they are.
    """
    below, right = model.patch_embed.missing
    if not (below or right):
        return maps
    height, width = model.config.image_shape
    return resize_attention(maps, (height + below, width + right))[..., :height, :width]
