"""The pictures of a run: how it went, what the model saw, what it looks at."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy

from numpyvit import functional
from numpyvit.backend import Array, to_device, to_numpy
from numpyvit.data import Dataset, Loader
from numpyvit.explain import (
    class_attention,
    draw_curves,
    draw_overlays,
    draw_reconstruction,
    draw_samples,
    evaluating,
    explain,
    fuse_heads,
    possible_methods,
    prediction_titles,
    without_padding,
)
from numpyvit.models import ImageModel, predict
from numpyvit.nn import use_generator
from numpyvit.tensor import Tensor, no_grad
from numpyvit.train.run import RunConfig
from numpyvit.train.trainer import Trainer
from numpyvit.train.tuning import HEAD

SAMPLES, EXAMPLES = 32, 10  # training images in samples.png, test images in attention.png


def write_pictures(trainer: Trainer) -> list[Path]:
    """Write curves.png, samples.png and attention.png of a finished run into its folder.

    Where nothing was classified, reconstructions.png takes the place of the last. Without
    matplotlib a line on stderr says so, and nothing is written. Returns the files.
    """
    folder, classifies = trainer.folder.path, trainer.objective.classifies
    seen = "attention" if classifies else "reconstructions"
    files = [folder / f"{name}.png" for name in ("curves", "samples", seen)]
    try:
        loss = _training_loss(trainer.config)
        draw_curves(trainer.folder.rows(), files[0], training_loss=loss)
        _draw_samples(trainer, files[1])
        (_draw_attention if classifies else _draw_reconstructions)(trainer, files[2])
    except ImportError as error:
        print(f"{error} (the run has none)", file=sys.stderr)  # noqa: T201
        return []
    return files


def class_probabilities(model: ImageModel, images: Array) -> numpy.ndarray:
    """The softmax of the logits without dropout: images (B, C, H, W) -> (B, classes)."""
    with evaluating(model):
        logits = predict(model, to_device(images, model.device))
    return to_numpy(functional.softmax(Tensor(logits)).data)


def _training_loss(config: RunConfig) -> str:
    """What the training loss is called: with what validation has not, the two do not compare."""
    recipe, teacher = config.recipe, config.teaching and config.teaching.share
    parts = {
        "the teacher's part": teacher,
        "mixed labels": recipe.mixup or recipe.cutmix,
        "smoothed labels": recipe.label_smoothing,
    }
    found = ",\n".join(name for name, share in parts.items() if share)
    return f"training, with {found}" if found else "training"


def _draw_samples(trainer: Trainer, path: Path) -> None:
    """Augmented training images: those of the first epoch's first batches."""
    batches, labels, count = [], [], 0
    # Of a probe the loader holds features; its pictures are not augmented.
    loader = _plain(trainer) if trainer.config.tune == HEAD else trainer.loader
    for images, classes in loader.epoch(0):
        batches.append(images)
        labels.append(classes)
        count += len(images)
        if count >= SAMPLES:
            break
    draw_samples(
        numpy.concatenate(batches)[:SAMPLES],
        numpy.concatenate(labels)[:SAMPLES],
        trainer.labelling.class_names,
        path,
        mean=trainer.recipe.mean,
        std=trainer.recipe.std,
    )


def _plain(trainer: Trainer) -> Loader:
    """The training pictures, normalised alone, in the order of the training."""
    return Loader(
        trainer.train_data,
        trainer.recipe.batch_size,
        transform=trainer.recipe.normalize(),
        seed=trainer.config.seed,
    )


def _draw_attention(trainer: Trainer, path: Path) -> None:
    data, recipe = trainer.val_data, trainer.recipe
    chosen = _from_all_classes(data, EXAMPLES)
    images = recipe.normalize()(data.images(chosen), numpy.random.default_rng(0))
    chances = class_probabilities(trainer.model, images)
    possible = possible_methods(trainer.model)
    if trainer.config.weights is None and "attention" in possible:
        maps, name = fuse_heads(class_attention(trainer.model, images)), "Class-token attention"
    else:
        # The last block of large pretrained models has bright spots in the background, and the
        # rollout of small pictures that were enlarged a bright edge.
        method = "relevance" if "relevance" in possible else "gradcam"
        maps = explain(trainer.model, images, method)
        name = f"What speaks for the predicted class ({method})"
    draw_overlays(
        images,
        without_padding(maps, trainer.model),
        prediction_titles(data.labels[chosen], chances, data.class_names),
        path,
        heading=f"{name}: the brighter, the more",
        mean=recipe.mean,
        std=recipe.std,
    )


def _draw_reconstructions(trainer: Trainer, path: Path) -> None:
    data, recipe, model = trainer.val_data, trainer.recipe, trainer.model
    chosen = _from_all_classes(data, EXAMPLES)
    images = recipe.normalize()(data.images(chosen), numpy.random.default_rng(0))
    batch = Tensor(to_device(images.astype(model.dtype, copy=False), model.device))
    masked: Any = model
    with evaluating(model), no_grad(), use_generator(numpy.random.default_rng(0)):
        out = masked(batch)
        made = masked.reconstruct(batch, out.prediction)
        without = masked.reconstruct(batch, out.prediction * 0)
    loss = f"{trainer.folder.rows()[-1]['val_loss']:.3f}"
    title = f"Images, {model.config.mask_ratio:.0%} of each hidden; validation loss {loss}"
    if model.config.norm_pix:
        title += (
            ", and 1 without any learning: each drawn patch is given the true one's brightness and "
            "contrast, and 'without the model' has the brightness alone"
        )
    draw_reconstruction(
        images,
        made.data,
        out.mask.reshape(-1, *model.config.encoder.grid),
        path,
        mean=recipe.mean,
        std=recipe.std,
        title=title,
        without=without.data if model.config.norm_pix else None,
    )


def _from_all_classes(data: Dataset, count: int) -> numpy.ndarray:
    """The indices of up to `count` images: every class's first, then every class's second, ..."""
    by_class = numpy.argsort(data.labels, kind="stable")
    labels = data.labels[by_class]
    turn = numpy.arange(len(labels)) - numpy.searchsorted(labels, labels)
    return by_class[numpy.lexsort((labels, turn))][:count]
