"""Starting weights for a whole model, by name."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy
from numpy.random import Generator

from numpyvit.models.base import ImageModel
from numpyvit.nn import (
    Attention,
    Conv2d,
    Linear,
    Mlp,
    SwiGLU,
    WindowAttention,
    init,
    sincos_positions,
)
from numpyvit.nn.patch import Size, as_pair

Weights = numpy.ndarray

BRANCH_SCALE = 0.5  # of the MLPs' second layers, so that residual branches start small
QUERY_KEY = (0.7, 0.7)  # weight of the noise and of the identity in W_q W_k^T
VALUE_PROJ = (0.4, 0.4)  # weight of the noise and of minus the identity in W_v W_proj


def start_as_timm(model: ImageModel, rng: Generator) -> None:
    """Keep what the model's constructor drew: weights truncated normal 0.02, biases 0."""


def start_structured(model: ImageModel, rng: Generator) -> None:
    """Start near what trained ViTs converge to, so that a small data set suffices sooner.

    Patches are described by a discrete cosine transform of luminance and two colour differences,
    positions by sines and cosines, and attention is mimetic: W_q W_k^T near the identity, so that
    tokens attend to similar ones, and W_v W_proj near minus the identity (Trockman and Kolter
    2023). Other linear layers are normal with variance 1 / inputs. Everything is trained on.
    """
    for _, module in model.named_modules():
        if isinstance(module, Linear):
            out_features, in_features = module.weight.shape
            scale = in_features**-0.5
            _set_linear(module, scale * rng.standard_normal((out_features, in_features)))
    for block in model.blocks:
        for _, module in block.named_modules():
            if isinstance(module, Mlp | SwiGLU):
                module.fc2.weight.data *= BRANCH_SCALE
            elif isinstance(module, Attention | WindowAttention):
                _start_mimetic(module, rng)
    for name, module in model.named_modules():
        if isinstance(module, Linear) and f"{name}.".startswith(model.head_names):
            _set_linear(module, init.trunc_normal(module.weight.shape, rng))
    if model.pos_embed is not None:
        positions = sincos_positions(model.patch_embed.grid, model.config.embed_dim)
        model.pos_embed.data[...] = 0
        model.pos_embed.data[0, -len(positions) :] = positions
    projection = model.patch_embed.proj
    if projection is model.patch_embed.pixel_filters:  # behind other convolutions: as it is
        width, channels, *kernel = projection.weight.shape
        filters = cosine_filters(channels, (kernel[0], kernel[1]))[:width]
        projection.weight.data[: len(filters)] = filters
        _clear_bias(projection)


def cosine_filters(channels: int, patch: Size) -> Weights:
    """An orthonormal basis of patches: (C*P*Q, C, P, Q), low frequencies of all colours first.

    The two-dimensional type-II discrete cosine transform (Ahmed et al. 1974); the three channels
    of a colour image are first rotated to luminance, red against blue, and green against both.
    """
    p, q = as_pair(patch)
    down, right = numpy.indices((p, q)).reshape(2, -1)
    colours = numpy.eye(channels)
    if channels == 3:
        colours = numpy.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]], float)
        colours /= numpy.linalg.norm(colours, axis=1, keepdims=True)
    basis = numpy.einsum("cr,ui,vj->uvcrij", colours, _waves(p), _waves(q))
    order = numpy.argsort(down * q + right * p, kind="stable")
    basis = basis.reshape(p * q, channels, channels, p, q)[order]
    return basis.reshape(-1, channels, p, q).astype(numpy.float32)


def _waves(length: int) -> Weights:
    """Orthonormal cosines, one a row, slowest first."""
    steps = numpy.arange(length)
    waves = numpy.cos(math.pi * (steps + 0.5) * steps[:, None] / length) * math.sqrt(2 / length)
    waves[0] *= math.sqrt(0.5)
    return waves


def _start_mimetic(attention: Attention | WindowAttention, rng: Generator) -> None:
    """Factor near-identity matrices by singular values into queries and keys, values and proj."""
    width = attention.proj.weight.shape[0]
    head = width // attention.num_heads
    q, k, v = attention.qkv.weight.data.reshape(3, width, width)
    noise, identity = QUERY_KEY
    for start in range(0, width, head):
        u, s, vt = numpy.linalg.svd(_near_identity(width, noise, identity, rng))
        root = numpy.sqrt(s[:head, None])
        q[start : start + head] = root * u.T[:head]
        k[start : start + head] = root * vt[:head]
    noise, identity = VALUE_PROJ
    u, s, vt = numpy.linalg.svd(_near_identity(width, noise, -identity, rng))
    root = numpy.sqrt(s[:, None])
    v[...] = root * u.T
    attention.proj.weight.data[...] = (root * vt).T


def _near_identity(width: int, noise: float, identity: float, rng: Generator) -> Weights:
    random = rng.standard_normal((width, width)) * width**-0.5
    return noise * random + identity * numpy.eye(width)


def _set_linear(layer: Linear, weight: Weights) -> None:
    layer.weight.data[...] = weight
    _clear_bias(layer)


def _clear_bias(layer: Linear | Conv2d) -> None:
    if layer.bias is not None:
        layer.bias.data[...] = 0


INITIALIZATIONS: dict[str, Callable[[ImageModel, Generator], None]] = {
    "timm": start_as_timm,
    "structured": start_structured,
}
