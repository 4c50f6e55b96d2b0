"""What a caller may ask of a model that is in a file already, and what its arrays have decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Fields that arrays alone decide: with another value, some have no place or are missing.
_DECIDED = (
    "in_channels",
    "stem",
    "embed_dim",
    "depth",
    "depths",
    "qkv_bias",
    "qk_norm",
    "mlp",
    "class_token",
    "distillation_token",
    "num_registers",
    "positions",
    "patch_bias",
    "pre_norm",
    "final_norm",
    "head_norm",
    "pre_logits",
)


def check_options(where: str, config: Any, options: Mapping[str, Any], *, new_head: bool) -> None:
    """ValueError that names the file and the option, for one that its arrays cannot be.

    `config` is what the file has; with `new_head` the shape of its head decides nothing.
    """
    for name in _contradicting(config, options, new_head):
        raise ValueError(
            f"[load_pretrained] expected {name}={getattr(config, name)!r}, as the arrays in "
            f"{where} are, got {name}={options[name]!r}; leave out {name}"
        )


def _contradicting(config: Any, options: Mapping[str, Any], new_head: bool) -> Iterator[str]:
    for name in _DECIDED:
        if name in options and options[name] != getattr(config, name, options[name]):
            yield name
    # Another patch_size goes with another image_size, which is none of the options.
    asked = config.replace(**{name: options[name] for name in options if name != "patch_size"})
    patch = options.get("patch_size", config.patch_size)
    if config.stem != "patches" and patch != config.patch_size:
        yield "patch_size"
    if asked.distillation_head != config.distillation_head and not new_head:
        yield "distillation_head"
    if asked.mlp_dim != config.mlp_dim:
        yield "mlp_ratio"
    if isinstance(config.num_heads, tuple) and asked.num_heads != config.num_heads:
        yield "num_heads"  # of which the bias tables have as many columns
    if "layer_scale" in options and (asked.layer_scale > 0) != (config.layer_scale > 0):
        yield "layer_scale"
    if "pooling" not in options:
        return
    is_read = config.head_norm or config.pre_logits or (config.num_classes and not new_head)
    if (asked.pooling == "map") != (config.pooling == "map") or (
        is_read and asked.pooled_dim != config.pooled_dim
    ):
        yield "pooling"
