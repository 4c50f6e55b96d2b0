"""What a training step minimises: a table of losses on what a model makes of images."""

from __future__ import annotations

import dataclasses

import numpy

from numpyvit import functional
from numpyvit.backend import Array, to_device, to_numpy
from numpyvit.nn import Module
from numpyvit.tensor import Tensor


@dataclasses.dataclass(frozen=True)
class Objective:
    """The base of all: what is minimised in training, and measured in validation.

    `targets` are whatever the loader gave with the images; images are on the model's device and of
    its dtype. Randomness comes from `nn.current_generator()`.
    """

    def loss(self, model: Module, images: Tensor, targets: numpy.ndarray) -> tuple[Tensor, int]:
        """The sum of the losses of images (B, ...), on the tape, and how many were right."""
        raise NotImplementedError

    def measure(
        self, model: Module, images: Tensor, labels: numpy.ndarray
    ) -> tuple[float, numpy.ndarray]:
        """The sum of the losses in evaluation, and the confusion matrix (classes, classes)."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Classification(Objective):
    """Cross entropy with labels (B,), or with a share of each class (B, classes)."""

    label_smoothing: float = 0.0

    def loss(self, model: Module, images: Tensor, targets: numpy.ndarray) -> tuple[Tensor, int]:
        """Smoothed cross entropy; right is what has the largest logit."""
        logits = model(images)
        target = to_device(targets, logits.device)
        loss = functional.cross_entropy(logits, target, self.label_smoothing, "sum")
        return loss, count_correct(logits, target)

    def measure(
        self, model: Module, images: Tensor, labels: numpy.ndarray
    ) -> tuple[float, numpy.ndarray]:
        """Plain cross entropy."""
        logits = model(images)
        target = to_device(labels, logits.device)
        loss = functional.cross_entropy(logits, target, 0.0, "sum").item()
        classes = logits.shape[-1]
        confusion = numpy.zeros((classes, classes), numpy.int64)
        numpy.add.at(confusion, (labels, to_numpy(logits.data.argmax(-1))), 1)
        return loss, confusion


def count_correct(logits: Tensor, target: Array) -> int:
    """How many of the largest logits are those of the labels, or of the largest shares."""
    labels = target if target.ndim == 1 else target.argmax(-1)
    return int((logits.data.argmax(-1) == labels).sum())
