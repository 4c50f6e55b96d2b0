"""A model out of arrays that still lie in a file: resized where asked for, each array read once."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy
from numpy.typing import NDArray

from numpyvit.models import ImageModel, build_model
from numpyvit.nn import Size, as_pair, init, sincos_positions
from numpyvit.weights.dialects import Entry
from numpyvit.weights.resizing import resize_bias_table, resize_patch_kernel, resize_positions
from numpyvit.weights.stored import WeightFileError
from numpyvit.weights.text import printable, shown

Array = NDArray[Any]

_MOST_LINES = 40
_LONGEST_LINE = 300  # letters
_BLOCK = re.compile(r"(layers\.\d+\.)?blocks\.\d+\.")
_TABLE = re.compile(r"(?:layers\.(\d+)\.)?.*\brelative_position_bias_table")  # of a stage, or all


@dataclasses.dataclass
class Parts:
    """A model's arrays in a file, and what they are.

    `config` is of the size that the file has. Of the rows of `pos_embed`, `first_positions` belong
    to no patch; with `is_folded` they are to be added to the tokens in front. `resizing` is the
    rule for positions. `usual_size` is the images' size that the model is used at, where nothing
    else is asked for. With `has_sines`, positions that are not stored are sines and cosines.
    `report` is for people: topics, and what was found.
    """

    where: str
    config: Any
    entries: dict[str, Entry]
    first_positions: int
    is_folded: bool = False
    resizing: str = "timm"
    problems: list[str] = dataclasses.field(default_factory=list)
    report: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    usual_size: Size = 0
    has_sines: bool = False

    def __post_init__(self) -> None:
        self.usual_size = self.usual_size or self.config.image_size


def assemble(parts: Parts, config: Any, *, new_head: bool, seed: int, dtype: str) -> ImageModel:
    """The model of `config` with the arrays of `parts`, in `eval()` mode.

    With `new_head` the file's head is left out and one drawn from `seed`. Raises WeightFileError
    that lists all arrays that are missing, unexpected or of another shape.
    """
    wanted = _float_type(dtype)
    _check_blocks(parts, config)
    with init.undrawn():
        model = build_model(config).eval()
    model.empty_as(wanted)
    own = {name: parameter.shape for name, parameter in model.named_parameters()}
    if new_head:
        for name in [name for name in parts.entries if name.startswith(model.head_names)]:
            del parts.entries[name]
    heads = {name: shape for name, shape in own.items() if name.startswith(model.head_names)}
    drawn = _new_head(heads, seed, dtype) if new_head else {}
    _check(parts, config, {name: shape for name, shape in own.items() if name not in drawn})
    state = dict(drawn)
    for name in own.keys() - drawn.keys() - {"pos_embed"}:
        state[name] = parts.entries[name].read(dtype)
    if "pos_embed" in own:
        state["pos_embed"] = _positions(parts, config, state, dtype)
    _fit_bias_tables(parts, config, state)
    kernel = "patch_embed.proj.weight"
    old, new = parts.config.patch_shape, config.patch_shape
    if old != new:
        state[kernel] = resize_patch_kernel(state[kernel], new, parts.resizing)
        text = f"the patch kernel, from {parts.config.patch_size} to {config.patch_size} pixels"
        parts.report.append(("resized", text))
    _warn_of_what_is_not_finite(parts, state)
    model.load_state_dict(state, assign=True)
    return model


def _float_type(dtype: str) -> numpy.dtype[Any]:
    try:
        wanted = numpy.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):
        wanted = None
    if wanted is None or wanted.kind != "f":
        raise ValueError(
            f"[load_pretrained] expected a float type as dtype, such as 'float32', got "
            f"{shown(dtype)}; name another"
        )
    return wanted


def _check_blocks(parts: Parts, config: Any) -> None:
    """WeightFileError unless the file has as many blocks as the model: each takes time to build."""
    count = len({match[0] for match in map(_BLOCK.match, parts.entries) if match})
    if count != config.num_blocks:
        raise WeightFileError(
            f"[load_pretrained] expected {config.num_blocks} blocks in {parts.where}, as its "
            f"record or an option says, got {count}; give the whole file"
        )


def _new_head(shapes: Mapping[str, tuple[int, ...]], seed: int, dtype: str) -> dict[str, Array]:
    """Heads that begin as a new model's: weights truncated normal 0.02, biases 0."""
    rng = numpy.random.default_rng(seed)
    found = {}
    for name, shape in shapes.items():
        is_bias = name.endswith("bias")
        values = init.zeros(shape) if is_bias else init.trunc_normal(shape, rng)
        found[name] = values.astype(dtype, copy=False)
    return found


def _check(parts: Parts, config: Any, own: Mapping[str, tuple[int, ...]]) -> None:
    """WeightFileError with all that is wrong, unless the file's arrays fit the model's."""
    entries, problems = parts.entries, list(parts.problems)
    for name, shape in own.items():
        if name == "pos_embed":
            shape = (1, parts.first_positions + parts.config.num_patches, config.embed_dim)
            if name not in entries and parts.has_sines:
                continue
        elif name == "patch_embed.proj.weight" and config.stem == "patches":
            shape = (*shape[:2], *parts.config.patch_shape)
        elif match := _TABLE.fullmatch(name):
            more = _offsets(parts.config, match[1]) - _offsets(config, match[1])
            shape = (shape[0] + more, shape[1])
        if name not in entries:
            if not any(problem.startswith(f"{name}: ") for problem in parts.problems):
                # How many positions there were is a guess where there are none.
                expected = "" if name == "pos_embed" else f", expected shape {shape}"
                problems.append(f"{name}: missing{expected}")
        elif entries[name].shape != shape:
            got = f"{entries[name].shape}{_origin(entries[name])}"
            problems.append(f"{name}: expected shape {shape}, got {got}")
    unexpected = sorted(entries.keys() - own.keys())
    problems += [f"{name}: unexpected{_origin(entries[name])}" for name in unexpected]
    if problems:
        problems = [printable(line, _LONGEST_LINE) for line in dict.fromkeys(problems)]
        more = len(problems) - _MOST_LINES
        lines = problems[:_MOST_LINES] + ([f"and {more} more"] if more > 0 else [])
        raise WeightFileError(
            f"[load_pretrained] the weights in {parts.where} do not fit the model that they were "
            "taken for:\n  " + "\n  ".join(lines) + f"\n{_advice(problems)}"
        )


def _origin(entry: Entry) -> str:
    """The names that an array has in the file, where they are others than the model's."""
    return "" if entry.sources == entry.name else f" ({entry.sources})"


def _advice(problems: list[str]) -> str:
    """What may help with a list of what is wrong."""
    if any(re.search(r"attn\.[qk]_norm\.\w+: expected shape", problem) for problem in problems):
        return "say how many heads there are, with num_heads=..., or give another file"
    if all(": missing" in problem for problem in problems):
        return "give the whole file"
    if any(": unexpected" in problem for problem in problems):
        return "give a file of a plain Vision Transformer"
    return "give a file whose arrays are all of one model"


def _table_grid(config: Any, stage: str | None) -> Size:
    """Which grid the bias tables are for: the windows of a stage, or all patches."""
    return config.grid if stage is None else config.windows(int(stage)).size


def _offsets(config: Any, stage: str | None) -> int:
    """How many rows of the tables are for offsets of two tokens of the grid."""
    return math.prod(2 * edge - 1 for edge in as_pair(_table_grid(config, stage)))


def _fit_bias_tables(parts: Parts, config: Any, state: dict[str, Array]) -> None:
    """Resize the tables of grids and windows that have another size in the model."""
    resized = 0
    for match in filter(None, map(_TABLE.fullmatch, list(state))):
        old, new = (_table_grid(each, match[1]) for each in (parts.config, config))
        if old != new:
            state[match[0]] = resize_bias_table(state[match[0]], new, old)
            resized += 1
    if resized:
        parts.report.append(("resized", f"{resized} bias tables, to the model's size"))


def _positions(parts: Parts, config: Any, state: dict[str, Array], dtype: str) -> Array:
    """The position embedding for the model's grid; what is folded is added to `state`."""
    if "pos_embed" not in parts.entries:
        parts.report.append(("positions", "sines and cosines, as the file has none (big_vision)"))
        waves = sincos_positions(config.grid, config.embed_dim, "big_vision")
        return waves.astype(dtype)[None]
    positions, first = parts.entries["pos_embed"].read(dtype), parts.first_positions
    if parts.is_folded:
        for row, name in enumerate(("cls_token", "dist_token")[:first]):
            state[name] = state[name] + positions[:, row : row + 1]
        positions, first = numpy.ascontiguousarray(positions[:, first:]), 0
        parts.report.append(("positions", "those of the first tokens were added to the tokens"))
    old, new = parts.config.grid, config.grid
    if old == new:
        return positions
    sizes = f"from {old[0]} x {old[1]} to {new[0]} x {new[1]} patches"
    parts.report.append(("resized", f"positions, {sizes} ({parts.resizing})"))
    return resize_positions(positions, first, new, parts.resizing, old_grid=old)


def _warn_of_what_is_not_finite(parts: Parts, state: Mapping[str, Array]) -> None:
    bad = []
    with numpy.errstate(over="ignore", invalid="ignore"):
        for name, array in state.items():
            # A sum is one pass without a temporary; only where it is not finite, look closely.
            if not numpy.isfinite(array.sum()) and not numpy.isfinite(array).all():
                bad.append(name)
    if bad:
        more = ", ..." if len(bad) > 3 else ""
        parts.report.append(
            ("warning", f"{len(bad)} arrays have NaN or infinity: {', '.join(bad[:3])}{more}")
        )
