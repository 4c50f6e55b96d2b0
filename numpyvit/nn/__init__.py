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
    LayerScale,
    Linear,
    Norm,
    activation,
    check_positive,
)
from numpyvit.nn.patch import PatchEmbed, Size, Stem, as_pair
from numpyvit.nn.stems import (
    Bottleneck,
    ConvolutionalStem,
    GroupNorm,
    HybridStem,
    OverlappingPatchEmbed,
    StandardizedConv2d,
)
from numpyvit.nn.positions import LearnedPatchPositions, LearnedPositions, Positions
from numpyvit.nn.attention import Attention, AttentionHead, HeadwiseAttention, check_heads
from numpyvit.nn.local import LocalAttention, Locality
from numpyvit.nn.block import (
    Block,
    Mlp,
    ParallelBlock,
    ParallelThingsBlock,
    PostNormBlock,
    ResPostBlock,
    SwiGLU,
)
from numpyvit.nn.pooling import (
    AttentionPool,
    ClassAndMeanPool,
    ClassTokenPool,
    MaxPool,
    MeanPool,
    ScorePool,
)
from numpyvit.nn.window import (
    NormedPatchEmbed,
    PatchMerging,
    WindowAttention,
    Windows,
    inverse_order,
    merging_order,
    rearrange,
)

__all__ = [
    "ACTIVATIONS",
    "Attention",
    "AttentionHead",
    "AttentionPool",
    "Block",
    "Bottleneck",
    "ClassAndMeanPool",
    "ClassTokenPool",
    "Conv2d",
    "ConvolutionalStem",
    "DropPath",
    "Dropout",
    "GroupNorm",
    "HeadwiseAttention",
    "HybridStem",
    "Identity",
    "LayerNorm",
    "LayerScale",
    "LearnedPatchPositions",
    "LearnedPositions",
    "Linear",
    "LocalAttention",
    "Locality",
    "MaxPool",
    "MeanPool",
    "Mlp",
    "Module",
    "Norm",
    "NormedPatchEmbed",
    "OverlappingPatchEmbed",
    "ParallelBlock",
    "ParallelThingsBlock",
    "Parameter",
    "PatchEmbed",
    "PatchMerging",
    "Positions",
    "PostNormBlock",
    "ResPostBlock",
    "ScorePool",
    "Size",
    "StandardizedConv2d",
    "Stem",
    "SwiGLU",
    "WindowAttention",
    "Windows",
    "activation",
    "as_pair",
    "check_heads",
    "check_positive",
    "current_generator",
    "init",
    "inverse_order",
    "merging_order",
    "rearrange",
    "use_generator",
]
