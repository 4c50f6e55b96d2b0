"""One training step and one evaluation, cut into micro-batches."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy
from numpy.random import SFC64, Generator

from numpyvit import functional
from numpyvit.backend import Array, array_module, to_device, to_numpy
from numpyvit.data import Dataset
from numpyvit.explain import evaluating
from numpyvit.models import VisionTransformer
from numpyvit.nn import Parameter, use_generator
from numpyvit.tensor import Tensor, gradients, no_grad
from numpyvit.train.parallel import Partial, WorkerPool

MICRO_BATCH = 32  # images: their activations fit a core's cache


@dataclasses.dataclass(frozen=True)
class StepResult:
    """Sums over one batch: the loss of all its images, and how many were classified rightly."""

    loss_sum: float
    correct: int
    count: int

    @property
    def loss(self) -> float:
        """Mean loss of an image."""
        return self.loss_sum / self.count


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How well a model does on a data set; `confusion[true, predicted]` counts images."""

    loss: float
    confusion: numpy.ndarray

    @property
    def accuracy(self) -> float:
        """Share of images classified rightly, 0 to 1."""
        return float(numpy.trace(self.confusion) / self.confusion.sum())

    @property
    def class_accuracy(self) -> numpy.ndarray:
        """The same for the images of each class; NaN for a class without images."""
        counts = self.confusion.sum(1)
        return numpy.where(counts, self.confusion.diagonal() / numpy.maximum(counts, 1), numpy.nan)


def set_gradients(
    model: VisionTransformer,
    images: numpy.ndarray,
    labels: numpy.ndarray,
    pool: WorkerPool,
    *,
    seed: tuple[int, int],
    label_smoothing: float = 0.0,
    micro_batch: int = MICRO_BATCH,
) -> StepResult:
    """Set the `.grad` of the model's trainable parameters to that of the batch's mean loss.

    `images` (B, C, H, W) float, `labels` (B,). Micro-batch i draws its randomness from (*seed, i):
    loss and gradients do not depend on the number of workers, to the bit.

    Raises ValueError without images and where all parameters are frozen, as well as what goes
    wrong in a micro-batch; no `.grad` is changed then.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters or not len(images):
        raise ValueError(
            f"[set_gradients] expected at least 1 image and a parameter that is not frozen, got "
            f"{len(images)} and {len(parameters)}"
        )
    weight = numpy.asarray(1 / len(images), parameters[0].dtype)

    def run(index: int) -> Partial:
        part = slice(index * micro_batch, (index + 1) * micro_batch)
        rng = Generator(SFC64((*seed, index)))
        with use_generator(rng):
            logits = model(_input(model, images[part]))
        target = to_device(labels[part], logits.device)
        loss = functional.cross_entropy(logits, target, label_smoothing, "sum")
        value, correct = loss.item(), int((logits.data.argmax(-1) == target).sum())
        found = gradients(loss, parameters, weight)
        xp = array_module(*found)
        flat = xp.concatenate([gradient.ravel() for gradient in found])
        return [flat, numpy.array([value, correct])]

    flat, sums = pool.sum(run, _count(len(images), micro_batch))
    _distribute(flat, parameters)
    return StepResult(float(sums[0]), int(sums[1]), len(images))


def evaluate(
    model: VisionTransformer,
    dataset: Dataset,
    transform: Any,
    pool: WorkerPool,
    *,
    micro_batch: int = MICRO_BATCH,
) -> Evaluation:
    """Loss and confusion of `model`, without dropout, on all of `dataset`.

    `transform(images, rng)` turns the data set's uint8 images into the model's input. Every module
    is left in the mode in which it came.
    """
    classes = model.config.num_classes

    def run(index: int) -> Partial:
        indices = numpy.arange(
            index * micro_batch, min((index + 1) * micro_batch, len(dataset)), dtype=numpy.int64
        )
        images = transform(dataset.images(indices), numpy.random.default_rng(0))
        labels = dataset.labels[indices]
        with no_grad():
            logits = model(_input(model, images))
            loss = functional.cross_entropy(
                logits, to_device(labels, logits.device), 0.0, "sum"
            ).item()
        predicted = to_numpy(logits.data.argmax(-1))
        confusion = numpy.zeros((classes, classes), numpy.int64)
        numpy.add.at(confusion, (labels, predicted), 1)
        return [numpy.array(loss), confusion]

    with evaluating(model):
        loss_sum, confusion = pool.sum(run, _count(len(dataset), micro_batch))
    return Evaluation(float(loss_sum) / len(dataset), confusion)


def _input(model: VisionTransformer, images: numpy.ndarray) -> Tensor:
    token = model.cls_token
    return Tensor(to_device(images.astype(token.dtype, copy=False), token.device))


def _count(images: int, micro_batch: int) -> int:
    return -(-images // micro_batch)


def _distribute(flat: Array, parameters: list[Parameter]) -> None:
    """Give each parameter its part of `flat` as its gradient, without a copy."""
    start = 0
    for parameter in parameters:
        end = start + parameter.size
        parameter.grad = flat[start:end].reshape(parameter.shape)
        start = end
