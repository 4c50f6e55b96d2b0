"""Which of the arrays in a file are a Vision Transformer, and in whose names."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from numpyvit.weights.container import WeightFile
from numpyvit.weights.dialects.google import GOOGLE
from numpyvit.weights.dialects.hugging_face import HUGGING_FACE
from numpyvit.weights.dialects.naming import names_of, unwrapped
from numpyvit.weights.dialects.record import without_record
from numpyvit.weights.dialects.rules import Dialect
from numpyvit.weights.dialects.swin import SWIN_DIALECTS, SWIN_HUGGING_FACE
from numpyvit.weights.dialects.timm import TIMM
from numpyvit.weights.dialects.torchvision import TORCHVISION
from numpyvit.weights.dialects.tutorial import TUTORIAL
from numpyvit.weights.stored import StoredArray, WeightFileError
from numpyvit.weights.text import shown

# Of two that fit a file alike the first is taken: a Swin's patches are called as a ViT's.
DIALECTS: tuple[Dialect, ...] = (
    *(*SWIN_DIALECTS, TIMM, TORCHVISION, HUGGING_FACE, GOOGLE, TUTORIAL),
)
KNOWN = (
    "timm (and DeiT, DeiT-III, MAE, DINO, DINOv2), torchvision, Hugging Face (ViT, DeiT, ViTMAE, "
    "Dinov2), Google (vision_transformer, big_vision), the tutorial's tiny CIFAR model, and Swin's "
    "of timm, torchvision, Hugging Face and Microsoft"
)

# Words before the names, by which model of a training state is taken: the least number first.
_PREFERENCE = {
    "model_ema": 0,
    "state_dict_ema": 0,
    "ema": 0,
    "ema_model": 0,
    "target_encoder": 0,
    "teacher": 1,
    "student": 3,
}
_NO_WEIGHTS = re.compile(r"^(optimizer|optimizers|lr_scheduler|scheduler|scaler|amp)\.")

# Patterns of names, what has them, and what to do.
_OTHERS: tuple[tuple[str, str, str], ...] = (
    (r"\blora_|\.lora\.", "a LoRA adapter", "merge it into its model with the library it is of"),
    (
        r"\.(SCB|qweight|qzeros|absmax|quant_map|weight_scale)$",
        "a model of quantised weights",
        "give the weights that it was made of",
    ),
    (
        r"\b(layers|features|stages)\.\d+\..*(cpb_mlp|logit_scale|continuous_position_bias)",
        "a Swin Transformer of version 2",
        "give one of version 1",
    ),
    (
        r"\bstages\.\d+\..*relative_position_",
        "a Swin Transformer in names that are not known",
        "give timm's, torchvision's, Hugging Face's or Microsoft's file",
    ),
    (r"\brel_pos_[hw]$", "a SAM or ViTDet, with relative positions", "it is not supported"),
    (
        r"(^|[./])(conv_root|gn_root)/|patch_embed\.backbone\.",
        "a hybrid of a ResNet and a ViT",
        "give one without a ResNet",
    ),
    (
        r"\bconv_proj\.conv_|\bpatch_embed\.(conv|stem)|\bpatch_embed\.proj\.\d",
        "a ViT with a stem of several convolutions",
        "give one whose patches are embedded by one convolution",
    ),
    (
        r"\bvisual\.(conv1|transformer)\.|\bvision_model\.embeddings\.patch_embedding\b",
        "a CLIP or SigLIP in the names of its makers or of Hugging Face",
        "give timm's file of the image tower",
    ),
    (
        r"\b(text_model|token_embedding|word_embeddings|embed_tokens)\b|(^|/)txt/",
        "a model of texts",
        "give one of images",
    ),
    (
        r"\brope|\binv_freq$|\.attn\.[qkv]_proj\.",
        "a ViT with rotary positions or separate q, k and v (EVA, DINOv3)",
        "it is not supported",
    ),
    (
        r"\.(attn|mlp)\.norm\.(weight|bias)$",
        "a ViT with norms inside its attention or MLP (scale_attn_norm, scale_mlp_norm)",
        "it is not supported",
    ),
    (
        r"\bstages\.\d+\.blocks\.\d+\.conv_dw|\.dwconv\.|\bfeatures\.\d+\.\d+\.block\.0\.weight$",
        "a ConvNeXt",
        "give a Vision Transformer",
    ),
    (
        r"\blayer[1-4]\.\d+\.conv[123]\.weight$|\bresnet\.",
        "a ResNet",
        "give a Vision Transformer",
    ),
    (
        r"^(module\.)?(linear\.|linear_head\.)?(weight|bias)$",
        "a linear head without its backbone",
        "give the backbone's file",
    ),
)
_OTHERS_OF_VIT = (
    (
        r"relative_position_bias|rel_pos_bias|\battn\.q_bias$",
        "a BEiT, with relative positions",
        "it is not supported",
    ),
)
_OTHERS_OF_SWIN = (
    (
        r"\babsolute_pos_embed$|\bposition_embeddings$",
        "a Swin Transformer with absolute positions",
        "give one with relative positions alone",
    ),
)
_REGISTERS = re.compile(r"(embeddings\.)?(reg_token|register_tokens)")
# What people call a classifier beside a backbone.
_HEAD = re.compile(
    r"(?P<before>(?:.*?\.)?)(?P<word>classifier|head|heads|fc|linear|linear_head|mlp_head)"
    r"(\.(\d+|head|fc))?\.(weight|bias)"
)
_MODEL_TYPES = {
    HUGGING_FACE.title: ("vit", "vit_mae", "vit_msn", "deit", "dinov2", "dinov2_with_registers"),
    SWIN_HUGGING_FACE.title: ("swin",),
}
# timm's models whose names are a ViT's, but whose blocks compute something else.
_OTHER_BLOCKS = re.compile(r"(?<![a-z])rpn(?![a-z])|test_vit3")  # the latter pools its register


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A state dict in a file: its dialect, where it lies, its arrays by their names there.

    `left_out` counts the arrays elsewhere in the file, by the first word of their names. `notes`
    are for the report: pairs of a topic and a sentence.
    """

    dialect: Dialect
    where: str
    arrays: dict[str, StoredArray]
    left_out: dict[str, int]
    notes: tuple[tuple[str, str], ...] = ()


def choose(file: WeightFile) -> Chosen:
    """The Vision Transformer in a file: of several, the averaged or the teacher's one.

    Raises WeightFileError where there is none, or one of another kind.
    """
    names = by_plain_names(file)
    found: list[tuple[Dialect, str]] = []
    for dialect in DIALECTS:
        anchor = re.compile(rf"(?P<where>(?:.*[./])?){dialect.anchor}")
        matches = [match for name in names if (match := anchor.fullmatch(name))]
        found += [(dialect, _outside(dialect, match["where"])) for match in matches]
    if not found:
        _refuse_others(file, names, _OTHERS_OF_VIT)
        raise WeightFileError(
            f"[load_pretrained] expected a Vision Transformer in {file.path}, got arrays in names "
            f"that are not known ({_some(file.arrays)}); the known dialects are: {KNOWN}"
        )
    dialect, where = min(found, key=lambda entry: _rank(entry[1], names))
    mine = [name for name in names if name.startswith(where)]
    _refuse_others(file, mine, _OTHERS_OF_SWIN if dialect in SWIN_DIALECTS else _OTHERS_OF_VIT)
    _refuse_by_config(file, dialect)
    arrays = _inner(file, dialect, where, {name: names[name] for name in mine})
    head, notes = _head_elsewhere(dialect, where, arrays, names)
    for inner, name in head.items():
        arrays.pop(name.removeprefix(where), None)
        arrays[inner] = names[name]
    taken = {*mine, *head.values()}
    left = [name for name in map(unwrapped, without_record(file.arrays)) if name not in taken]
    others = collections.Counter(re.split(r"[./]", name)[0] for name in left)
    return Chosen(dialect, where, arrays, dict(sorted(others.items())), notes)


def by_plain_names(file: WeightFile) -> dict[str, StoredArray]:
    """The arrays that may be weights, by their names without the words of wrappers."""
    arrays: dict[str, StoredArray] = {}
    for name in without_record(file.arrays):
        if not _NO_WEIGHTS.match(name):
            _add(file, arrays, unwrapped(name), file.arrays[name])
    return arrays


def _add(file: WeightFile, arrays: dict[str, StoredArray], name: str, array: StoredArray) -> None:
    if name in arrays:
        raise WeightFileError(
            f"[load_pretrained] expected each weight once in {file.path}, got two for {name}; "
            "keep one of them"
        )
    arrays[name] = array


def _outside(dialect: Dialect, where: str) -> str:
    """`where` without the words at its end that all names of a model may have."""
    words = re.findall(r"[^./]*[./]", where)
    while words and words[-1][:-1] in dialect.prefixes:
        words.pop()
    return "".join(words)


def _rank(where: str, names: Iterable[str]) -> tuple[int, int, int]:
    preferences = [_PREFERENCE.get(word, 2) for word in re.split(r"[./]", where)]
    best = min(preferences) if min(preferences) < 2 else max(preferences)
    return best, -sum(name.startswith(where) for name in names), len(where)


def _inner(
    file: WeightFile, dialect: Dialect, where: str, outer: Mapping[str, StoredArray]
) -> dict[str, StoredArray]:
    """The arrays by the names that the dialect's rules are written in."""
    words = "|".join(map(re.escape, dialect.prefixes))
    before = re.compile(rf"^(?:(?:{words})\.)+") if words else None
    arrays: dict[str, StoredArray] = {}
    for name, array in outer.items():
        inner = name.removeprefix(where)
        inner = before.sub("", inner) if before else inner
        for pattern, replacement in dialect.respellings:
            inner = re.sub(pattern, replacement, inner)
        if 0 in array.shape and _REGISTERS.fullmatch(inner):
            continue  # transformers writes an empty array where there are none
        _add(file, arrays, inner, array)
    return arrays


def _head_elsewhere(
    dialect: Dialect,
    where: str,
    arrays: Mapping[str, StoredArray],
    names: Mapping[str, StoredArray],
) -> tuple[dict[str, str], tuple[tuple[str, str], ...]]:
    """A head that lies beside its backbone, not in it: inner names and its own, and notes.

    People put a backbone and their own classifier into one module. One linear layer of the right
    width is taken; of several layers, or where the pooler may be between, nobody can tell.
    """
    rules = [rule for rule in dialect.rules if rule.target == "head.*"]
    if not rules or any(rule.pattern.fullmatch(name) for rule in rules for name in arrays):
        return {}, ()
    groups: dict[str, list[str]] = {}
    for name in names:
        match = _HEAD.fullmatch(name)
        if match and where.startswith(match["before"]):
            groups.setdefault(match["before"] + match["word"], []).append(name)
    if not groups:
        return {}, ()
    found = [name for group in groups.values() for name in group]
    kernel = next(name for name in arrays if re.fullmatch(dialect.anchor, name))
    fits = _is_linear({name: names[name].shape for name in found}, arrays[kernel].shape[:1])
    if not fits or any(name.startswith("pooler.") for name in arrays):
        listed = ", ".join(map(shown, found[:3])) + (", ..." if len(found) > 3 else "")
        text = f"the model has no head; what looks like one beside it is left out ({listed})"
        return {}, (("warning", text),)
    stem = rules[0].source.removesuffix("*")
    taken = {stem + name.rpartition(".")[2]: name for name in found}
    return taken, (("head", f"{', '.join(found)}, which are beside the model"),)


def _is_linear(shapes: Mapping[str, tuple[int, ...]], width: tuple[int, ...]) -> bool:
    """Whether two arrays are the weight and the bias of one layer that reads `width` numbers."""
    if {name.rpartition(".")[2] for name in shapes} != {"weight", "bias"} or len(shapes) != 2:
        return False
    weight, bias = sorted(shapes.values(), key=len, reverse=True)
    same = len({name.rpartition(".")[0] for name in shapes}) == 1
    return same and len(weight) == 2 and weight[1:] == width and bias == weight[:1]


def _refuse_others(
    file: WeightFile, names: Iterable[str], more: tuple[tuple[str, str, str], ...]
) -> None:
    names = list(names)
    for pattern, what, advice in (*_OTHERS, *more):
        search = re.compile(pattern).search
        if example := next(filter(search, names), None):
            raise WeightFileError(
                f"[load_pretrained] expected a Vision Transformer in {file.path}, got {what} "
                f"(by the name {shown(example)}); {advice}"
            )


def _refuse_by_config(file: WeightFile, dialect: Dialect) -> None:
    config = file.config or {}
    kind, known = config.get("model_type"), _MODEL_TYPES.get(dialect.title)
    if known is not None and kind is not None and kind not in known:
        raise WeightFileError(
            f"[load_pretrained] expected a model_type out of {', '.join(known)} in the "
            f"config.json of {file.path}, got {shown(kind)}; it is not supported"
        )
    for name, source in names_of(file):
        if _OTHER_BLOCKS.search(name):
            raise WeightFileError(
                f"[load_pretrained] expected a ViT with usual blocks in {file.path}, got "
                f"{shown(name)} (by {source}); it is not supported"
            )


def _some(arrays: Mapping[str, Any]) -> str:
    first = [shown(name) for name in list(arrays)[:4]]
    return ", ".join(first) + (", ..." if len(arrays) > 4 else "")
