"""Writes a model for others: in timm's, torchvision's, Hugging Face's or Google's names."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from numpyvit.backend import suggest, to_numpy
from numpyvit.models import family_of, replacing, save_model
from numpyvit.weights.dialects.hub_files import hub_config, hub_processor
from numpyvit.weights.dialects.record import ENTRY, METADATA, Record
from numpyvit.weights.dialects.targets import (
    Translated,
    to_google,
    to_hugging_face,
    to_timm,
    to_torchvision,
)
from numpyvit.weights.pretrained import Pretrained, load_pretrained
from numpyvit.weights.safetensors import write_safetensors
from numpyvit.weights.stored import PathLike

TARGETS = ("timm", "torchvision", "hugging-face", "google", "numpyvit")
# Which families of models a target can hold, where not all.
FAMILIES_OF = {
    "timm": ("vit", "swin"),
    **dict.fromkeys(("torchvision", "hugging-face", "google"), ("vit",)),
}
_TO = {"timm": to_timm, "torchvision": to_torchvision, "google": to_google}
_ENDINGS = (".safetensors", ".npz")


@dataclasses.dataclass(frozen=True)
class Converted:
    """The files that were written, and what a user has to know about them."""

    files: list[Path]
    notes: list[str]


def convert(
    source: Pretrained | PathLike, target: str, out: PathLike, **overrides: Any
) -> Converted:
    """Write a model to `out` for another library; `overrides` go to `load_pretrained`.

    `target` is one of TARGETS. "timm" (canonical names), "torchvision" and "google" are single
    files, .safetensors or .npz by the ending of `out`; "hugging-face" is a folder for
    `from_pretrained`, with config.json, model.safetensors and preprocessor_config.json; "numpyvit"
    a checkpoint (.npz). Each file also holds a record of all that its names do not say, so that
    `load_pretrained` gives back the same model, bit for bit.

    Raises ValueError with the reason for a model that the target cannot hold, and for an unknown
    target or ending; FileExistsError for a folder with something in it.
    """
    if target not in TARGETS:
        raise ValueError(f"[convert] unknown target {target!r}; {suggest(target, TARGETS)}")
    out = Path(out)
    if target != "hugging-face":
        _check_ending(out, (".npz",) if target == "numpyvit" else _ENDINGS)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(
            f"[convert] expected a new or empty folder for hugging-face, got {out}; name another"
        )
    given = isinstance(source, Pretrained)
    model = source if isinstance(source, Pretrained) else load_pretrained(source, **overrides)
    if given and overrides:
        raise ValueError(
            f"[convert] expected a path with options ({', '.join(overrides)}), got a model; give "
            "them to load_pretrained"
        )
    family = family_of(model.model.config)
    if family not in FAMILIES_OF.get(target, (family,)):
        raise ValueError(
            f"[convert] expected a ViT for {target}, got a {family}; take timm or numpyvit"
        )
    if target == "numpyvit":
        fields = model.preprocessing.to_dict()
        save_model(out, model.name, model.model, model.labelling, preprocessing=fields)
        return Converted([out], [])
    config = model.model.config
    state = {name: to_numpy(array) for name, array in model.model.state_dict().items()}
    record = Record(model.name, config, model.labelling, model.preprocessing)
    if target == "hugging-face":
        return _write_folder(out, to_hugging_face(config, state), record)
    if family == "swin":
        translated = Translated(state, _swin_notes(config))
    else:
        translated = _TO[target](config, state)
    _write_file(out, translated.arrays, record)
    return Converted([out], translated.notes)


def _check_ending(out: Path, endings: tuple[str, ...]) -> None:
    if out.suffix not in endings:
        raise ValueError(
            f"[convert] expected a file name that ends in {' or '.join(endings)}, got {out.name!r}"
        )


def _swin_notes(config: Any) -> list[str]:
    notes = []
    if config.activation != "gelu":
        notes.append(
            f"timm's Swin computes gelu, this one {config.activation}: its answers differ until "
            "the mlp.act of each block is replaced"
        )
    is_padded = any(config.windows(stage).is_padded for stage in range(config.stages))
    if is_padded and config.padding == "before_shift":
        notes.append("timm pads its windows after the shift: its answers differ")
    return notes


def _write_file(out: Path, arrays: Mapping[str, NDArray[Any]], record: Record) -> None:
    """One file, all or nothing, in the container that its ending names."""
    if out.suffix == ".safetensors":
        # transformers and others open only files that say whose tensors they hold.
        write_safetensors(out, arrays, {"format": "pt", METADATA: record.to_text()})
        return
    with replacing(out) as file:
        numpy.savez(file, **{**arrays, ENTRY: record.to_array()})  # type: ignore[arg-type]


def _write_folder(out: Path, translated: Translated, record: Record) -> Converted:
    """A folder of Hugging Face's hub, all or nothing."""
    processor, notes = hub_processor(record.preprocessing)
    texts = {
        "config.json": hub_config(record.config, record.labelling),
        "preprocessor_config.json": processor,
    }
    if not out.parent.is_dir():
        raise FileNotFoundError(
            f"[convert] expected a folder to make {out.name} in, found none at {out.parent}"
        )
    making = out.parent / f".{out.name}.{secrets.token_hex(6)}"
    making.mkdir()
    try:
        _write_file(making / "model.safetensors", translated.arrays, record)
        for name, fields in texts.items():
            text = json.dumps(fields, indent=2) + "\n"
            (making / name).write_text(text, "utf-8")
        if out.exists():
            out.rmdir()
        os.replace(making, out)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    files = [out / name for name in ("model.safetensors", *texts)]
    return Converted(files, [*translated.notes, *notes])
