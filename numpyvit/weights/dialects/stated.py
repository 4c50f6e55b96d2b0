"""What a config says about its model, held against what the arrays are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpyvit.weights.container import WeightFile
from numpyvit.weights.stored import WeightFileError
from numpyvit.weights.text import printable, shown

INPUT_SIZE = "input_size"  # of timm's pretrained_cfg
# timm's options that arrays show, or that are followed where the config is read.
_FOLLOWED = (
    *("img_size", "patch_size", "in_chans", "num_classes", "global_pool", "act_layer"),
    *("embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias", "qk_norm", "init_values"),
    *("class_token", "no_embed_class", "reg_tokens", "pre_norm", "final_norm", "fc_norm"),
    *("depths", "window_size"),  # Swin's
)
# timm's options that change nothing in evaluation.
_HARMLESS = (
    *("drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate"),
    *("drop_path_rate", "weight_init", "fix_init", "dynamic_img_size", "dynamic_img_pad"),
    *("strict_img_size", "device", "dtype", "pretrained", "pretrained_cfg", "cache_dir"),
    *("pretrained_cfg_overlay", "pretrained_strict", "checkpoint_path", "scriptable"),
    *("exportable", "no_jit"),
)
# timm's options that change what is computed: the values that are those of a plain ViT.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "norm_layer": ("layernorm",),
    "attn_layer": ("attn",),
    "pos_embed": ("learn",),
    "proj_bias": (True,),
    "scale_attn_norm": (False,),
    "scale_mlp_norm": (False,),
    "pool_include_prefix": (False,),
    "features_only": (False,),
    "always_partition": (False,),
}
_OF_HEADS = ("num_classes", "num_labels", "id2label", "architectures")


def mapping(value: Any) -> dict[str, Any]:
    """A part of a config that has to be a dict; an empty one where it is none."""
    return value if isinstance(value, dict) else {}


def is_number(value: Any) -> bool:
    """Whether a value of a config is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def refuse_unknown_options(file: WeightFile) -> None:
    """WeightFileError for an option of timm's that changes the model and is not known here."""
    for key, value in mapping((file.config or {}).get("model_args")).items():
        if key in _FOLLOWED or key in _HARMLESS or value is None:
            continue
        if not any(value is plain or value == plain for plain in _PLAIN.get(key, ())):
            raise WeightFileError(
                f"[load_pretrained] expected options of a plain ViT in the model_args of "
                f"{file.path}, got {printable(str(key), 60)}={shown(value)}; it is not supported"
            )


def stated_image_size(file: WeightFile) -> tuple[int | None, str]:
    """The size of pictures that a config gives, and its key there; WeightFileError if no square."""
    config = file.config or {}
    stated = {
        "image_size": config.get("image_size"),
        "img_size": mapping(config.get("model_args")).get("img_size"),
        INPUT_SIZE: mapping(config.get("pretrained_cfg")).get("input_size"),
    }
    for key, size in stated.items():
        if isinstance(size, list | tuple) and len(size) > 1:
            if size[-1] != size[-2]:
                raise WeightFileError(
                    f"[load_pretrained] expected square pictures in the config of {file.path}, "
                    f"got {key} {shown(size)}; rectangular pictures are not supported yet"
                )
            size = size[-1]
        if isinstance(size, int) and not isinstance(size, bool) and size > 0:
            return size, key
    return None, ""


def contradictions(
    config: Mapping[str, Any], fields: Mapping[str, Any], new_head: bool = False
) -> list[str]:
    """Where a config says otherwise than the `fields` of a ViTConfig that arrays gave.

    With `new_head` the file's head is of no interest.
    """
    lines = []
    options = mapping(config.get("model_args"))
    for source, expected in ((config, _of_config(config, fields)), (options, _of_timm(fields))):
        for key, actual in expected.items():
            value = _without_sides(source.get(key))
            if new_head and key in _OF_HEADS:
                continue
            if value is not None and not _says(key, value, actual, fields):
                lines.append(f"{key}: {shown(value)} in the config, {actual} in the arrays")
    return lines


def _of_config(config: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json has to say, by its keys: Hugging Face's and timm's outer ones."""
    expected = {
        "num_hidden_layers": fields["depth"],
        "hidden_size": fields["embed_dim"],
        "intermediate_size": _hidden(fields),
        "patch_size": fields["patch_size"],
        "num_channels": fields["in_channels"],
        "qkv_bias": fields["qkv_bias"],
        "num_register_tokens": fields["num_registers"],
        "num_classes": fields["num_classes"],
    }
    if str(config.get("model_type", "")).startswith("dinov2"):
        expected |= {"use_swiglu_ffn": fields["mlp"] == "swiglu", "mlp_ratio": _hidden(fields)}
    kinds = config.get("architectures")
    if fields["num_classes"]:
        expected["num_labels"] = fields["num_classes"]
        labels = config.get("id2label")
        if "num_labels" not in config and isinstance(labels, dict) and labels:
            expected["id2label"] = fields["num_classes"]
    elif isinstance(kinds, list) and any(str(k).endswith("ForImageClassification") for k in kinds):
        expected["architectures"] = "no head"
    return expected


def _of_timm(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What timm's model_args have to say."""
    expected = {
        "embed_dim": fields["embed_dim"],
        "depth": fields["depth"],
        "patch_size": fields["patch_size"],
        "in_chans": fields["in_channels"],
        "num_classes": fields["num_classes"],
        "mlp_ratio": _hidden(fields),
        "qkv_bias": fields["qkv_bias"],
        "qk_norm": fields["qk_norm"],
        "class_token": fields["class_token"],
        "reg_tokens": fields["num_registers"],
        "pre_norm": fields["pre_norm"],
        "init_values": fields["layer_scale"] > 0,
    }
    if fields["class_token"] or fields["num_registers"]:
        expected["no_embed_class"] = fields["positions"] == "patches"
    return expected


def _says(key: str, value: Any, actual: Any, fields: Mapping[str, Any]) -> bool:
    """Whether a config's value is what the arrays have."""
    if key == "id2label":
        return len(value) == actual
    if key == "init_values":  # timm has no layer scale where it is 0
        return bool(value) == actual
    if key != "mlp_ratio":
        return bool(value == actual)
    if not is_number(value) or not 0 < value < 1000:
        return False
    wide = int(fields["embed_dim"] * value)
    if fields["mlp"] != "swiglu":
        return wide == actual
    return actual in (wide // 2, (int(wide * 2 / 3) + 7) // 8 * 8)  # timm's and Dinov2's


def _hidden(fields: Mapping[str, Any]) -> int:
    return round(fields["mlp_ratio"] * fields["embed_dim"])


def _without_sides(value: Any) -> Any:
    """One number for the two of a square."""
    if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
        return value[0]
    return value
