"""What a masked autoencoder (He et al. 2022) is made to, and the named ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from numpyvit.backend import suggest
from numpyvit.models.base import ModelConfig, check_kinds
from numpyvit.models.config import ViTConfig
from numpyvit.models.costs import count_block_multiply_adds
from numpyvit.nn.positions import wave_count

# What the encoder of a MAE is like, and nothing else.
_ENCODER: dict[str, Any] = {
    "class_token": True,
    "distillation_token": False,
    "num_registers": 0,
    "positions": "all",
    "stem": "patches",  # others would show the encoder what is hidden
    "pad": False,
    "pre_norm": False,
    "final_norm": True,
}
# What has no part in a MAE.
_OF_THE_HEAD = {"num_classes", "pooling", "head_norm", "pre_logits", "distillation_head"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MAEConfig(ModelConfig):
    """The sizes and choices of a MaskedAutoencoder; those of the paper but for `encoder`.

    The encoder's head has no part in it. `mask_ratio` is the share of the patches that are hidden.
    With `norm_pix` what is to be predicted of a patch is normalised to mean 0 and variance 1.

    Raises ValueError for values that a ViTConfig would not take either, for an encoder without a
    final norm or with other tokens than the class token and the patches, for widths that 4 does
    not divide, and where no patch or every patch would be hidden.
    """

    encoder: ViTConfig
    decoder_embed_dim: int = 512
    decoder_depth: int = 8
    decoder_num_heads: int = 16
    decoder_mlp_ratio: float = 4.0
    mask_ratio: float = 0.75
    norm_pix: bool = True

    def __post_init__(self) -> None:
        check_kinds(self, ViTConfig)
        for name, wanted in _ENCODER.items():
            if (value := getattr(self.encoder, name)) != wanted:
                raise ValueError(
                    f"[MAEConfig] expected an encoder with {name}={wanted!r}, got {value!r}"
                )
        try:
            decoder = self.decoder
        except ValueError as error:
            raise ValueError(f"[MAEConfig] the decoder's sizes do not fit: {error}") from error
        for width in (self.encoder.embed_dim, decoder.embed_dim):
            wave_count("MAEConfig", "widths", width)
        if not 0 < self.num_visible < self.num_patches:
            raise ValueError(
                f"[MAEConfig] expected a mask_ratio that hides some of {self.num_patches} patches "
                f"and not all, got {self.mask_ratio}"
            )

    @property
    def decoder(self) -> ViTConfig:
        """The decoder as a Vision Transformer of the encoder's kind, of which blocks are built."""
        return self.encoder.replace(
            num_classes=0,
            embed_dim=self.decoder_embed_dim,
            depth=self.decoder_depth,
            num_heads=self.decoder_num_heads,
            mlp_ratio=self.decoder_mlp_ratio,
        )

    num_classes = 0
    image_size = property(lambda self: self.encoder.image_size)
    image_shape = property(lambda self: self.encoder.image_shape)
    patch_size = property(lambda self: self.encoder.patch_size)
    in_channels = property(lambda self: self.encoder.in_channels)
    embed_dim = property(lambda self: self.encoder.embed_dim)
    num_heads = property(lambda self: self.encoder.num_heads)
    depth = property(lambda self: self.encoder.depth)
    mlp = property(lambda self: self.encoder.mlp)
    class_token = property(lambda self: self.encoder.class_token)
    num_prefix_tokens = property(lambda self: self.encoder.num_prefix_tokens)

    @property
    def num_blocks(self) -> int:
        """Blocks of encoder and decoder."""
        return self.depth + self.decoder_depth

    @property
    def num_patches(self) -> int:
        """Patches in an image."""
        return self.encoder.num_patches

    @property
    def widest(self) -> int:
        """Numbers in the largest array that training makes of one image, but for attention's."""
        seen = self.encoder.widest * (1 + self.num_visible) // self.encoder.num_tokens
        return max(seen, self.decoder.widest)

    @property
    def num_visible(self) -> int:
        """Patches that the encoder sees."""
        return int(self.num_patches * (1 - self.mask_ratio))

    def replace(self, **overrides: Any) -> Self:
        """A copy with some fields changed; what is no field here is one of the encoder's.

        ValueError that suggests a name for an unknown one.
        """
        own = {field.name for field in dataclasses.fields(self)}
        inner = {field.name for field in dataclasses.fields(ViTConfig)} - _OF_THE_HEAD
        known = sorted(own | inner)
        for name in overrides:
            if name not in known:
                raise ValueError(f"[MAEConfig] unknown option {name!r}; {suggest(name, known)}")
        changes = {name: value for name, value in overrides.items() if name in own}
        others = {name: value for name, value in overrides.items() if name not in own}
        encoder = changes.pop("encoder", self.encoder).replace(**others)
        return dataclasses.replace(self, encoder=encoder, **changes)

    def for_classes(self, num_classes: int, **changes: Any) -> Self:
        """The same model with other `changes`: classes have no part in it."""
        return self.replace(**changes)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """What `to_dict` gave."""
        return cls(**{**fields, "encoder": ViTConfig(**fields["encoder"])})


def _paper(patch_size: int, **encoder: Any) -> MAEConfig:
    return MAEConfig(encoder=ViTConfig(num_classes=0, patch_size=patch_size, **encoder))


# He et al. 2022, section 4; the names are those of the paper's code. The CIFAR model is the MAE of
# `vit_cifar_patch4_32`, which has no final norm: `to_vit(num_classes=10, final_norm=False)`.
MAE_VARIANTS: dict[str, MAEConfig] = {
    "mae_vit_cifar_patch4_32": MAEConfig(
        encoder=ViTConfig(
            image_size=32,
            patch_size=4,
            num_classes=0,
            embed_dim=48,
            depth=4,
            num_heads=4,
            activation="gelu_tanh",
        ),
        decoder_embed_dim=48,
        decoder_depth=2,
        decoder_num_heads=4,
    ),
    "mae_vit_base_patch16": _paper(16),
    "mae_vit_large_patch16": _paper(16, embed_dim=1024, depth=24, num_heads=16),
    "mae_vit_huge_patch14": _paper(14, embed_dim=1280, depth=32, num_heads=16),
}


def count_mae_multiply_adds(config: MAEConfig) -> int:
    """Multiply-adds of the matrix products in one image's forward pass, counted as for a ViT."""
    encoder, decoder = config.encoder, config.decoder
    pixels, seen = encoder.patch_values, 1 + config.num_visible
    return (
        config.num_patches * pixels * encoder.embed_dim
        + encoder.depth * count_block_multiply_adds(encoder, seen)
        + seen * encoder.embed_dim * decoder.embed_dim
        + decoder.depth * count_block_multiply_adds(decoder, decoder.num_tokens)
        + decoder.num_tokens * decoder.embed_dim * pixels
    )
