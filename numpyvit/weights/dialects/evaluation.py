"""How pictures are prepared for weights, and what their classes are called."""

from __future__ import annotations

import re
from typing import Any

from numpyvit.data import PREPROCESSINGS, Preprocessing
from numpyvit.data.imagenet import default_class_names, imagenet_classes
from numpyvit.weights.container import WeightFile
from numpyvit.weights.dialects.families import Family
from numpyvit.weights.dialects.naming import names_of

_SWAG = {384: "torchvision_swag_384", 512: "torchvision_swag_512", 518: "torchvision_swag_518"}
_AT_384 = {"timm_vit": "timm_vit_384", "timm_deit": "timm_deit_384", "swin": "swin_384"}


def find_preprocessing(file: WeightFile, family: Family, config: Any) -> tuple[Preprocessing, str]:
    """The official evaluation of a model of `config`, and why it is that; of any size."""
    failure = ""
    try:
        if "pretrained_cfg" in (file.config or {}):
            return Preprocessing.from_timm(file.config or {}), "config.json"
        if file.preprocessor is not None:
            kind = str((file.config or {}).get("model_type", ""))
            found = Preprocessing.from_hugging_face(file.preprocessor, kind)
            return found, "preprocessor_config.json"
    except ValueError as error:
        failure = f"; the file's own could not be used ({error})"
    key, reason = family.preprocessing, family.title
    if key == "torchvision":
        key = _torchvision(config)
    elif key == "torchvision_swin":
        size = "b" if config.embed_dim > 96 else "s" if config.depth > 12 else "t"
        key = f"{key}_{size}"
    elif config.image_size == 384:
        key = _AT_384.get(key, key)
    if key == "timm_vit" and not any("augreg" in name for name, _ in names_of(file)):
        reason = "a guess, as the file does not say: timm's usual one"
    return PREPROCESSINGS[key], reason + failure


def _torchvision(config: Any) -> str:
    """Its models differ by size: only the large one has a rule of its own at 224 pixels."""
    if config.image_size in _SWAG:
        return _SWAG[config.image_size]
    if config.patch_size == 14:
        return "torchvision_swag_linear"
    large = (config.embed_dim, config.patch_size) == (1024, 16)
    return "torchvision_l16" if large else "torchvision"


def find_class_names(file: WeightFile, count: int) -> tuple[tuple[str, ...], str]:
    """Names for `count` classes, and where they are from."""
    config = file.config or {}
    for names, source in (
        (_by_number(config.get("id2label"), count), "id2label"),
        (_described(config, count), "label_names"),
    ):
        if names is not None:
            return names, source
    names = default_class_names(count)
    if count and names == imagenet_classes():
        return names, "ImageNet-1k, by their number"
    return names, "numbered, as the file has no names"


def _by_number(labels: Any, count: int) -> tuple[str, ...] | None:
    """Hugging Face's `id2label`; its own placeholders, LABEL_0 and so on, are no names."""
    if not isinstance(labels, dict) or len(labels) != count:
        return None
    names = [labels.get(str(number)) for number in range(count)]
    if not all(isinstance(name, str) for name in names):
        return None
    if all(re.fullmatch(r"LABEL_\d+", str(name)) for name in names):
        return None
    return tuple(map(str, names))


def _described(config: dict[str, Any], count: int) -> tuple[str, ...] | None:
    """Timm's `label_names`, with the descriptions of those that have one."""
    names = config.get("label_names")
    if not isinstance(names, list) or len(names) != count or not count:
        return None
    if not all(isinstance(name, str) for name in names):
        return None
    descriptions = config.get("label_descriptions")
    descriptions = descriptions if isinstance(descriptions, dict) else {}
    return tuple(str(descriptions.get(name, name)) for name in names)
