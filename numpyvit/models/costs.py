"""Parameters and multiply-adds of a configuration, counted without building the model."""

from __future__ import annotations

from numpyvit.models.config import ViTConfig


def count_parameters(config: ViTConfig) -> int:
    """Numbers that training changes."""
    d, m = config.embed_dim, config.mlp_dim
    norm = 2 * d
    qkv = 3 * d * d + 3 * d * config.qkv_bias
    block = 2 * norm + qkv + (d * d + d) + (d * m + m) + (m * d + d)
    embedding = config.patch_values * d + d + d + config.num_tokens * d
    head = d * config.num_classes + config.num_classes
    return embedding + config.depth * block + norm * config.final_norm + head


def count_multiply_adds(config: ViTConfig) -> int:
    """Multiply-adds of the matrix products in one image's forward pass.

    Attention's two products are counted; biases, norms, softmax and GELU are not, as is usual:
    17.56 billion for ViT-B/16.
    """
    d, m, n = config.embed_dim, config.mlp_dim, config.num_tokens
    block = n * (4 * d * d + 2 * d * m) + 2 * n * n * d
    embedding = config.num_patches * config.patch_values * d
    return embedding + config.depth * block + d * config.num_classes
