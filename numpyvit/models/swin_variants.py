"""The named Swin Transformers, and what one costs."""

from __future__ import annotations

from typing import Any

from numpyvit.models.swin import SwinConfig

# Liu et al. 2021, section 3.3; with windows of 12 x 12 tokens the images have 384 pixels a side.
SIZES: dict[str, SwinConfig] = {
    "tiny": SwinConfig(),
    "small": SwinConfig(depths=(2, 2, 18, 2)),
    "base": SwinConfig(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
    "large": SwinConfig(embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48)),
}
AT_384: dict[str, Any] = {"image_size": 384, "window_size": 12}

# The names are timm's, except of the tiny one for CIFAR's images, which is numpyvit's own: about
# the size and the work of vit_cifar_patch4_32.
SWIN_VARIANTS: dict[str, SwinConfig] = {
    "swin_cifar_patch2_32": SwinConfig(
        image_size=32,
        patch_size=2,
        num_classes=10,
        embed_dim=24,
        depths=(2, 4),
        num_heads=(2, 4),
        window_size=4,
        activation="gelu_tanh",
    ),
    "swin_tiny_patch4_window7_224": SIZES["tiny"],
    "swin_small_patch4_window7_224": SIZES["small"],
    "swin_base_patch4_window7_224": SIZES["base"],
    "swin_base_patch4_window12_384": SIZES["base"].replace(**AT_384),
    "swin_large_patch4_window7_224": SIZES["large"],
    "swin_large_patch4_window12_384": SIZES["large"].replace(**AT_384),
}


def count_swin_multiply_adds(config: SwinConfig) -> int:
    """Multiply-adds of the matrix products in one image's forward pass, as for a ViT.

    4.49 billion for Swin-T; where windows are padded, the padding is worked on as well.
    """
    width = config.embed_dim
    total = config.num_patches * config.in_channels * config.patch_size**2 * width
    for stage, depth in enumerate(config.depths):
        windows, d = config.windows(stage), config.width(stage)
        tokens, places = windows.grid**2, windows.count * windows.size**2
        if stage:
            total += tokens * 2 * d * d  # 4 * d/2 values into d
        projections = 3 * places * d * d + tokens * d * d
        attention = 2 * places * windows.size**2 * d
        total += depth * (projections + attention + 2 * tokens * d * config.hidden_width(stage))
    return total + config.num_features * config.num_classes
