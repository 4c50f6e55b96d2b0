"""A model in a file with all that is needed to use it: sizes, class names, preprocessing."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from numpyvit.backend import Array
from numpyvit.models.archive import Archive, packaged_archive, read_archive, write_archive
from numpyvit.models.base import ImageModel, ModelConfig
from numpyvit.models.families import build_model, config_from_dict, family_of
from numpyvit.nn import init

_BLOCK = re.compile(r"(layers\.\d+\.)?(decoder_)?blocks\.\d+\.")
_LARGEST = sys.float_info.max  # a whole number can be beyond it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labelling:
    """What the numbers going in and out of a model mean.

    Pixels from 0 to 1 are normalised by `(pixel - mean) / std` a channel; logit i is class
    `class_names[i]`. Raises ValueError for names that are no texts and for numbers that are not
    finite, a std that is not positive among them.
    """

    class_names: tuple[str, ...]
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) for name in self.class_names):
            raise ValueError(
                f"[Labelling] expected texts as class_names, got {self.class_names!s:.200}"
            )
        for name, least in (("mean", -_LARGEST), ("std", 0.0)):
            values: tuple[Any, ...] = getattr(self, name)
            numeric = all(isinstance(value, int | float) for value in values)
            if not (numeric and all(least < value < _LARGEST for value in values)):
                kind = "positive numbers" if name == "std" else "numbers"
                raise ValueError(f"[Labelling] expected {kind} as {name}, got {values!s:.200}")

    def check_fits(self, config: Any) -> None:
        """ValueError unless there is a name a class, and a mean and a std a channel or for all."""
        if len(self.class_names) != config.num_classes:
            raise ValueError(
                f"[Labelling] expected {config.num_classes} class_names, "
                f"got {len(self.class_names)}"
            )
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, config.in_channels):
                raise ValueError(
                    f"[Labelling] expected {config.in_channels} values as {name}, "
                    f"got {len(getattr(self, name))}"
                )


@dataclasses.dataclass(frozen=True)
class SavedModel:
    """A model as it came from a file, in `eval()` mode, and what else the file held.

    `preprocessing` is what `data.Preprocessing.to_dict` gave (this layer stays free of the data's,
    which takes long to load); None says that pictures were cut to squares as `data.read_picture`
    does it.
    """

    name: str
    model: Any  # an ImageModel
    labelling: Labelling
    archive: Archive
    preprocessing: dict[str, Any] | None = None


def save_model(
    path: str | os.PathLike[str],
    name: str,
    model: ImageModel,
    labelling: Labelling,
    *,
    preprocessing: Mapping[str, Any] | None = None,
    record: Mapping[str, Any] | None = None,
    arrays: Mapping[str, Array] | None = None,
    compress: bool = False,
) -> None:
    """Write `model` to `path`, all or nothing; `record` and `arrays` are kept beside it.

    `preprocessing` as `SavedModel` describes it. Raises ValueError for a model that is not the one
    its configuration describes, which is all that `load_model` could make of the file.
    """
    _check_described(model)
    description = {
        "model": name,
        "family": family_of(model.config),
        "config": model.config.to_dict(),
        "labelling": dataclasses.asdict(labelling),
        **({} if preprocessing is None else {"preprocessing": dict(preprocessing)}),
        **(record or {}),
    }
    write_archive(path, model.state_dict(), description, arrays, compress=compress)


def load_model(path: str | os.PathLike[str]) -> SavedModel:
    """Read a model that `save_model` wrote: a checkpoint of a run, or the package's own weights.

    It computes in the float type that it was saved in, float32 or float64.
    Raises FileNotFoundError, and ValueError for a file of another kind or weights that do not fit.
    """
    archive = read_archive(path)
    weights = archive.weights()
    try:
        config = config_from_dict(archive.record.get("family", "vit"), archive.record["config"])
        fields = {name: _entries(values) for name, values in archive.record["labelling"].items()}
        labelling = Labelling(**fields)
        labelling.check_fits(config)
        _check_blocks(config, weights)
        name = str(archive.record["model"])
        preprocessing = archive.record.get("preprocessing")
        if not isinstance(preprocessing, dict | None):
            raise TypeError(f"expected fields as preprocessing, got {preprocessing!r}")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"[load_model] expected a checkpoint that describes its model, but {path} does not "
            f"({error}); give a file that `numpyvit train` wrote"
        ) from error
    with init.undrawn():
        model = build_model(config).eval()
    if any(array.dtype == "float64" for array in weights.values()):
        model.empty_as("float64")
    model.load_state_dict(weights, assign=True)
    return SavedModel(name, model, labelling, archive, preprocessing)


def _check_described(model: ImageModel) -> None:
    """ValueError where modules or sizes are not those of the configuration's model."""
    with init.undrawn():
        expected = _parts(build_model(model.config))
    found = _parts(model)
    for name in {**expected, **found}:
        if (got := found.get(name, "nothing")) != (wanted := expected.get(name, "nothing")):
            raise ValueError(
                f"[save_model] expected the model that its configuration describes, with {wanted} "
                f"as {name or 'the whole'}, got {got}; save the model that it was made from, or "
                "the arrays of its state_dict()"
            )


def _parts(model: ImageModel) -> dict[str, object]:
    """All modules' classes and all arrays' shapes by name."""
    modules = {name: type(module).__name__ for name, module in model.named_modules()}
    return modules | {name: array.shape for name, array in model.state_dict().items()}


def _check_blocks(config: ModelConfig, weights: Iterable[str]) -> None:
    """ValueError unless the weights have as many blocks as the model: each takes time to build."""
    found = map(_BLOCK.match, weights)
    count = len({block[0] for block in found if block})
    if count != config.num_blocks:
        raise ValueError(f"expected the weights of {config.num_blocks} blocks, got {count}")


def _entries(values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list):
        raise TypeError(f"expected a list, got {values!r:.200}")
    return tuple(values)


def load_packaged_model(name: str = "vit_cifar_patch4_32") -> SavedModel:
    """The trained model that comes with the package under `name`; ValueError where none does."""
    return load_model(packaged_archive(name))
