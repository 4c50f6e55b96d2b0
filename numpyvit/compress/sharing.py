"""The same weights in other modules."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from numpyvit.models import VisionTransformer
from numpyvit.nn import Attention, Module

Model = TypeVar("Model", bound=Module)


def share(model: Model) -> Model:
    """A copy of all modules that has the model's own parameters: what trains one trains both."""
    own: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    return copy.deepcopy(model, own)


def plain_attention(model: VisionTransformer) -> list[Attention]:
    """The attention of each block; ValueError where one is of another kind than `nn.Attention`."""
    found = [getattr(block, "attn", block) for block in model.blocks]
    for attention in found:
        if type(attention) is not Attention:
            raise ValueError(
                f"[compress] expected blocks with plain Attention, got {type(attention).__name__}"
            )
    return found
