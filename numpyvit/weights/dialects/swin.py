"""Swin's names in the files of timm, Microsoft, torchvision and Hugging Face."""

from __future__ import annotations

from collections.abc import Iterator

from numpyvit.weights.dialects.naming import COUNTERS
from numpyvit.weights.dialects.rules import Dialect, Rule

_MOST_STAGES = 8
_TABLE = "relative_position_bias_table"
_BLOCK = "layers.#.blocks.#"

_DROPS = (
    (r"relative_position_index$", "a list of numbers"),
    (r"\battn_mask$", "the mask of shifted windows"),
    (r"^embeddings\.mask_token$|^mask_token$", "the token of masked patches"),
    (r"^decoder\.\d+\.", "the decoder of masked images"),
    *COUNTERS,
)
_COMMON = (
    *(Rule(f"{name}.*", f"{name}.*") for name in ("patch_embed.proj", "patch_embed.norm", "norm")),
    *(
        Rule(f"{_BLOCK}.{name}.*", f"{_BLOCK}.{name}.*")
        for name in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    ),
    Rule(f"{_BLOCK}.attn.{_TABLE}", f"{_BLOCK}.attn.{_TABLE}"),
    Rule("layers.#.downsample.norm.*", "layers.#.downsample.norm.*"),
    Rule("layers.#.downsample.reduction.weight", "layers.#.downsample.reduction.weight"),
    Rule("head.fc.*", "head.fc.*"),
)
_PREFIXES = ("module", "backbone", "swin")
# Where merging belongs to the stage before it; the last stage first, so that none moves twice.
_STAGES_BEFORE = tuple(
    (rf"^layers\.{stage}\.downsample\.", f"layers.{stage + 1}.downsample.")
    for stage in reversed(range(_MOST_STAGES))
)


def _features() -> Iterator[tuple[str, str]]:
    """The list of torchvision: patches, blocks, merging, blocks, and so on."""
    yield r"^features\.0\.0\.", "patch_embed.proj."
    yield r"^features\.0\.2\.", "patch_embed.norm."
    for stage in range(_MOST_STAGES):
        yield rf"^features\.{2 * stage + 1}\.", f"layers.{stage}.blocks."
        yield rf"^features\.{2 * stage + 2}\.", f"layers.{stage + 1}.downsample."


def _hugging_face() -> Iterator[Rule]:
    """Names on the hub, and inside version 5."""
    stored, target = f"encoder.{_BLOCK}", _BLOCK
    yield Rule("embeddings.patch_embeddings.projection.*", "patch_embed.proj.*")
    yield Rule("embeddings.norm.*", "patch_embed.norm.*")
    for part, role in enumerate(("query", "key", "value")):
        yield Rule(f"{stored}.attention.self.{role}.*", f"{target}.attn.qkv.*", part)
        short = f"{stored}.attention.{role[0]}_proj.*"
        yield Rule(short, f"{target}.attn.qkv.*", part)
    for table in (f"self.{_TABLE}", f"relative_position_bias.{_TABLE}"):
        yield Rule(f"{stored}.attention.{table}", f"{target}.attn.{_TABLE}")
    for hub, inside, name in (
        ("attention.output.dense", "attention.o_proj", "attn.proj"),
        ("intermediate.dense", "mlp.fc1", "mlp.fc1"),
        ("output.dense", "mlp.fc2", "mlp.fc2"),
    ):
        yield Rule(f"{stored}.{hub}.*", f"{target}.{name}.*")
        yield Rule(f"{stored}.{inside}.*", f"{target}.{name}.*")
    yield Rule(f"{stored}.layernorm_before.*", f"{target}.norm1.*")
    yield Rule(f"{stored}.layernorm_after.*", f"{target}.norm2.*")
    for name in ("norm.*", "reduction.weight"):
        yield Rule(f"encoder.layers.#.downsample.{name}", f"layers.#.downsample.{name}")
    yield Rule("layernorm.*", "norm.*")
    yield Rule("classifier.*", "head.fc.*")


SWIN_MICROSOFT = Dialect(
    title="Microsoft (Swin)",
    anchor=r"layers\.0\.downsample\.reduction\.weight",
    rules=(*_COMMON, Rule("head.*", "head.fc.*")),
    drops=_DROPS,
    prefixes=_PREFIXES,
    respellings=_STAGES_BEFORE,
)
SWIN_TIMM = Dialect(
    title="timm (Swin)",
    anchor=rf"layers\.0\.blocks\.0\.attn\.{_TABLE}",
    rules=(*_COMMON, Rule("head.*", "head.fc.*")),
    drops=_DROPS,
    prefixes=_PREFIXES,
)
SWIN_TORCHVISION = Dialect(
    title="torchvision (Swin)",
    anchor=rf"features\.1\.0\.attn\.{_TABLE}",
    rules=(
        *_COMMON,
        Rule(f"{_BLOCK}.mlp.0.*", f"{_BLOCK}.mlp.fc1.*"),
        Rule(f"{_BLOCK}.mlp.3.*", f"{_BLOCK}.mlp.fc2.*"),
        Rule("head.*", "head.fc.*"),
    ),
    drops=_DROPS,
    prefixes=_PREFIXES,
    respellings=tuple(_features()),
)
SWIN_HUGGING_FACE = Dialect(
    title="Hugging Face (Swin)",
    anchor=r"encoder\.layers\.0\.blocks\.0\.layernorm_before\.weight",
    rules=tuple(_hugging_face()),
    drops=_DROPS,
    prefixes=_PREFIXES,
    respellings=tuple(
        (pattern.replace("^", r"^encoder\."), f"encoder.{name}") for pattern, name in _STAGES_BEFORE
    ),
)
# Microsoft's before timm's: what timm's is known by is in both.
SWIN_DIALECTS = (SWIN_MICROSOFT, SWIN_TIMM, SWIN_TORCHVISION, SWIN_HUGGING_FACE)
