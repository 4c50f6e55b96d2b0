"""Who trained a file's model, and what that says about it which its arrays do not."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

from numpyvit.weights.container import WeightFile
from numpyvit.weights.dialects.choosing import Chosen
from numpyvit.weights.dialects.google import GOOGLE
from numpyvit.weights.dialects.hugging_face import HUGGING_FACE
from numpyvit.weights.dialects.naming import names_of
from numpyvit.weights.dialects.rules import Entry, Translation
from numpyvit.weights.dialects.swin import (
    SWIN_DIALECTS,
    SWIN_HUGGING_FACE,
    SWIN_MICROSOFT,
    SWIN_TIMM,
    SWIN_TORCHVISION,
)
from numpyvit.weights.dialects.torchvision import TORCHVISION
from numpyvit.weights.dialects.tutorial import TUTORIAL


@dataclasses.dataclass(frozen=True)
class Family:
    """What the members of a family share.

    `resizing` names the rule for positions at another size (weights/resizing.py), `preprocessing`
    the evaluation (data.PREPROCESSINGS). With `any_size` its own code resizes positions to
    whatever size the evaluation has. `but` warns of members whose activation is another one.
    With `final_norm` all members end in a norm, of all tokens or of what is pooled; timm's
    InternViT has none.
    """

    title: str
    resizing: str
    preprocessing: str
    norm_eps: float = 1e-6
    activation: str = "gelu"
    any_size: bool = False
    but: str = ""
    final_norm: bool = True


_CLIP = ", if it is not OpenAI's, which has quick_gelu"
_SIGLIP = ", if it is not SigLIP 2, which has gelu_tanh"

FAMILIES: dict[str, Family] = {
    "timm": Family("timm", "timm", "timm_vit", final_norm=False),
    "timm_deit": Family("timm (DeiT)", "timm", "timm_deit", final_norm=False),
    "timm_mae": Family("timm (MAE)", "timm", "timm_deit", final_norm=False),
    "timm_dino": Family("timm (DINO)", "timm", "timm_deit", final_norm=False),
    "timm_dinov2": Family("timm (DINOv2)", "timm", "timm_dinov2", final_norm=False),
    "timm_clip": Family(
        "timm (CLIP)", "timm", "timm_clip", norm_eps=1e-5, but=_CLIP, final_norm=False
    ),
    "timm_siglip": Family("timm (SigLIP)", "timm", "timm_siglip", but=_SIGLIP, final_norm=False),
    "deit": Family("DeiT", "deit", "deit"),
    "mae": Family("MAE", "mae", "mae"),
    "dino": Family("DINO", "dino", "dino"),
    "dinov2": Family("DINOv2", "dinov2", "dinov2", any_size=True),
    "dinov2_registers": Family(
        "DINOv2 with registers", "dinov2_registers", "dinov2", any_size=True
    ),
    "torchvision": Family("torchvision", "torchvision", "torchvision"),
    "vit": Family("Hugging Face (ViT)", "hf", "hugging_face_vit", norm_eps=1e-12),
    "hf_deit": Family("Hugging Face (DeiT)", "hf", "hugging_face_deit", norm_eps=1e-12),
    "vit_mae": Family("Hugging Face (ViTMAE)", "hf", "hugging_face_vit_mae", norm_eps=1e-12),
    "hf_dinov2": Family("Hugging Face (Dinov2)", "hf", "hugging_face_dinov2", any_size=True),
    "hf_dinov2_registers": Family(
        "Hugging Face (Dinov2WithRegisters)",
        "dinov2_registers",
        "hugging_face_dinov2",
        any_size=True,
    ),
    "google": Family("Google (vision_transformer)", "google", "vit_jax", activation="gelu_tanh"),
    "big_vision": Family("Google (big_vision)", "google", "big_vision", activation="gelu_tanh"),
    "tutorial": Family("the tutorial", "timm", "numpyvit", 1e-5, "gelu_tanh", final_norm=False),
    **{
        dialect.title: Family(dialect.title, "timm", preprocessing, norm_eps=1e-5)
        for dialect, preprocessing in (
            (SWIN_TIMM, "timm_deit"),
            (SWIN_MICROSOFT, "swin"),
            (SWIN_TORCHVISION, "torchvision_swin"),
            (SWIN_HUGGING_FACE, "hugging_face_swin"),
        )
    },
}

_HUGGING_FACE_TYPES = {
    "vit_mae": "vit_mae",
    "deit": "hf_deit",
    "dinov2": "hf_dinov2",
    "dinov2_with_registers": "hf_dinov2_registers",
}
# Words in a model's name, and the family: the first that occurs.
_WORDS = (
    ("dinov2", "dinov2"),
    ("dino", "dino"),
    ("deit", "deit"),
    ("mae", "mae"),
    ("siglip", "siglip"),
    ("clip", "clip"),
)


def find_family(file: WeightFile, chosen: Chosen, translation: Translation) -> tuple[Family, str]:
    """The family that a model is of, and why."""
    if chosen.dialect in SWIN_DIALECTS:
        return FAMILIES[chosen.dialect.title], "its names"
    if chosen.dialect is TORCHVISION:
        return FAMILIES["torchvision"], "its names"
    if chosen.dialect is TUTORIAL:
        return FAMILIES["tutorial"], "its names"
    if chosen.dialect is GOOGLE:
        new = re.search(r"\b(img|params)/", chosen.where) or "pos_embedding" in chosen.arrays
        return FAMILIES["big_vision" if new else "google"], "its names"
    if chosen.dialect is HUGGING_FACE:
        return _hugging_face(file, chosen)
    return _timm(file, chosen, translation)


def _hugging_face(file: WeightFile, chosen: Chosen) -> tuple[Family, str]:
    stated = (file.config or {}).get("model_type")
    if isinstance(stated, str):
        return FAMILIES[_HUGGING_FACE_TYPES.get(stated, "vit")], f"model_type {stated}"
    names = " ".join(chosen.arrays)
    for word, key in (
        ("register_tokens", "hf_dinov2_registers"),
        ("layer_scale1", "hf_dinov2"),
        ("distillation_token", "hf_deit"),
        ("decoder.decoder_", "vit_mae"),
    ):
        if word in names:
            return FAMILIES[key], "its names"
    return FAMILIES["vit"], "its names"


def _timm(file: WeightFile, chosen: Chosen, translation: Translation) -> tuple[Family, str]:
    """DeiT, MAE, DINO and DINOv2 have their own files, and timm has files of all of them."""
    if "pretrained_cfg" in (file.config or {}):
        return _by_words(names_of(file)[:1], "timm_") or (FAMILIES["timm"], "config.json")
    if own := _own_files(file, chosen, translation):
        return own
    if by_name := _by_words(names_of(file), "timm_"):
        return by_name
    return _by_structure(translation.entries) or (FAMILIES["timm"], "its names")


def _own_files(
    file: WeightFile, chosen: Chosen, translation: Translation
) -> tuple[Family, str] | None:
    """The family of a file that is not timm's, by what only its makers' files have."""
    entries, names = translation.entries, set(chosen.arrays)
    if "register_tokens" in names:
        return FAMILIES["dinov2_registers"], "register_tokens"
    if "blocks.0.ls1.gamma" in entries and "mask_token" in names:
        return FAMILIES["dinov2"], "mask_token and layer scale"
    if re.search(r"\b(teacher|student)\.", chosen.where):
        return FAMILIES["dino"], "teacher and student"
    if "MAE's decoder" in translation.dropped.values():
        return FAMILIES["mae"], "the decoder"
    if "blocks.0.gamma_1" in names:
        return FAMILIES["deit"], "gamma_1"
    if chosen.where in ("model.", "model_ema.") and file.kind.startswith("torch"):
        if by_name := _by_words(names_of(file), ""):
            return by_name
        pooled = "fc_norm.weight" in entries or "head.weight" not in entries
        return FAMILIES["mae" if pooled else "deit"], "a dict with 'model'"
    return None


def _by_words(names: Iterable[tuple[str, str]], prefix: str) -> tuple[Family, str] | None:
    for name, where in names:
        for word, family in _WORDS:
            if word in name.lower():
                key = prefix + family
                return FAMILIES[key if key in FAMILIES else f"timm_{family}"], f"{where} ({name})"
    return None


def _by_structure(entries: Mapping[str, Entry]) -> tuple[Family, str] | None:
    for name, key in (
        ("dist_token", "timm_deit"),
        ("norm_pre.weight", "timm_clip"),
        ("attn_pool.latent", "timm_siglip"),
    ):
        if name in entries:
            return FAMILIES[key], name
    if "blocks.0.ls1.gamma" in entries:
        kernel = entries.get("patch_embed.proj.weight")
        is_dinov2 = kernel is not None and kernel.shape[-1:] == (14,)
        return FAMILIES["timm_dinov2" if is_dinov2 else "timm_deit"], "layer scale"
    return None
