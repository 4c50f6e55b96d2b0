"""A small model with random weights, and its weights as PyTorch leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
from core.torch_vit import leaves

from numpyvit.models import VisionTransformer, ViTConfig

CONFIG = ViTConfig(
    image_size=12, patch_size=3, embed_dim=12, depth=3, num_heads=3, mlp_ratio=2, num_classes=5
)


def model_of(dtype: Any = "float64", **changes: Any) -> VisionTransformer:
    """Far enough from its starting values that every weight has a say."""
    rng = np.random.default_rng(0)
    model = VisionTransformer(CONFIG.replace(**changes), rng=rng).to(dtype).eval()
    for parameter in model.parameters():
        noise = rng.standard_normal(parameter.shape)
        parameter.data = parameter.data + (0.3 * noise).astype(parameter.dtype)
    return model


def images_of(count: int, dtype: Any = "float64", size: int = CONFIG.image_size) -> np.ndarray:
    images = np.random.default_rng(1).standard_normal((count, 3, size, size)).astype(dtype)
    images.setflags(write=False)
    return images


def torchs_weights(model: VisionTransformer) -> dict[str, Any]:
    return leaves(model.state_dict())
