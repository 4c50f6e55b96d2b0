"""A model in the names of others, or the reason why they have none for it."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

import numpy
from numpy.typing import NDArray

from numpyvit.models import ViTConfig
from numpyvit.weights.dialects.google import BIG_VISION_RULES, GOOGLE
from numpyvit.weights.dialects.hugging_face import (
    DINOV2_RULES,
    HUGGING_FACE,
    SWIGLU_RULES,
    TEACHER_RULES,
)
from numpyvit.weights.dialects.rules import Rule, translate_back
from numpyvit.weights.dialects.torchvision import TORCHVISION

State = dict[str, NDArray[Any]]

_PLAIN: dict[str, tuple[Any, ...]] = {
    "stem": ("patches",),
    "pad": (False,),
    "positions": ("all", "patches"),
    "patch_bias": (True,),
    "block": ("pre_norm",),
    "norm": ("layer",),
    "qk_norm": (False,),
    "pre_norm": (False,),
    "final_norm": (True,),
    "head_norm": (False,),
}
_ONLY_CLASS_TOKEN: dict[str, tuple[Any, ...]] = {
    "class_token": (True,),
    "distillation_token": (False,),
    "num_registers": (0,),
    "pooling": ("token",),
}
_ONLY_MLP: dict[str, tuple[Any, ...]] = {"mlp": ("mlp",), "layer_scale": (0,)}
_NEEDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "timm": {
        "stem": ("patches",),
        "positions": ("all", "patches", "none", "sincos", "sincos_mae", "rotary"),
        "block": ("pre_norm", "post_norm", "res_post_norm", "parallel_things"),
        "pooling": ("token", "avg", "token_avg", "max", "map"),
    },
    "torchvision": {**_PLAIN, **_ONLY_CLASS_TOKEN, **_ONLY_MLP, "qkv_bias": (True,)},
    "google": {
        **_PLAIN,
        **_ONLY_MLP,
        "qkv_bias": (True,),
        "distillation_token": (False,),
        "num_registers": (0,),
        "pooling": ("token", "avg", "map"),
    },
    "vit": {**_PLAIN, **_ONLY_CLASS_TOKEN, **_ONLY_MLP, "pre_logits": (0,)},
    "deit": {
        **_PLAIN,
        **_ONLY_MLP,
        "class_token": (True,),
        "distillation_token": (True,),
        "num_registers": (0,),
        "pooling": ("token",),
        "pre_logits": (0,),
    },
    "dinov2": {
        **_PLAIN,
        "class_token": (True,),
        "distillation_token": (False,),
        "num_registers": (0,),
        "pre_logits": (0,),
    },
    "dinov2_with_registers": {
        **_PLAIN,
        "class_token": (True,),
        "distillation_token": (False,),
        "positions": ("patches",),
        "pre_logits": (0,),
    },
}
# What timm's VisionTransformer has to be told where it is built, as its arrays do not show it; None
# for what it cannot be told.
_TOLD_TIMM: dict[str, dict[str, str | None]] = {
    "activation": {
        name: f"act_layer={name!r}" for name in ("gelu_tanh", "quick_gelu", "relu", "silu")
    },
    "norm": {"rms": "norm_layer='rmsnorm'"},
    "block": {
        "res_post_norm": "block_fn=ResPostBlock",
        "parallel_things": "block_fn=ParallelThingsBlock",
        "post_norm": None,
    },
    "positions": {"sincos": None, "sincos_mae": None, "rotary": None},
    "pooling": {
        **{name: f"global_pool={name!r}" for name in ("avg", "max", "map")},
        "token_avg": None,
    },
}
# What the libraries' own models compute with, whatever the file: epsilon and activation.
_COMPUTES = {"torchvision": (1e-6, "gelu"), "google": (1e-6, "gelu_tanh")}


@dataclasses.dataclass(frozen=True)
class Translated:
    """Arrays in a target's names, and what a user has to know about them."""

    arrays: State
    notes: list[str]


def to_timm(config: ViTConfig, state: State) -> Translated:
    """The state dict of timm's VisionTransformer; ValueError where it has none."""
    _check("timm", config)
    if any(map(operator.mod, config.image_shape, config.patch_shape)):
        raise _refusal("timm", ["pad=True"])  # its positions would be of whole patches alone
    return Translated(state, _timm_notes(config))


def to_torchvision(config: ViTConfig, state: State) -> Translated:
    """The state dict of `torchvision.models.VisionTransformer`; ValueError where it has none."""
    _check("torchvision", config)
    if not config.num_classes:
        raise _refusal("torchvision", ["num_classes=0"])
    arrays = _named(TORCHVISION.rules, with_positions_of_all(config, state), config)
    return Translated(arrays, _notes("torchvision", config))


def to_google(config: ViTConfig, state: State) -> Translated:
    """The arrays of vision_transformer's .npz, or of big_vision's where it has no older one.

    Older files have a class token, and positions for it too. Raises ValueError for models that
    neither has.
    """
    _check("google", config)
    old = config.class_token and config.positions == "all" and config.pooling == "token"
    if config.pooling == "avg" and config.class_token:
        raise _refusal("google", ["pooling='avg' beside a class token"])
    if not old and config.pre_logits:
        raise _refusal("google", [f"pre_logits={config.pre_logits} in big_vision's files"])
    rules = GOOGLE.rules if old else (*BIG_VISION_RULES, *GOOGLE.rules)
    arrays = _named(rules, state, config)
    if not old:
        arrays = {f"params/{name}": array for name, array in arrays.items()}
    return Translated(arrays, _notes("google", config))


def hugging_face_kind(config: ViTConfig) -> str:
    """The model_type that Hugging Face has for a model."""
    if config.distillation_token:
        return "deit"
    if config.num_registers:
        return "dinov2_with_registers"
    gated = config.mlp == "swiglu"
    if gated or config.layer_scale or config.pooling == "token_avg":
        return "dinov2"
    return "vit"


def to_hugging_face(config: ViTConfig, state: State) -> Translated:
    """The arrays of transformers' class for the model; ValueError where there is none."""
    kind = hugging_face_kind(config)
    _check(kind, config)
    rules: tuple[Rule, ...] = HUGGING_FACE.rules
    notes: list[str] = []
    if kind in ("vit", "deit"):
        rules = TEACHER_RULES + rules if config.distillation_head else rules
        state = with_positions_of_all(config, state)
    else:
        rules = (SWIGLU_RULES if config.mlp == "swiglu" else DINOV2_RULES) + rules
        state = _as_dinov2(config, state)
    prefix = f"{kind}." if config.num_classes else ""
    arrays = _named(rules, state, config)
    if kind in ("dinov2", "dinov2_with_registers"):
        dtype = state["pos_embed"].dtype
        arrays["embeddings.mask_token"] = numpy.zeros((1, config.embed_dim), dtype)
    backbone = ("embeddings.", "encoder.", "layernorm.")
    arrays = {
        (prefix + name if name.startswith(backbone) else name): array
        for name, array in arrays.items()
    }
    return Translated(arrays, notes)


def with_positions_of_all(config: ViTConfig, state: State) -> State:
    """`state` with positions for all tokens: where only patches had one, the others' are zero."""
    if config.positions == "all":
        return state
    return _with_zero_positions(state, config.num_prefix_tokens)


def _with_zero_positions(state: State, count: int) -> State:
    positions = state["pos_embed"]
    zeros = numpy.zeros((1, count, positions.shape[2]), positions.dtype)
    return {**state, "pos_embed": numpy.concatenate([zeros, positions], axis=1)}


def _as_dinov2(config: ViTConfig, state: State) -> State:
    """`state` with a position for the class token and a layer scale, of 1 if it had none."""
    if config.positions == "patches":
        state = _with_zero_positions(state, 1)
    if not config.layer_scale:
        ones = numpy.ones(config.embed_dim, state["pos_embed"].dtype)
        names = [f"blocks.{i}.ls{k}.gamma" for i in range(config.depth) for k in (1, 2)]
        state = {**state, **dict.fromkeys(names, ones)}
    return state


def _check(target: str, config: ViTConfig) -> None:
    problems = [
        f"{name}={getattr(config, name)!r}"
        for name, known in _NEEDS[target].items()
        if getattr(config, name) not in known
    ]
    if target.startswith("dinov2"):
        if config.num_classes and config.pooling != "token_avg":
            problems.append(f"a head that reads pooling={config.pooling!r}")
        if not config.num_classes and config.pooling not in ("token", "token_avg"):
            problems.append(f"pooling={config.pooling!r}")
        if gated_ratio(config) is None:
            problems.append(f"an MLP of width {config.mlp_dim}")
    if problems:
        raise _refusal(target, problems)


def gated_ratio(config: ViTConfig) -> int | None:
    """The whole mlp_ratio that Dinov2's config needs for this MLP; None where there is none."""
    width = config.embed_dim
    for ratio in range(1, 33):
        hidden = width * ratio
        if config.mlp == "swiglu":
            hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
        if hidden == config.mlp_dim:
            return ratio
    return None


def _refusal(target: str, problems: list[str]) -> ValueError:
    return ValueError(
        f"[convert] expected a model that {target} can hold, got one with {', '.join(problems)}; "
        "convert it to 'numpyvit', which holds any"
    )


def _named(rules: tuple[Rule, ...], state: Mapping[str, Any], config: ViTConfig) -> State:
    arrays, nameless = translate_back(rules, state, config.num_heads)
    if nameless:
        raise _refusal("this target", [f"{name}, which has no name there" for name in nameless[:5]])
    return arrays


def _timm_notes(config: ViTConfig) -> list[str]:
    told: list[str] = []
    unknown = ["pre_logits"] if config.pre_logits else []
    for field, words in _TOLD_TIMM.items():
        if (value := getattr(config, field)) in words:
            (told if words[value] else unknown).append(words[value] or f"{field}={value!r}")
    if config.norm == "layer" and config.norm_eps != 1e-6:
        told.append(f"norm_layer=partial(LayerNorm, eps={config.norm_eps:g})")
    notes = [f"timm answers as this model if it is built with {', '.join(told)}"] if told else []
    if unknown:
        notes.append(f"timm has no {', '.join(unknown)}: its answers will differ")
    return notes


def _notes(target: str, config: ViTConfig) -> list[str]:
    eps, activation = _COMPUTES[target]
    notes = []
    if config.activation != activation:
        notes.append(
            f"{target}'s own models compute {activation}, this one {config.activation}: say so "
            "where you build it"
        )
    if config.norm_eps != eps:
        notes.append(f"{target}'s own epsilon is {eps:g}, this model's {config.norm_eps:g}")
    return notes
