"""What a Vision Transformer is put together from: a table for each part, a row for each kind.

A new kind is a class in `numpyvit.nn`, a row here, and its name in `config.CHOICES`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.random import Generator

from numpyvit.models.config import ViTConfig
from numpyvit.nn import (
    Attention,
    AttentionPool,
    Block,
    ClassAndMeanPool,
    ClassTokenPool,
    ConvolutionalStem,
    HybridStem,
    LayerNorm,
    LearnedPatchPositions,
    LearnedPositions,
    MaxPool,
    MeanPool,
    Mlp,
    Module,
    Norm,
    OverlappingPatchEmbed,
    ParallelBlock,
    ParallelThingsBlock,
    PatchEmbed,
    Positions,
    PostNormBlock,
    RelativePositions,
    ResPostBlock,
    RMSNorm,
    RotaryPositions,
    ScorePool,
    SincosPositions,
    Size,
    Stem,
    SwiGLU,
)

Build = Callable[[ViTConfig, Generator], Module]

# Width and epsilon to a module: by mean and variance, or by the root mean square.
NORMS: dict[str, Callable[[int, float], Module]] = {"layer": LayerNorm, "rms": RMSNorm}

# Width, hidden width, activation_name, dropout and rng to a module.
MLPS: dict[str, Callable[..., Module]] = {"mlp": Mlp, "swiglu": SwiGLU}


def norm(config: ViTConfig) -> Norm:
    """The model's normalisation, waiting for its width."""
    return lambda width: NORMS[config.norm](width, config.norm_eps)


def attention(config: ViTConfig, rng: Generator) -> Attention:
    """One block's attention."""
    return Attention(
        config.embed_dim,
        config.num_heads,
        qkv_bias=config.qkv_bias,
        qk_norm=norm(config) if config.qk_norm else None,
        positions=POSITIONS[config.positions](config).in_attention(rng),
        attention_dropout=config.attention_dropout,
        dropout=config.dropout,
        rng=rng,
    )


def mlp(config: ViTConfig, rng: Generator) -> Module:
    """One block's MLP."""
    return MLPS[config.mlp](
        config.embed_dim,
        config.mlp_dim,
        activation_name=config.activation,
        dropout=config.dropout,
        rng=rng,
    )


def _sizes(config: ViTConfig) -> tuple[Size, Size, int, int]:
    return config.image_size, config.patch_size, config.in_channels, config.embed_dim


# (B, C, H, W) to tokens (B, N, D), one a patch: cut out; by a convolution whose windows overlap; by
# a few of 3 x 3; by a small residual network.
STEMS: dict[str, Callable[[ViTConfig, Generator], Stem]] = {
    "patches": lambda config, rng: PatchEmbed(
        *_sizes(config), bias=config.patch_bias, pad=config.pad, rng=rng
    ),
    "overlapping": lambda config, rng: OverlappingPatchEmbed(
        *_sizes(config), config.norm_eps, pad=config.pad, rng=rng
    ),
    "convolutions": lambda config, rng: ConvolutionalStem(
        *_sizes(config), config.norm_eps, pad=config.pad, rng=rng
    ),
    "hybrid": lambda config, rng: HybridStem(*_sizes(config), pad=config.pad, rng=rng),
}

# Learned ones, for "all" tokens or for "patches" alone, before the others are put in front; none;
# fixed waves in both published forms; what attention adds to scores by offset; queries and keys
# that are turned.
POSITIONS: dict[str, Callable[[ViTConfig], Positions]] = {
    "all": lambda config: LearnedPositions(config.num_positions, config.embed_dim),
    "patches": lambda config: LearnedPatchPositions(config.num_positions, config.embed_dim),
    "none": lambda config: Positions(),
    "sincos": lambda config: SincosPositions(config.grid, config.embed_dim, "big_vision"),
    "sincos_mae": lambda config: SincosPositions(config.grid, config.embed_dim, "mae"),
    "relative": lambda config: RelativePositions(
        config.grid, config.num_heads, config.num_prefix_tokens
    ),
    "rotary": lambda config: RotaryPositions(config.grid, config.embed_dim // config.num_heads),
}


def block(config: ViTConfig, number: int, rng: Generator) -> Module:
    """Block `number` of the model; its drop_path rises linearly with depth, from 0."""
    drop_path = config.drop_path * number / max(config.depth - 1, 1)
    kind, count = BLOCKS[config.block]
    branches = [(attention(config, rng), mlp(config, rng)) for _ in range(count)]
    return kind(
        config.embed_dim,
        *(branches[0] if count == 1 else zip(*branches, strict=True)),
        norm=norm(config),
        layer_scale=config.layer_scale,
        drop_path=drop_path,
    )


# The class, which says what it does, and how many attentions and MLPs it has side by side.
BLOCKS: dict[str, tuple[Callable[..., Module], int]] = {
    "pre_norm": (Block, 1),
    "post_norm": (PostNormBlock, 1),
    "res_post_norm": (ResPostBlock, 1),
    "parallel": (ParallelBlock, 1),
    "parallel_things": (ParallelThingsBlock, 2),
}


def _attention_pool(config: ViTConfig, rng: Generator) -> Module:
    return AttentionPool(
        config.embed_dim,
        config.num_heads,
        config.mlp_dim,
        activation_name=config.activation,
        norm=norm(config),
        num_prefix_tokens=config.num_prefix_tokens,
        rng=rng,
    )


# What the head reads: the class token; of the patches the mean, the maximum, a mean weighted by
# learned scores, or attention of a learned query; or class token and mean, joined.
POOLINGS: dict[str, Build] = {
    "token": lambda config, rng: ClassTokenPool(),
    "avg": lambda config, rng: MeanPool(config.num_prefix_tokens),
    "token_avg": lambda config, rng: ClassAndMeanPool(config.num_prefix_tokens),
    "max": lambda config, rng: MaxPool(config.num_prefix_tokens),
    "score": lambda config, rng: ScorePool(config.embed_dim, config.num_prefix_tokens, rng=rng),
    "map": _attention_pool,
}

TABLES: dict[str, dict[str, Any]] = {
    "stem": STEMS,
    "positions": POSITIONS,
    "block": BLOCKS,
    "norm": NORMS,
    "mlp": MLPS,
    "pooling": POOLINGS,
}
