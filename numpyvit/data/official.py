"""The evaluations of the field's makers, by name."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Any

from numpyvit.data.preprocessing import CLIP_MEAN, CLIP_STD, HALF, Preprocessing

_HALF: dict[str, Any] = {"mean": HALF, "std": HALF}
_CLIP: dict[str, Any] = {"mean": CLIP_MEAN, "std": CLIP_STD}


def _torchvision(size: int, resize: int, name: str, filter_name: str = "bicubic") -> Preprocessing:
    """torchvision.models.*_Weights.transforms(), version 0.28."""
    return Preprocessing(
        size=size,
        resize=resize,
        filter=filter_name,
        source=f"torchvision's evaluation of {name}",
    )


def _timm(size: int, fraction: float, name: str, **fields: Any) -> Preprocessing:
    """timm.data.create_transform of the model's pretrained_cfg, version 1.0."""
    return Preprocessing(
        size=size,
        resize=math.floor(size / fraction),
        crop_fraction=fraction,
        source=f"timm's evaluation of {name}",
        **fields,
    )


def _hugging_face(name: str, **fields: Any) -> Preprocessing:
    """The processor's settings as the hub's files have them; transformers with Pillow."""
    return Preprocessing(crop="floor", source=f"Hugging Face's processor of {name}", **fields)


PREPROCESSINGS: MappingProxyType[str, Preprocessing] = MappingProxyType(
    {
        "torchvision": _torchvision(224, 256, "ViT-B/16, B/32 and L/32 (V1)", "bilinear"),
        "torchvision_l16": _torchvision(224, 242, "ViT-L/16 (V1)", "bilinear"),
        "torchvision_swag_384": _torchvision(384, 384, "ViT-B/16 (SWAG, end to end)"),
        "torchvision_swag_512": _torchvision(512, 512, "ViT-L/16 (SWAG, end to end)"),
        "torchvision_swag_518": _torchvision(518, 518, "ViT-H/14 (SWAG, end to end)"),
        "torchvision_swag_linear": _torchvision(224, 224, "ViT (SWAG, linear)"),
        "torchvision_swin_t": _torchvision(224, 232, "Swin-T"),
        "torchvision_swin_s": _torchvision(224, 246, "Swin-S"),
        "torchvision_swin_b": _torchvision(224, 238, "Swin-B"),
        "timm_vit": _timm(224, 0.9, "ViT (augreg, orig, sam)", **_HALF),
        "timm_vit_384": _timm(384, 1.0, "ViT at 384 pixels", **_HALF),
        "timm_deit": _timm(224, 0.9, "DeiT, DeiT-III, MAE and DINO"),
        "timm_deit_384": _timm(384, 1.0, "DeiT and DeiT-III at 384 pixels"),
        "timm_deit3_in22k": _timm(224, 1.0, "DeiT-III (from ImageNet-22k)"),
        "timm_dinov2": _timm(518, 1.0, "DINOv2"),
        "timm_clip": _timm(224, 0.9, "CLIP", **_CLIP),
        "timm_siglip": _timm(224, 0.9, "SigLIP", **_HALF),
        "swin": Preprocessing(size=224, resize=256, source="Swin's own evaluation"),
        "swin_384": Preprocessing(
            size=384, resize=384, mode="squash", source="Swin's own evaluation at 384 pixels"
        ),
        "deit": Preprocessing(size=224, resize=256, source="DeiT's own evaluation"),
        "mae": Preprocessing(size=224, resize=256, source="MAE's own evaluation"),
        "dino": Preprocessing(size=224, resize=256, source="DINO's own linear evaluation"),
        "dino_attention": Preprocessing(
            size=480,
            resize=480,
            mode="squash",
            filter="bilinear",
            source="DINO's own pictures of attention",
        ),
        "dinov2": Preprocessing(size=224, resize=256, source="DINOv2's own linear evaluation"),
        "hugging_face_vit": _hugging_face(
            "google/vit", size=224, resize=224, mode="squash", filter="bilinear", **_HALF
        ),
        "hugging_face_deit": _hugging_face("facebook/deit", size=224, resize=256, mode="squash"),
        "hugging_face_vit_mae": _hugging_face(
            "facebook/vit-mae", size=224, resize=224, mode="squash"
        ),
        "hugging_face_swin": _hugging_face("microsoft/swin", size=224, resize=224, mode="squash"),
        "hugging_face_dinov2": _hugging_face("facebook/dinov2", size=224, resize=256),
        "vit_jax": Preprocessing(
            size=224,
            resize=224,
            mode="squash",
            filter="tf_bilinear",
            crop="floor",
            values="bytes",
            source="vision_transformer's own evaluation (JAX)",
            **_HALF,
        ),
        "big_vision": Preprocessing(
            size=224,
            resize=256,
            filter="tf_area",
            long_side="round",
            crop="floor",
            source="big_vision's own evaluation",
            **_HALF,
        ),
        "numpyvit": Preprocessing(
            size=32,
            resize=32,
            mode="square",
            values="folded",
            upright=True,
            source="as numpyvit trains",
            **_HALF,
        ),
    }
)
