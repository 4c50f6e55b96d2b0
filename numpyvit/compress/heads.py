"""Heads that a model can do without: found by their gradients, and taken out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy

from numpyvit import functional
from numpyvit.backend import Array, to_device, to_numpy
from numpyvit.compress.sharing import plain_attention, share
from numpyvit.models import VisionTransformer
from numpyvit.nn import Attention, Module, Parameter, RelativeBias
from numpyvit.tensor import Tensor, gradients

_AT_ONCE = 32  # images


class _GatedProjection(Module):
    """`proj` of heads of which each is multiplied by its gate: (B, N, H*K) -> (B, N, D)."""

    def __init__(self, proj: Module, gates: Tensor) -> None:
        self.proj, self.gates = proj, gates  # (H,), or (B, H) for gates of each image's own

    def forward(self, y: Tensor) -> Tensor:
        b, n, width = y.shape
        if self.gates.ndim > 1 and len(self.gates) not in (1, b):
            raise ValueError(
                f"[gate_heads] expected gates of {b} images, got those of {len(self.gates)}"
            )
        heads = y.reshape(b, n, self.gates.shape[-1], -1)
        gates = self.gates.reshape(-1, 1, self.gates.shape[-1], 1)
        return self.proj((heads * gates).reshape(b, n, width))


def gate_heads(model: VisionTransformer, gates: Sequence[Tensor | Array]) -> VisionTransformer:
    """`model` with its weights shared, and every head's output multiplied by its gate.

    `gates` has (H,) or (B, H) numbers for each block. `save_model` refuses what comes out. Raises
    ValueError where gates do not fit, and for another attention than the plain one.
    """
    gated = share(model)
    attentions = plain_attention(gated)
    heads = [attention.num_heads for attention in attentions]
    if [gate.shape[-1] for gate in gates] != heads:
        raise ValueError(
            f"[gate_heads] expected gates for {heads} heads, got shapes "
            f"{[tuple(gate.shape) for gate in gates]}"
        )
    for attention, gate in zip(attentions, gates, strict=True):
        gate = gate if isinstance(gate, Tensor) else Tensor(gate)
        attention.proj = _GatedProjection(attention.proj, gate)  # type: ignore[assignment]
    return gated


def head_importance(
    model: VisionTransformer, images: Array, labels: Array, *, normalise: bool = True
) -> list[numpy.ndarray]:
    """How much the loss depends on each head: (H,) numbers for each block.

    The mean over images of |d loss / d gate| (Michel et al. 2019, equation 2), without dropout;
    divided by their norm in each block with `normalise`, as there, unless all are 0: those of a
    model with a head of zeros are. `images` (B, C, H, W), `labels` (B,). Raises ValueError without
    images.
    """
    if not len(images):
        raise ValueError("[head_importance] expected at least 1 image, got 0")
    counts = [attention.num_heads for attention in plain_attention(model)]
    sums = [numpy.zeros(count) for count in counts]
    for start in range(0, len(images), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        size = len(images[part])
        ones = [numpy.ones((size, count), model.dtype) for count in counts]
        gates = [Tensor(to_device(each, model.device), requires_grad=True) for each in ones]
        logits = gate_heads(model, gates).eval()(to_device(images[part], model.device))
        # Images do not influence each other: the sum of losses has every image's own gradients.
        loss = functional.cross_entropy(logits, to_device(labels[part], model.device)) * size
        for total, slope in zip(sums, gradients(loss, gates), strict=True):
            total += numpy.abs(to_numpy(slope)).sum(0)
    means = [total / len(images) for total in sums]
    return [mean / (numpy.linalg.norm(mean) or 1) for mean in means] if normalise else means


def least_important(importance: Sequence[numpy.ndarray], count: int) -> dict[int, list[int]]:
    """The `count` heads to remove: {block: heads}. The most important one of each block stays.

    Raises ValueError where fewer could go, and for what is not finite.
    """
    if not all(numpy.isfinite(values).all() for values in importance):
        raise ValueError(f"[least_important] expected finite numbers, got {[*importance]}")
    order = sorted(
        (float(value), block, head)
        for block, values in enumerate(importance)
        for head, value in enumerate(values)
        if head != int(numpy.argmax(values))
    )
    if not 0 <= count <= len(order):
        raise ValueError(
            f"[least_important] expected from 0 to {len(order)} heads to remove, so that each "
            f"block keeps one, got {count}"
        )
    chosen: dict[int, list[int]] = {}
    for _, block, head in order[:count]:
        chosen.setdefault(block, []).append(head)
    return {block: sorted(chosen[block]) for block in sorted(chosen)}


def prune_heads(model: VisionTransformer, heads: Mapping[int, Sequence[int]]) -> VisionTransformer:
    """A copy of `model` without these heads, {block: heads}: smaller matrices, less work.

    The same outputs as with the heads' gates at 0. `save_model` refuses it: keep its `state_dict`,
    and to read that, prune a fresh model alike first. Raises ValueError for heads that are not
    there, for a block that would keep none, and for another attention than the plain one.
    """
    pruned = copy.deepcopy(model)
    attentions = plain_attention(pruned)
    for block, gone in heads.items():
        here = range(attentions[block].num_heads) if 0 <= block < len(attentions) else range(0)
        going = set(gone) if isinstance(gone, Iterable) else set(here)
        staying = [head for head in here if head not in going]
        if not (staying and going <= set(here)):
            raise ValueError(
                f"[prune_heads] expected a list of some, but not all, of the {len(here)} heads of "
                f"block {block}, got {gone}"
            )
        _keep_heads(attentions[block], staying)
    return pruned


def _keep_heads(attention: Attention, staying: list[int]) -> None:
    rows = numpy.arange(len(attention.qkv.weight)).reshape(3, attention.num_heads, -1)
    rows = rows[:, staying]  # 3 h k
    columns = rows[0].ravel()
    _pick(attention.qkv, "weight", rows.ravel())
    _pick(attention.qkv, "bias", rows.ravel())
    _pick(attention.proj, "weight", (slice(None), columns))
    if isinstance(attention.rel_pos, RelativeBias):
        _pick(attention.rel_pos, "relative_position_bias_table", (slice(None), staying))
    attention.num_heads = len(staying)


def _pick(layer: Module, name: str, key: Any) -> None:
    """The parameter `name` replaced by a part of it."""
    parameter = getattr(layer, name)
    if parameter is not None:
        smaller = Parameter(parameter.data[key].copy())
        smaller.requires_grad = parameter.requires_grad
        setattr(layer, name, smaller)
