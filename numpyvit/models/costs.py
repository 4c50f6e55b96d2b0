"""Multiply-adds of a Vision Transformer."""

from __future__ import annotations

from numpy.random import default_rng

from numpyvit.models.components import STEMS
from numpyvit.models.config import ViTConfig
from numpyvit.nn import init


def count_vit_multiply_adds(config: ViTConfig) -> int:
    """Of the matrix products in one image's forward pass, attention's two included."""
    d, m, n = config.embed_dim, config.mlp_dim, config.num_tokens
    matrices = 3 if config.mlp == "swiglu" else 2
    block = n * (4 * d * d + matrices * d * m) + 2 * n * n * d
    with init.undrawn():
        embedding = STEMS[config.stem](config, default_rng()).multiply_adds
    heads = config.num_features * config.num_classes * (1 + config.distillation_head)
    if config.pooling == "map":
        p = config.num_patches
        heads += p * 2 * d * d + 2 * p * d + 2 * d * d + 2 * d * m
    return embedding + config.depth * block + config.pooled_dim * config.pre_logits + heads
