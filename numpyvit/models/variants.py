"""The named models: a table that cites its sources, and the one way to build from it."""

from __future__ import annotations

import contextlib
import fnmatch
from typing import Any

from numpy.random import default_rng

from numpyvit.backend import nearest
from numpyvit.models.archive import packaged_archive, read_archive
from numpyvit.models.config import ViTConfig
from numpyvit.models.families import build_model
from numpyvit.models.mae_variants import MAE_VARIANTS
from numpyvit.models.swin_variants import SWIN_VARIANTS
from numpyvit.nn import init

# Ti and S: Touvron et al. 2021 (DeiT), table 1. B, L and H: Dosovitskiy et al. 2021, table 1.
# M: Touvron et al. 2022 (DeiT III), table 2. So400m: Alabdulmohsin et al. 2023. g and G: Zhai et
# al. 2022, table 2; DINOv2's giant has a width of its own: Oquab et al. 2024, the table
# of architectures.
SIZES: dict[str, ViTConfig] = {
    "tiny": ViTConfig(embed_dim=192, num_heads=3),
    "small": ViTConfig(embed_dim=384, num_heads=6),
    "medium": ViTConfig(embed_dim=512, num_heads=8),
    "base": ViTConfig(),
    "large": ViTConfig(embed_dim=1024, depth=24, num_heads=16),
    "huge": ViTConfig(embed_dim=1280, depth=32, num_heads=16),
    "so400m": ViTConfig(embed_dim=1152, depth=27, num_heads=16, mlp_ratio=4304 / 1152),
    "giant": ViTConfig(embed_dim=1408, depth=40, num_heads=16, mlp_ratio=6144 / 1408),
    "gigantic": ViTConfig(embed_dim=1664, depth=48, num_heads=16, mlp_ratio=8192 / 1664),
}

DISTILLED: dict[str, Any] = {"distillation_token": True, "distillation_head": True}
# DeiT III: LayerScale, and positions for patches alone.
DEIT3: dict[str, Any] = {"layer_scale": 1e-6, "positions": "patches"}
# DINOv2: features without a head. With registers (Darcet et al. 2024), positions as in DeiT III.
DINOV2: dict[str, Any] = {"layer_scale": 1e-5, "num_classes": 0, "image_size": 518}
REGISTERS: dict[str, Any] = {"num_registers": 4, "positions": "patches"}
DINOV2_GIANT: dict[str, Any] = {
    "embed_dim": 1536,
    "num_heads": 24,
    "mlp_ratio": 4096 / 1536,
    "mlp": "swiglu",
}
# SigLIP (Zhai et al. 2023): the image tower, pooled by attention.
SIGLIP: dict[str, Any] = {"class_token": False, "pooling": "map", "num_classes": 0}
# CLIP's image tower with a classifier (Radford et al. 2021).
CLIP: dict[str, Any] = {"pre_norm": True, "patch_bias": False, "norm_eps": 1e-5}


def _sized(size: str, patch_size: int, image_size: int = 224, **options: Any) -> ViTConfig:
    options = {"patch_size": patch_size, "image_size": image_size, **options}
    return SIZES[size].replace(**options)


def _small_data(width: int, depth: int) -> ViTConfig:
    """Heads of 16, an MLP of twice the width, and no bias of queries, keys and values."""
    return ViTConfig(
        image_size=32,
        patch_size=4,
        num_classes=10,
        embed_dim=width,
        depth=depth,
        num_heads=width // 16,
        mlp_ratio=2,
        qkv_bias=False,
        norm_eps=1e-5,
    )


# It ends without a norm: 119,098 parameters.
_CIFAR = ViTConfig(
    image_size=32,
    patch_size=4,
    num_classes=10,
    embed_dim=48,
    depth=4,
    num_heads=4,
    activation="gelu_tanh",
    final_norm=False,
    dropout=0.1,
    attention_dropout=0.1,
)

# The names are timm's, but for the models for CIFAR's images.
VARIANTS: dict[str, Any] = {
    "vit_cifar_patch4_32": _CIFAR,
    "deit_cifar_distilled_patch4_32": _CIFAR.replace(**DISTILLED),
    # Width and depth by name. 192 x 9: Lee et al. 2021 (Vision Transformer for Small-Size
    # Datasets), and code: over 90% without pre-training. 96 x 6 lies half-way.
    "vit_cifar_w96_d6_patch4_32": _small_data(96, 6),
    "vit_cifar_w192_d9_patch4_32": _small_data(192, 9),
    "vit_tiny_patch16_224": _sized("tiny", 16),
    "vit_tiny_patch16_384": _sized("tiny", 16, 384),
    "vit_small_patch32_224": _sized("small", 32),
    "vit_small_patch16_224": _sized("small", 16),
    "vit_small_patch16_384": _sized("small", 16, 384),
    "vit_base_patch32_224": _sized("base", 32),
    "vit_base_patch32_384": _sized("base", 32, 384),
    "vit_base_patch16_224": _sized("base", 16),
    "vit_base_patch16_384": _sized("base", 16, 384),
    "vit_base_patch8_224": _sized("base", 8),
    "vit_large_patch32_224": _sized("large", 32),
    "vit_large_patch32_384": _sized("large", 32, 384),
    "vit_large_patch16_224": _sized("large", 16),
    "vit_large_patch16_384": _sized("large", 16, 384),
    "vit_huge_patch14_224": _sized("huge", 14),
    "vit_giant_patch14_224": _sized("giant", 14),
    "vit_gigantic_patch14_224": _sized("gigantic", 14),
    "deit_tiny_distilled_patch16_224": _sized("tiny", 16, **DISTILLED),
    "deit_small_distilled_patch16_224": _sized("small", 16, **DISTILLED),
    "deit_base_distilled_patch16_224": _sized("base", 16, **DISTILLED),
    "deit_base_distilled_patch16_384": _sized("base", 16, 384, **DISTILLED),
    "deit3_small_patch16_224": _sized("small", 16, **DEIT3),
    "deit3_medium_patch16_224": _sized("medium", 16, **DEIT3),
    "deit3_base_patch16_224": _sized("base", 16, **DEIT3),
    "deit3_large_patch16_224": _sized("large", 16, **DEIT3),
    "deit3_huge_patch14_224": _sized("huge", 14, **DEIT3),
    "vit_small_patch14_dinov2": _sized("small", 14, **DINOV2),
    "vit_base_patch14_dinov2": _sized("base", 14, **DINOV2),
    "vit_large_patch14_dinov2": _sized("large", 14, **DINOV2),
    "vit_giant_patch14_dinov2": _sized("giant", 14, **DINOV2, **DINOV2_GIANT),
    "vit_small_patch14_reg4_dinov2": _sized("small", 14, **DINOV2, **REGISTERS),
    "vit_base_patch14_reg4_dinov2": _sized("base", 14, **DINOV2, **REGISTERS),
    "vit_large_patch14_reg4_dinov2": _sized("large", 14, **DINOV2, **REGISTERS),
    "vit_giant_patch14_reg4_dinov2": _sized("giant", 14, **DINOV2, **REGISTERS, **DINOV2_GIANT),
    "vit_base_patch16_siglip_224": _sized("base", 16, **SIGLIP),
    "vit_base_patch16_siglip_384": _sized("base", 16, 384, **SIGLIP),
    "vit_large_patch16_siglip_256": _sized("large", 16, 256, **SIGLIP),
    "vit_so400m_patch14_siglip_224": _sized("so400m", 14, **SIGLIP),
    "vit_base_patch16_clip_224": _sized("base", 16, **CLIP),
    "vit_base_patch16_clip_quickgelu_224": _sized("base", 16, **CLIP, activation="quick_gelu"),
    "vit_large_patch14_clip_224": _sized("large", 14, **CLIP),
    **SWIN_VARIANTS,
    **MAE_VARIANTS,
}


# What training alone does: a model's answers do not depend on it.
RATES = ("dropout", "attention_dropout", "drop_path")


def list_models(pattern: str = "*") -> list[str]:
    """The names that `create_model` knows, those that match `pattern` ("vit_tiny*")."""
    return [name for name in VARIANTS if fnmatch.fnmatch(name, pattern)]


def model_config(name: str, **overrides: Any) -> Any:
    """The configuration of a named model, with some of its fields replaced.

    Raises ValueError, with the nearest name, for a name or a field that does not exist.
    """
    if name not in VARIANTS:
        near = nearest(name, VARIANTS, 3)
        raise ValueError(
            f"[create_model] unknown model {name!r}; {near}`numpyvit models` lists all"
        )
    return VARIANTS[name].replace(**overrides)


def create_model(name: str, *, pretrained: bool = False, seed: int = 0, **overrides: Any) -> Any:
    """Build a named model, with starting weights drawn from `seed`.

    `overrides` replace fields of its configuration: `create_model("vit_tiny_patch16_224",
    num_classes=10)`. With `pretrained=True` the weights that come with the package are loaded
    (`vit_cifar_patch4_32` only, trained on CIFAR-10); ValueError where there are none, and for
    overrides that would make them those of another function.
    """
    config = model_config(name, **overrides)
    if pretrained:
        weights = packaged_archive(name)
        kept = config.replace(**{rate: getattr(VARIANTS[name], rate) for rate in RATES})
        if kept != VARIANTS[name]:
            raise ValueError(
                f"[create_model] expected no more than {', '.join(RATES)} with pretrained=True, as "
                f"the weights are of {name} as it is, got {', '.join(overrides)}; "
                "load_pretrained(path, image_size=...) resizes, train --weights tunes"
            )
    with init.undrawn() if pretrained else contextlib.nullcontext():
        model = build_model(config, rng=default_rng(seed))
    if pretrained:
        model.load_state_dict(read_archive(weights).weights(), assign=True)
    return model
