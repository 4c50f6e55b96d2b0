"""The Vision Transformer (Dosovitskiy et al. 2021), under timm's names."""

from __future__ import annotations

from numpy.random import Generator, default_rng

from numpyvit.backend import Array
from numpyvit.models import components
from numpyvit.models.base import ImageModel
from numpyvit.models.config import ViTConfig
from numpyvit.nn import Dropout, Identity, Linear, Module, Parameter, init
from numpyvit.tensor import Tensor


class VisionTransformer(ImageModel):
    """Image to logits: patches, tokens in front, positions, blocks, pooling, and a linear head.

    What kind each part is of, `components.py` looks up in its tables.
    """

    def __init__(self, config: ViTConfig, *, rng: Generator | None = None) -> None:
        rng = rng or default_rng()
        self.config = config
        d, norm = config.embed_dim, components.norm(config)
        self.cls_token = _tokens(config.class_token, d, rng)
        self.dist_token = _tokens(config.distillation_token, d, rng)
        self.reg_token = _tokens(config.num_registers, d, rng)
        self.positions = components.POSITIONS[config.positions](config)
        self.pos_embed = self.positions.start(rng)
        self.patch_embed = components.STEMS[config.stem](config, rng)
        self.pos_drop = Dropout(config.dropout)
        self.norm_pre = norm(d) if config.pre_norm else Identity()
        self.blocks = [components.block(config, number, rng) for number in range(config.depth)]
        self.norm = norm(d) if config.final_norm else Identity()
        self.attn_pool = components.POOLINGS[config.pooling](config, rng)  # timm's name
        self.fc_norm = norm(config.pooled_dim) if config.head_norm else Identity()
        self.pre_logits = _pre_logits(config, rng)
        self.head = _head(config.num_features, config.num_classes, rng)
        self.head_dist = _head(d, config.num_classes * config.distillation_head, rng)
        self._start(rng)

    def forward_embedding(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D): tokens in front, then patches, with positions."""
        patches = self.patch_embed(images)
        in_front = [
            token.expand(len(patches), *token.shape[1:])
            for token in (self.cls_token, self.dist_token, self.reg_token)
            if token is not None
        ]
        x = self.positions.add(in_front, patches, self.pos_embed)
        return self.norm_pre(self.pos_drop(x))

    def forward_features(
        self,
        images: Tensor | Array,
        maps: list[Tensor] | None = None,
        hidden_states: list[Tensor] | None = None,
        keep: int | None = None,
    ) -> Tensor:
        """(B, C, H, W) -> tokens (B, N, D) after the final norm; see ImageModel.

        With `keep`, the last block computes no more than that many of the leading tokens.
        """
        x = self.forward_embedding(self._as_input(images))
        if hidden_states is not None:
            hidden_states.append(x)
        for block in self.blocks:
            x = block(x, maps, keep if block is self.blocks[-1] else None)
            if hidden_states is not None:
                hidden_states.append(x)
        return self.norm(x)

    def forward_pooled(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, num_features): what the head reads."""
        return self.pre_logits(self.fc_norm(self.attn_pool(tokens)))

    def forward_heads(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, D) -> logits of the head, and of that of the distillation token if there is one.

        Each (B, num_classes): what distillation trains (Touvron et al. 2021, section 4).
        """
        logits = self.head(self.forward_pooled(tokens))
        return logits, self.head_dist(tokens[:, 1]) if self.config.distillation_head else logits

    def forward_head(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> logits (B, num_classes); of a model with two heads, their mean."""
        logits, distilled = self.forward_heads(tokens)
        return logits if logits is distilled else (logits + distilled) * 0.5

    @property
    def tokens_read(self) -> int | None:
        """How many of the leading tokens the head reads; None for all."""
        return 1 + self.config.distillation_head if self.config.pooling == "token" else None


class PreLogits(Module):
    """A linear layer and tanh before the head, for pre-training (Dosovitskiy et al. 2021, 3.1)."""

    def __init__(self, dim: int, width: int, rng: Generator) -> None:
        self.fc = Linear(dim, width, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim) -> (B, width)."""
        return self.fc(x).tanh()


def _tokens(count: int, width: int, rng: Generator) -> Parameter | None:
    """Learned tokens (1, count, width); None where there are none."""
    return Parameter(init.trunc_normal((1, int(count), width), rng)) if count else None


def _pre_logits(config: ViTConfig, rng: Generator) -> Module:
    wanted = config.pre_logits
    return PreLogits(config.pooled_dim, wanted, rng) if wanted else Identity()


def _head(num_features: int, num_classes: int, rng: Generator) -> Module:
    return Linear(num_features, num_classes, rng=rng) if num_classes else Identity()
