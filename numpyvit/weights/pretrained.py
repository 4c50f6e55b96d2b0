"""A pretrained Vision Transformer from any of the field's files, by its path alone."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpyvit.backend import suggest
from numpyvit.data import PREPROCESSINGS, Preprocessing
from numpyvit.models import (
    VARIANTS,
    ImageModel,
    Labelling,
    SavedModel,
    family_of,
    load_model,
)
from numpyvit.nn import Size
from numpyvit.weights.assembling import Parts, assemble
from numpyvit.weights.container import WeightFile, open_weights
from numpyvit.weights.dialects import (
    FAMILIES,
    GOOGLE,
    SWIN_DIALECTS,
    Architecture,
    Chosen,
    Entry,
    Family,
    Piece,
    Record,
    SwinArchitecture,
    Translation,
    choose,
    find_class_names,
    find_family,
    find_preprocessing,
    find_record,
    names_of,
    translate,
)
from numpyvit.weights.dialects.record import has_record, without_record
from numpyvit.weights.options import check_options
from numpyvit.weights.stored import PathLike, WeightFileError
from numpyvit.weights.text import printable

_RECORD = "__numpyvit__"  # what a checkpoint of numpyvit's own has
_LAST = "last.npz"  # a run folder's checkpoint
_MOST_PATCHES = 1 << 14  # that a file can ask for without having positions for them
_LONGEST_NAME, _LONGEST_LINE = 120, 400  # letters
# What a caller can say in the place of what a file says.
_SAYABLE = ("num_heads", "norm_eps", "activation", "pooling", "image_size")
_DINOV2_SIZE = 518  # of its positions; its evaluation has another


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model out of a file, in `eval()` mode, with what is needed to use it.

    `labelling` has the names of the classes and the normalisation, `preprocessing` all that is
    done to a picture. `report` says what was found in the file and what was inferred from what:
    pairs of a topic and a sentence.
    """

    name: str
    model: ImageModel
    labelling: Labelling
    preprocessing: Preprocessing
    report: list[tuple[str, str]]

    def describe(self) -> str:
        """The report as aligned lines."""
        width = max(len(topic) for topic, _ in self.report)
        return "\n".join(f"{topic:<{width}}  {text}" for topic, text in self.report)


def load_pretrained(
    path: PathLike,
    *,
    image_size: Size | None = None,
    num_classes: int | None = None,
    seed: int = 0,
    dtype: str = "float32",
    preprocessing: str | Preprocessing | None = None,
    **overrides: Any,
) -> Pretrained:
    """Open the weights of a Vision Transformer, in whatever container and names they are.

    `path` is a file or folder of torchvision, timm, Hugging Face, Google, DeiT, MAE, DINO or
    DINOv2, or numpyvit's own checkpoint or run. What the file says counts; the rest is inferred
    from names and shapes (see `report`), and `overrides` replace fields of the ViTConfig:
    `num_heads=6`. At another `image_size` positions are resized as the family does it; at another
    `patch_size`, the patch kernel. With `num_classes` the file's head gives way to a new one,
    drawn from `seed`, even where it has as many classes. `dtype` is what the model computes in.
    `preprocessing`, or the name of one of `data.PREPROCESSINGS`, takes the place of the family's.
    Texts out of the file come with control characters as escapes.

    Raises FileNotFoundError, WeightFileError (a ValueError) for files that hold no such model, with
    a list of all arrays that do not fit, or one too large for the memory, and ValueError for
    options that cannot be, or that the file's arrays have decided otherwise.
    """
    path = Path(path)
    if path.is_dir() and (path / _LAST).is_file():
        path = path / _LAST
    rule = _rule(preprocessing)
    asked = {"image_size": image_size, "num_classes": num_classes}
    sizes = {name: size for name, size in asked.items() if size is not None}
    needed = ""
    try:
        file = open_weights(path)
        amount = sum(array.nbytes for array in file.arrays.values())
        needed = f"; the file's arrays take {amount / 1e6:,.0f} MB"
        found = _load(file, sizes, overrides, seed, dtype)
    except MemoryError as error:
        raise WeightFileError(
            f"[load_pretrained] expected enough memory for the model in {path}, got too little "
            f"({str(error) or 'out of memory'}){needed}; free some, or ask for smaller images"
        ) from error

    return found if rule is None else _prepared_by(rule, found)


def _rule(preprocessing: str | Preprocessing | None) -> Preprocessing | None:
    """The preprocessing that was asked for; ValueError for an unknown name."""
    if not isinstance(preprocessing, str):
        return preprocessing
    if preprocessing not in PREPROCESSINGS:
        near = suggest(preprocessing, PREPROCESSINGS)
        raise ValueError(f"[load_pretrained] unknown preprocessing {preprocessing!r}; {near}")
    return PREPROCESSINGS[preprocessing]


def _prepared_by(rule: Preprocessing, found: Pretrained) -> Pretrained:
    """The same model with another preprocessing than its family's."""
    config = found.model.config
    rule = rule.at(config.image_size)
    report = [line for line in found.report if line[0] not in ("evaluation", "preprocessing")]
    report += [("evaluation", "as asked for"), ("preprocessing", rule.describe())]
    labelling = _labelling(found.labelling.class_names, rule, config)
    return dataclasses.replace(found, labelling=labelling, preprocessing=rule, report=report)


def _load(
    file: WeightFile,
    sizes: Mapping[str, Any],
    overrides: Mapping[str, Any],
    seed: int,
    dtype: str,
) -> Pretrained:
    """`sizes` are image_size and num_classes, where they are asked for."""
    if _RECORD in file.arrays:
        name, parts, class_names, preprocessing = _own(file.path)
    else:
        name, parts, class_names, preprocessing = _foreign(file, {**sizes, **overrides})
    new_head = "num_classes" in sizes
    check_options(parts.where, parts.config, overrides, new_head=new_head)
    config = parts.config.replace(**{"image_size": parts.usual_size, **sizes, **overrides})
    model = assemble(parts, config, new_head=new_head, seed=seed, dtype=dtype)
    if overrides:
        asked = ", ".join(f"{option}={value!r}" for option, value in overrides.items())
        parts.report.append(("asked for", asked))
    if new_head:
        class_names = tuple(f"class {index}" for index in range(config.num_classes))
        new = f"new, for {config.num_classes} classes, drawn from seed {seed}"
        parts.report.append(("head", new if config.num_classes else "left out"))
    stated = preprocessing.size if "by the file's own" in preprocessing.source else 0
    if "image_size" not in sizes and stated not in (0, config.image_size):
        text = f"the evaluation, from {stated} to the model's {config.image_size} pixels"
        parts.report.append(("resized", text))
    preprocessing = preprocessing.at(config.image_size)
    parts.report.append(("preprocessing", preprocessing.describe()))
    labelling = _labelling(tuple(map(printable, class_names)), preprocessing, config)
    report = [(topic, printable(text, _LONGEST_LINE)) for topic, text in parts.report]
    return Pretrained(printable(name, _LONGEST_NAME), model, labelling, preprocessing, report)


def _labelling(
    class_names: tuple[str, ...], preprocessing: Preprocessing, config: Any
) -> Labelling:
    mean, std = preprocessing.mean, preprocessing.std
    if config.in_channels not in (len(mean), 3) and len(mean) != 1:
        mean, std = (0.5,), (0.5,)
    return Labelling(class_names=class_names, mean=mean, std=std)


_Source = tuple[str, Parts, tuple[str, ...], Preprocessing]


def _own(path: Path) -> _Source:
    """A checkpoint of numpyvit's own: all is in its record. Of a MAE, the encoder is taken."""
    try:
        saved: SavedModel = load_model(path)
        preprocessing = _preprocessing(saved)
    except ValueError as error:
        raise WeightFileError(printable(str(error), _LONGEST_LINE)) from error
    model = saved.model.backbone()
    entries = {
        name: Entry(name, (Piece(name, array.shape, array.shape, functools.partial(_same, array)),))
        for name, array in model.state_dict().items()
    }
    config = model.config
    report = [
        ("file", str(path)),
        ("container", "numpyvit's own checkpoint"),
        ("model", f"{saved.name}, by the file's record"),
        *([("left out", text)] if (text := saved.model.left_out()) else []),
    ]
    first = config.num_positions - config.num_patches if "pos_embed" in entries else 0
    parts = Parts(str(path), config, entries, first, report=report)
    return saved.name, parts, saved.labelling.class_names, preprocessing


def _preprocessing(saved: SavedModel) -> Preprocessing:
    if saved.preprocessing is not None:
        return Preprocessing.from_dict(saved.preprocessing)
    rule = PREPROCESSINGS["numpyvit"].at(saved.model.config.image_size)
    return dataclasses.replace(rule, mean=saved.labelling.mean, std=saved.labelling.std)


def _same(array: Any) -> Any:
    return array


def _foreign(file: WeightFile, asked: Mapping[str, Any]) -> _Source:
    """Weights of others: translated, and the rest inferred."""
    record = find_record(file)
    if record is not None and _is_canonical(file, record):
        return _recorded(file, record, FAMILIES["timm"], _as_they_are(file), _origin(file))
    chosen = choose(file)
    translation = translate(chosen.dialect, chosen.arrays)
    family, reason = find_family(file, chosen, translation)
    report = [
        *_origin(file),
        ("dialect", f"{chosen.dialect.title}: by {chosen.dialect.example}"),
        ("family", f"{family.title}: by {reason}"),
        *_what_was_left(chosen, translation),
    ]
    if record is not None:
        return _recorded(file, record, family, translation, report)
    if has_record(file):
        report.append(("record", "numpyvit's own, which cannot be read: not used"))
    architecture = SwinArchitecture if chosen.dialect in SWIN_DIALECTS else Architecture
    found = architecture(file, family, translation.entries, asked, translation.problems)
    config = _inferred(file, found, asked)
    name, reason = _name(file, config)
    preprocessing, source = find_preprocessing(file, family, config)
    class_names, origin = find_class_names(file, config.num_classes)
    report += [("model", f"{name}: {reason}"), *found.report]
    report.append(("evaluation", source))
    report.append(("classes", f"{config.num_classes}: {origin}" if class_names else "none"))
    parts = Parts(
        str(file.path),
        config,
        translation.entries,
        found.first_positions,
        found.is_folded,
        family.resizing,
        translation.problems,
        report,
        has_sines=_has_sines(chosen, family, translation),
    )
    explicit = file.preprocessor is not None or config.image_size == _DINOV2_SIZE
    side = preprocessing.size
    p, q = config.patch_shape
    fits = side % p == side % q == 0 and (side // p) * (side // q) <= _MOST_PATCHES
    if family.any_size and explicit and side != config.image_size and fits:
        parts.usual_size = side
        report.append(("images", f"taken as {side} x {side} pixels, as in the family's evaluation"))
    return name, parts, class_names, preprocessing


def _is_canonical(file: WeightFile, record: Record) -> bool:
    """Whether a file that numpyvit wrote has a ViT in the model's own names: there is any part."""
    return family_of(record.config) == "vit" and "patch_embed.proj.weight" in file.arrays


def _as_they_are(file: WeightFile) -> Translation:
    arrays = {name: file.arrays[name] for name in without_record(file.arrays)}
    entries = {
        name: Entry(name, (Piece(name, array.shape, array.shape, array.read),))
        for name, array in arrays.items()
    }
    return Translation(entries, {}, [])


def _origin(file: WeightFile) -> list[tuple[str, str]]:
    """Report lines on the file."""
    container = f"{file.kind}, {_arrays(len(file.arrays))}"
    return [("file", str(file.path)), ("container", container), *file.notes]


def _inferred(file: WeightFile, found: Architecture, asked: Mapping[str, Any]) -> Any:
    """The config that was found; what cannot be gives way to what the caller says instead."""
    try:
        config: Any = found.config_class(**found.fields)
    except ValueError as error:
        said = {name: asked[name] for name in _SAYABLE if name in asked}
        with contextlib.suppress(ValueError):
            return found.config_class(**{**found.fields, **said})
        wrong = [name for name in _SAYABLE if name in str(error)]
        advice = f"say another {wrong[0]}=..." if wrong else "give another file"
        raise WeightFileError(
            f"[load_pretrained] expected a Vision Transformer in {file.path}, got one that cannot "
            f"be ({error}); {advice}"
        ) from error
    # What lies in the file bounds all else, but not positions that are computed.
    computed = "pos_embed" not in found.entries and "image_size" not in asked
    if computed and config.num_patches > _MOST_PATCHES:
        raise WeightFileError(
            f"[load_pretrained] expected at most {_MOST_PATCHES} patches in {file.path}, which has "
            f"no positions, got image_size={config.image_size}; say another image_size=..."
        )
    return config


def _has_sines(chosen: Chosen, family: Family, translation: Translation) -> bool:
    """Whether positions that are not there are big_vision's, which are computed."""
    is_new = family is FAMILIES["big_vision"] or "cls_token" not in translation.entries
    return chosen.dialect is GOOGLE and is_new


def _recorded(
    file: WeightFile,
    record: Record,
    family: Family,
    translation: Translation,
    report: list[tuple[str, str]],
) -> _Source:
    """A file that numpyvit wrote for others: all is in its record."""
    config: Any = record.config
    entries = translation.entries
    if "blocks.0.ls1.gamma" in entries and not config.layer_scale:
        config = config.replace(layer_scale=1.0)  # Dinov2 has one always: of ones, where need be
    shape = entries["pos_embed"].shape if "pos_embed" in entries else ()
    first = shape[1] - config.num_patches if len(shape) == 3 else 0
    folded = first > 0 and config.positions == "patches"
    report += [
        ("model", f"{record.name}: by numpyvit's record in the file"),
        ("images", f"{config.image_size} x {config.image_size} pixels: by the record"),
        ("heads", f"{config.num_heads}: by the record"),
    ]
    parts = Parts(
        str(file.path),
        config,
        entries,
        max(first, 0),
        folded,
        family.resizing,
        translation.problems,
        report,
    )
    return record.name, parts, record.labelling.class_names, record.preprocessing


def _arrays(count: int) -> str:
    return "1 array" if count == 1 else f"{count} arrays"


def _what_was_left(chosen: Chosen, translation: Translation) -> list[tuple[str, str]]:
    """Report lines on what was taken of a training state, and what was dropped."""
    lines = list(chosen.notes)
    if chosen.left_out:
        others = ", ".join(f"{word} ({_arrays(count)})" for word, count in chosen.left_out.items())
        taken = chosen.where.rstrip("./") or "the arrays without a prefix"
        lines.append(("taken", f"{taken}; left out: {others}"))
    for reason in dict.fromkeys(translation.dropped.values()):
        count = sum(other == reason for other in translation.dropped.values())
        lines.append(("dropped", f"{reason} ({_arrays(count)})"))
    return lines


def _name(file: WeightFile, config: Any) -> tuple[str, str]:
    """What the model is called: by the file, or by what it is."""
    fits = re.compile(rf"\w+_patch{config.patch_size}(_\w*)?_{config.image_size}(\.[\w.]+)?")
    for name, where in names_of(file):
        if where == "config.json" or fits.fullmatch(name):
            return name, where
    for name, variant in VARIANTS.items():
        if _core(variant) == _core(config):
            return name, "its sizes"
    size = f"{config.image_size} pixels, patches of {config.patch_size}"
    blocks = f"depth {config.depth}, {config.num_heads} heads"
    return f"{family_of(config)} of width {config.embed_dim}, {blocks}, {size}", "its sizes"


def _core(config: Any) -> dict[str, Any]:
    """What makes two models the same one for a reader: all but the classes and the training."""
    fields = config.to_dict()
    for name in ("num_classes", "dropout", "attention_dropout", "drop_path", "norm_eps", "padding"):
        fields.pop(name, None)
    return {**fields, "layer_scale": fields.get("layer_scale", 0) > 0}
