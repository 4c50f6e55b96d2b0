"""The named models: a table that cites its sources, and the one way to build from it."""

from __future__ import annotations

import contextlib
import fnmatch
from typing import Any

from numpy.random import default_rng

from numpyvit.backend import suggest
from numpyvit.models.archive import packaged_archive, read_archive
from numpyvit.models.config import ViTConfig
from numpyvit.models.vit import VisionTransformer
from numpyvit.nn import init

# Ti and S: Touvron et al. 2021 (DeiT), table 1. B, L and H: Dosovitskiy et al. 2021, table 1.
# The names are timm's. The CIFAR model ends without a norm: 119,098 parameters.
VARIANTS: dict[str, ViTConfig] = {
    "vit_cifar_patch4_32": ViTConfig(
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
    ),
    "vit_tiny_patch16_224": ViTConfig(embed_dim=192, num_heads=3),
    "vit_small_patch16_224": ViTConfig(embed_dim=384, num_heads=6),
    "vit_base_patch16_224": ViTConfig(),
    "vit_base_patch32_224": ViTConfig(patch_size=32),
    "vit_large_patch16_224": ViTConfig(embed_dim=1024, depth=24, num_heads=16),
    "vit_large_patch32_224": ViTConfig(patch_size=32, embed_dim=1024, depth=24, num_heads=16),
    "vit_huge_patch14_224": ViTConfig(patch_size=14, embed_dim=1280, depth=32, num_heads=16),
}


def list_models(pattern: str = "*") -> list[str]:
    """The names that `create_model` knows, those that match `pattern` ("vit_tiny*")."""
    return [name for name in VARIANTS if fnmatch.fnmatch(name, pattern)]


def model_config(name: str, **overrides: Any) -> ViTConfig:
    """The configuration of a named model, with some of its fields replaced.

    Raises ValueError, with the nearest name, for a name or a field that does not exist.
    """
    if name not in VARIANTS:
        raise ValueError(f"[create_model] unknown model {name!r}; {suggest(name, VARIANTS)}")
    return VARIANTS[name].replace(**overrides)


def create_model(
    name: str, *, pretrained: bool = False, seed: int = 0, **overrides: Any
) -> VisionTransformer:
    """Build a named model, with starting weights drawn from `seed`.

    `overrides` replace fields of its ViTConfig: `create_model("vit_tiny_patch16_224",
    num_classes=10)`. With `pretrained=True` the weights that come with the package are loaded
    (`vit_cifar_patch4_32` only, trained on CIFAR-10); ValueError where there are none or they do
    not fit the overrides.
    """
    with init.undrawn() if pretrained else contextlib.nullcontext():
        model = VisionTransformer(model_config(name, **overrides), rng=default_rng(seed))
    if pretrained:
        model.load_state_dict(read_archive(packaged_archive(name)).weights())
    return model
