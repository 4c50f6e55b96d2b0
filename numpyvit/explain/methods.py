"""The methods that make a map of an image, by name: run the model, follow its attention."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from numpyvit.backend import Array, suggest
from numpyvit.explain.attention import class_attention, fuse_heads
from numpyvit.explain.observe import (
    Target,
    check_block,
    observe_attention,
    observe_gradients,
    observe_tokens,
)
from numpyvit.explain.relevance import gradcam, relevance, token_gradcam
from numpyvit.explain.rollout import gradient_rollout, rollout
from numpyvit.explain.tokens import Floats, patch_map, tokens_read
from numpyvit.models import ImageModel


@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """What the methods can be told; each reads what concerns it.

    `heads`: how heads become one, "mean", "max" or "min" (attention, rollout). `discard`: share of
    the smallest weights that is left out, 0 <= d < 1 (rollout, gradient-rollout). `block`: the
    block looked at; rollouts and relevance go from the first block up to it. `target`: the class to
    explain, one for all images or one for each, the predicted one by default (gradient-rollout,
    relevance, gradcam).
    """

    heads: str = "mean"
    discard: float = 0.0
    block: int = -1
    target: Target = None


Method = Callable[[ImageModel, Array, MapOptions], Floats]


def attention_map(model: ImageModel, images: Array, options: MapOptions) -> Floats:
    """Attention of one block, heads fused: (B, C, H, W) -> (B, rows, columns)."""
    return fuse_heads(class_attention(model, images, options.block), options.heads)


def rollout_map(model: ImageModel, images: Array, options: MapOptions) -> Floats:
    """`rollout` of the tokens that answer: (B, C, H, W) -> (B, rows, columns)."""
    blocks = _up_to(model, options)
    return _maps(
        model,
        (
            rollout(seen.attention, options.heads, options.discard)
            for seen in observe_attention(model, images, blocks)
        ),
    )


def gradient_rollout_map(model: ImageModel, images: Array, options: MapOptions) -> Floats:
    """`gradient_rollout` of the tokens that answer: (B, C, H, W) -> (B, rows, columns)."""
    blocks = _up_to(model, options)
    return _maps(
        model,
        (
            gradient_rollout(seen.attention, seen.gradients, options.discard)
            for seen in observe_gradients(model, images, options.target, blocks)
        ),
    )


def relevance_map(model: ImageModel, images: Array, options: MapOptions) -> Floats:
    """`relevance` to the tokens that answer: (B, C, H, W) -> (B, rows, columns).

    For a model that averages patches each of them is relevant to itself, which adds one over their
    number to the whole map.
    """
    blocks = _up_to(model, options)
    return _maps(
        model,
        (
            relevance(seen.attention, seen.gradients)
            for seen in observe_gradients(model, images, options.target, blocks)
        ),
    )


def gradcam_map(model: ImageModel, images: Array, options: MapOptions) -> Floats:
    """`gradcam` of one block: (B, C, H, W) -> (B, rows, columns).

    Where attention stays inside windows, `token_gradcam` of what comes out of the block.
    """
    index = check_block("explain", model, options.block)
    if not model.attends_globally:
        seen = observe_tokens(model, images, options.target, index)
        return np.concatenate([token_gradcam(tokens, slopes) for tokens, slopes in seen])
    shares, prefix = tokens_read(model.config), model.config.num_prefix_tokens
    only = slice(index, index + 1)
    maps = [
        gradcam(seen.attention[0], seen.gradients[0], shares, prefix, model.config.grid)
        for seen in observe_gradients(model, images, options.target, only)
    ]
    return np.concatenate(maps)


METHODS: dict[str, Method] = {
    "attention": attention_map,
    "rollout": rollout_map,
    "gradient-rollout": gradient_rollout_map,
    "relevance": relevance_map,
    "gradcam": gradcam_map,
}
GRADIENT_METHODS = frozenset({"gradient-rollout", "relevance", "gradcam"})


def possible_methods(model: ImageModel) -> list[str]:
    """The METHODS that can explain a model: of one with windows, gradcam alone."""
    return list(METHODS) if model.attends_globally else ["gradcam"]


def explain(
    model: ImageModel,
    images: Array,
    method: str = "rollout",
    options: MapOptions | None = None,
) -> Floats:
    """A map for each image by one of METHODS: images (B, C, H, W) -> (B, rows, columns).

    Of a model with `pad` some patches see zeros too: `without_padding` cuts the map to the image.

    `images` as the model takes them, of its dtype. The model computes in evaluation mode, and its
    parameters' gradients are left alone. Raises ValueError for an unknown method or option, and for
    one that is not among the model's `possible_methods`.
    """
    if method not in METHODS:
        raise ValueError(f"[explain] unknown method {method!r}; {suggest(method, METHODS)}")
    return METHODS[method](model, images, options or MapOptions())


def _up_to(model: ImageModel, options: MapOptions) -> slice:
    return slice(check_block("explain", model, options.block) + 1)


def _maps(model: ImageModel, groups: Iterable[Floats]) -> Floats:
    """Maps of the patches from weights (B, N, N) of one group of images after the other."""
    config = model.config
    shares, prefix = tokens_read(config), config.num_prefix_tokens
    return np.concatenate([patch_map(weights, shares, prefix, config.grid) for weights in groups])
