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
    """The attention of each block of a ViT.

    ValueError for another model, and where an attention is of another kind than `nn.Attention`.
    """
    if not isinstance(model, VisionTransformer):
        raise ValueError(
            f"[compress] expected a VisionTransformer, got {type(model).__name__}; of a masked "
            "autoencoder, take the encoder: model.to_vit()"
        )
    found = [getattr(block, "attn", block) for block in model.blocks]
    for attention in found:
        if type(attention) is not Attention:
            raise ValueError(
                f"[compress] expected blocks with plain Attention, got {type(attention).__name__}"
            )
    return found


def check_whole(model: VisionTransformer) -> None:
    """ValueError for a model whose tokens are merged or dropped on their way."""
    if not model.attends_globally:
        raise ValueError(
            f"[compress] expected a model that keeps all its tokens, got {type(model).__name__}; "
            "start from the model that it was made from"
        )
