"""Where a run's model comes from: nothing, a file of weights, or the run's own checkpoint."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy

from numpyvit.data import Dataset
from numpyvit.models import (
    INITIALIZATIONS,
    ImageModel,
    build_model,
    load_model,
)
from numpyvit.train.recipes import Recipe
from numpyvit.train.run import RunConfig, RunFolder
from numpyvit.train.tuning import freeze, with_new_head
from numpyvit.weights import load_pretrained

_PARTS = (".json", ".safetensors", ".bin", ".pth", ".pt", ".npz")  # of weights in a folder


def fingerprint(path: str | Path) -> str:
    """The SHA-256 of a file of weights; of a folder, that of its weights and their descriptions.

    Raises FileNotFoundError where there is nothing.
    """
    path = Path(path)
    if path.is_file():
        return _sha256(path)
    if not path.is_dir():
        raise FileNotFoundError(f"[train] expected weights, a file or a folder, got none at {path}")
    parts = sorted(file for file in path.iterdir() if file.is_file() and file.suffix in _PARTS)
    lines = [f"{_sha256(file)}  {file.name}\n" for file in parts]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def new_model(config: RunConfig, data: Dataset) -> ImageModel:
    """A named model with starting weights, fitted to the classes of `data`.

    Raises ValueError where the images do not have the size that the model takes.
    """
    recipe, sizes = config.recipe, config.named_model()
    expected = (sizes.in_channels, *sizes.image_shape)
    if data.image_shape != expected:
        raise ValueError(
            f"[train] expected images {expected} for {config.model}, got {data.image_shape}; "
            "resize them or choose another model"
        )
    sizes = sizes.for_classes(len(data.class_names), **regularization(recipe))
    model = build_model(sizes, rng=numpy.random.default_rng(config.seed))
    INITIALIZATIONS[recipe.initialization](model, numpy.random.default_rng(config.seed))
    return model.to(device=config.device)


def regularization(recipe: Recipe) -> dict[str, float]:
    """The fields of a model's configuration that a recipe decides."""
    rates = dict.fromkeys(("dropout", "attention_dropout"), recipe.dropout)
    return {**rates, "drop_path": recipe.drop_path}


def starting_model(
    config: RunConfig, folder: RunFolder, data: Dataset, backbone: ImageModel | None = None
) -> ImageModel:
    """The run's model, with what is not trained frozen.

    `backbone` is what `config.weights` holds, for those who have opened it; its arrays become the
    model's. A run that has a checkpoint needs its weights no more: the model is the checkpoint's.
    Raises ValueError where the weights are not those that the run began with.
    """
    if config.weights is None:
        return new_model(config, data)
    if folder.last.exists():
        model = load_model(folder.last).model
    else:
        recipe = config.recipe
        model = with_new_head(
            _opened(config) if backbone is None else backbone,
            len(data.class_names),
            **regularization(recipe),
        )
    freeze(model, config.tune)
    return model.to(device=config.device)


def _opened(config: RunConfig) -> ImageModel:
    """The model of the run's weights, at the size of its pictures."""
    path, rule = str(config.weights), config.preprocessing
    if config.weights_sha256 not in (None, fingerprint(path)):
        raise ValueError(
            f"[train] expected the weights that the run was set up with, but {path} has changed; "
            "put them back, or start another run"
        )
    size = rule.size if rule else None
    return load_pretrained(path, image_size=size, **config.weights_settings).model


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
