"""Layers: modules with parameters, made of the functions in `numpyvit.functional`."""

from __future__ import annotations

from numpyvit.nn.randomness import current_generator, use_generator
from numpyvit.nn.module import Module, Parameter
from numpyvit.nn import init
from numpyvit.nn.basic import (
    ACTIVATIONS,
    Conv2d,
    Dropout,
    DropPath,
    Identity,
    LayerNorm,
    Linear,
    activation,
    check_positive,
)
from numpyvit.nn.patch import PatchEmbed
from numpyvit.nn.attention import Attention, AttentionHead, HeadwiseAttention, check_heads
from numpyvit.nn.block import Block, Mlp

__all__ = [
    "ACTIVATIONS",
    "Attention",
    "AttentionHead",
    "Block",
    "Conv2d",
    "DropPath",
    "Dropout",
    "HeadwiseAttention",
    "Identity",
    "LayerNorm",
    "Linear",
    "Mlp",
    "Module",
    "Parameter",
    "PatchEmbed",
    "activation",
    "check_heads",
    "check_positive",
    "current_generator",
    "init",
    "use_generator",
]
