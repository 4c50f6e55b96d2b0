"""The Vision Transformer (Dosovitskiy et al. 2021), under timm's names."""

from __future__ import annotations

from typing import NamedTuple

from numpy.random import Generator, default_rng

from numpyvit import functional
from numpyvit.backend import Array
from numpyvit.models.config import ViTConfig
from numpyvit.nn import (
    Block,
    Dropout,
    Identity,
    LayerNorm,
    Linear,
    Module,
    Parameter,
    PatchEmbed,
    init,
)
from numpyvit.tensor import Tensor


class ViTOutput(NamedTuple):
    """What a forward pass with intermediates gives back.

    `attention` holds the weights (B, H, N, N) of every block, `hidden_states` the tokens (B, N, D)
    before the first block and after each; both are empty where not asked for.
    """

    logits: Tensor
    attention: list[Tensor]
    hidden_states: list[Tensor]


class VisionTransformer(Module):
    """Image to logits: patches, class token, positions, blocks, and a linear head."""

    def __init__(self, config: ViTConfig, *, rng: Generator | None = None) -> None:
        rng = rng or default_rng()
        self.config = config
        d = config.embed_dim
        self.cls_token = Parameter(init.trunc_normal((1, 1, d), rng))
        self.pos_embed = Parameter(init.trunc_normal((1, config.num_tokens, d), rng))
        self.patch_embed = PatchEmbed(
            config.image_size, config.patch_size, config.in_channels, d, rng=rng
        )
        self.pos_drop = Dropout(config.dropout)
        self.blocks = [_block(config, position, rng) for position in range(config.depth)]
        self.norm = LayerNorm(d, config.norm_eps) if config.final_norm else Identity()
        self.head = Linear(d, config.num_classes, rng=rng)
        self._start(rng)

    def _start(self, rng: Generator) -> None:
        """Starting values of the ViTs in timm: weights truncated normal 0.02, biases 0."""
        for _, module in self.named_modules():
            if isinstance(module, Linear):
                module.weight.data = init.trunc_normal(module.weight.shape, rng)
                if module.bias is not None:
                    module.bias.data[...] = 0

    def forward_embedding(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D): class token first, positions added."""
        patches = self.patch_embed(images)
        cls_token = self.cls_token.expand(len(patches), 1, patches.shape[-1])
        return self.pos_drop(functional.concat([cls_token, patches], axis=1) + self.pos_embed)

    def forward_features(
        self,
        images: Tensor | Array,
        maps: list[Tensor] | None = None,
        hidden_states: list[Tensor] | None = None,
        keep: int | None = None,
    ) -> Tensor:
        """(B, C, H, W) -> tokens (B, N, D) after the final norm.

        Attention weights and the tokens between blocks are appended to the lists, if given. With
        `keep`, the last block computes no more than that many of the leading tokens.
        """
        x = self.forward_embedding(self._as_input(images))
        if hidden_states is not None:
            hidden_states.append(x)
        for block in self.blocks:
            x = block(x, maps, keep if block is self.blocks[-1] else None)
            if hidden_states is not None:
                hidden_states.append(x)
        return self.norm(x)

    def forward_head(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> logits (B, num_classes), from the class token."""
        return self.head(tokens[:, 0])

    def forward(
        self,
        images: Tensor | Array,
        *,
        return_attention: bool = False,
        return_hidden_states: bool = False,
    ) -> Tensor | ViTOutput:
        """(B, C, H, W) -> logits (B, num_classes), or a ViTOutput when intermediates are asked for.

        What is not asked for is not computed.
        """
        if not (return_attention or return_hidden_states):
            return self.forward_head(self.forward_features(images, keep=1))
        maps: list[Tensor] = []
        hidden_states: list[Tensor] = []
        tokens = self.forward_features(
            images,
            maps if return_attention else None,
            hidden_states if return_hidden_states else None,
        )
        return ViTOutput(self.forward_head(tokens), maps, hidden_states)

    def _as_input(self, images: Tensor | Array) -> Tensor:
        images = images if isinstance(images, Tensor) else Tensor(images)
        if images.dtype != self.cls_token.dtype:
            raise TypeError(
                f"[VisionTransformer] expected images of dtype {self.cls_token.dtype}, got "
                f"{images.dtype}; normalise them, or convert with .astype() or model.to(dtype=...)"
            )
        return images


def _block(config: ViTConfig, position: int, rng: Generator) -> Block:
    """Block number `position`; its drop_path rises linearly with depth, from 0."""
    return Block(
        config.embed_dim,
        config.num_heads,
        config.mlp_dim,
        qkv_bias=config.qkv_bias,
        activation_name=config.activation,
        norm_eps=config.norm_eps,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        drop_path=config.drop_path * position / max(config.depth - 1, 1),
        rng=rng,
    )
