"""Multiply-adds of a Vision Transformer."""

from __future__ import annotations

from numpy.random import default_rng

from numpyvit.models.components import BLOCKS, STEMS
from numpyvit.models.config import ViTConfig
from numpyvit.nn import init


def count_block_multiply_adds(config: ViTConfig, tokens: int) -> int:
    """Of the products in one block, for so many tokens of an image."""
    d, m = config.embed_dim, config.mlp_dim
    matrices = 3 if config.mlp == "swiglu" else 2
    _, branches = BLOCKS[config.block]
    return branches * (tokens * (4 * d * d + matrices * d * m) + 2 * tokens * tokens * d)


def count_vit_multiply_adds(config: ViTConfig) -> int:
    """Of the matrix products in one image's forward pass, attention's two included."""
    d, m, p = config.embed_dim, config.mlp_dim, config.num_patches
    blocks = config.depth * count_block_multiply_adds(config, config.num_tokens)
    with init.undrawn():
        embedding = STEMS[config.stem](config, default_rng()).multiply_adds
    heads = (config.num_features + d * config.distillation_head) * config.num_classes
    if config.pooling == "map":
        heads += p * 2 * d * d + 2 * p * d + 2 * d * d + 2 * d * m
    elif config.pooling == "score":
        heads += 2 * p * d
    return embedding + blocks + config.pooled_dim * config.pre_logits + heads
