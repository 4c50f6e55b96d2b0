"""What a training step minimises: a table of losses on what a model makes of images."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy

from numpyvit import functional
from numpyvit.backend import Array, to_device, to_numpy
from numpyvit.models import FAMILIES, ModelConfig, family_of
from numpyvit.tensor import Tensor


@dataclasses.dataclass(frozen=True)
class Objective:
    """The base of all: what is minimised in training, and measured in validation.

    `targets` are whatever the loader gave with the images; images are on the model's device and of
    its dtype. Randomness comes from `nn.current_generator()`.
    """

    # Whether images are classified: without, there are no accuracies, and the best is least loss.
    classifies: ClassVar[bool] = True
    recipe: ClassVar[str] = ""  # for models that are trained from nothing; else that of the data

    label_smoothing: float = 0.0

    def loss(self, model: Any, images: Tensor, targets: numpy.ndarray) -> tuple[Tensor, int]:
        """The sum of the losses of images (B, ...), on the tape, and how many were right."""
        raise NotImplementedError

    def measure(
        self, model: Any, images: Tensor, labels: numpy.ndarray
    ) -> tuple[float, numpy.ndarray]:
        """The sum of the losses in evaluation, and the confusion matrix (classes, classes)."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Classification(Objective):
    """Cross entropy with labels (B,), or with a share of each class (B, classes)."""

    def loss(self, model: Any, images: Tensor, targets: numpy.ndarray) -> tuple[Tensor, int]:
        """Smoothed cross entropy; right is what has the largest logit."""
        logits = model(images)
        target = to_device(targets, logits.device)
        loss = functional.cross_entropy(logits, target, self.label_smoothing, "sum")
        return loss, count_correct(logits, target)

    def measure(
        self, model: Any, images: Tensor, labels: numpy.ndarray
    ) -> tuple[float, numpy.ndarray]:
        """Plain cross entropy."""
        logits = model(images)
        target = to_device(labels, logits.device)
        loss = functional.cross_entropy(logits, target, 0.0, "sum").item()
        classes = logits.shape[-1]
        confusion = numpy.zeros((classes, classes), numpy.int64)
        numpy.add.at(confusion, (labels, to_numpy(logits.data.argmax(-1))), 1)
        return loss, confusion


@dataclasses.dataclass(frozen=True)
class Reconstruction(Objective):
    """The loss of a MaskedAutoencoder, which draws its masks; targets have no part in it."""

    classifies = False
    recipe = "mae"

    def loss(self, model: Any, images: Tensor, targets: numpy.ndarray) -> tuple[Tensor, int]:
        """Mean squared error of each image's hidden patches."""
        return model(images, reduction="sum").loss, 0

    def measure(
        self, model: Any, images: Tensor, labels: numpy.ndarray
    ) -> tuple[float, numpy.ndarray]:
        """The same; there is no confusion."""
        return self.loss(model, images, labels)[0].item(), numpy.zeros((0, 0), numpy.int64)


# What models are trained for, by the name that their family gives it.
OBJECTIVES: dict[str, type[Objective]] = {
    "classification": Classification,
    "reconstruction": Reconstruction,
}


def objective_of(config: ModelConfig) -> type[Objective]:
    """The objective of the family that a model's configuration is of."""
    return OBJECTIVES[FAMILIES[family_of(config)].objective]


def count_correct(logits: Tensor, target: Array) -> int:
    """How many of the largest logits are those of the labels, or of the largest shares."""
    labels = target if target.ndim == 1 else target.argmax(-1)
    return int((logits.data.argmax(-1) == labels).sum())
