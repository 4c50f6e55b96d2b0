"""One training step and one evaluation, cut into micro-batches."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy
from numpy.random import SFC64, Generator

from numpyvit.backend import Array, array_module, to_device
from numpyvit.data import Dataset
from numpyvit.explain import evaluating
from numpyvit.nn import Parameter, use_generator
from numpyvit.tensor import Tensor, gradients, no_grad
from numpyvit.train.objectives import Classification, Objective
from numpyvit.train.parallel import Partial, TreeSum, WorkerPool
from numpyvit.train.probe import Learner

_CACHE_BYTES = 1 << 20  # what the widest activation of a micro-batch may take
_TURNS = 16  # at least as many, where there are as many micro-batches: for machines of many cores
_EVALUATION_BATCH = 32  # images
CLASSIFICATION = Classification()


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
    model: Learner,
    images: numpy.ndarray,
    labels: numpy.ndarray,
    pool: WorkerPool,
    *,
    seed: tuple[int, int],
    objective: Objective = CLASSIFICATION,
    micro_batch: int | None = None,
) -> StepResult:
    """Set the `.grad` of the model's trainable parameters to that of the batch's mean loss.

    `images` (B, C, H, W) float, or features (B, F) for a Probe; `labels` (B,), or what else the
    `objective` takes. Micro-batch i draws its randomness from (*seed, i): loss and gradients do not
    depend on the number of workers, to the bit. They do depend on `micro_batch`, by default as many
    images as `micro_batch_for` says.

    Raises ValueError without images and where all parameters are frozen, as well as what goes
    wrong in a micro-batch; no `.grad` is changed then.
    """
    parameters = _trainable(model)
    if not parameters or not len(images):
        raise ValueError(
            f"[set_gradients] expected at least 1 image and a parameter that is not frozen, got "
            f"{len(images)} and {len(parameters)}"
        )
    micro_batch = micro_batch or micro_batch_for(model.config)
    turn = micro_batch * max(1, len(images) // (micro_batch * _TURNS))

    def arguments(index: int) -> tuple[Any, ...]:
        part = slice(index * turn, (index + 1) * turn)
        return images[part], labels[part], seed, index * turn // micro_batch

    task = _GradientTask(model, len(images), micro_batch, objective)
    flat, sums = pool.sum(task, arguments, _count(len(images), turn))
    _distribute(flat, parameters)
    return StepResult(float(sums[0]), int(sums[1]), len(images))


def micro_batch_for(config: Any) -> int:
    """Images whose widest activation, float32, stays in a core's cache: a power of 2, 4 to 32.

    Fewer than 4 would write gradients of all weights too often.
    """
    fitting = max(_CACHE_BYTES // (4 * config.widest), 1)
    return min(max(1 << fitting.bit_length() - 1, 4), 32)


def evaluate(
    model: Learner,
    dataset: Dataset,
    transform: Any,
    pool: WorkerPool,
    *,
    objective: Objective = CLASSIFICATION,
    micro_batch: int = _EVALUATION_BATCH,
) -> Evaluation:
    """Loss and confusion of `model`, without dropout, on all of `dataset`.

    `transform(images, rng)` turns the data set's uint8 images into the model's input. What the
    objective draws, it draws from the micro-batch's number: the same every time. Every module is
    left in the mode in which it came.
    """

    def arguments(index: int) -> tuple[Any, ...]:
        end = min((index + 1) * micro_batch, len(dataset))
        indices = numpy.arange(index * micro_batch, end, dtype=numpy.int64)
        return dataset.images(indices), dataset.labels[indices], index

    with evaluating(model):
        task = _EvaluationTask(model, transform, objective)
        loss_sum, confusion = pool.sum(task, arguments, _count(len(dataset), micro_batch))
    return Evaluation(float(loss_sum) / len(dataset), confusion)


@dataclasses.dataclass(frozen=True)
class _GradientTask:
    """A few micro-batches of a step: their share of the gradient, flat; their loss and hits."""

    model: Learner
    batch_size: int
    micro_batch: int
    objective: Objective

    def __call__(
        self, images: numpy.ndarray, labels: numpy.ndarray, seed: tuple[int, int], first: int
    ) -> Partial:
        tree = TreeSum(_count(len(images), self.micro_batch))
        for index in range(tree.count):
            part = slice(index * self.micro_batch, (index + 1) * self.micro_batch)
            rng = Generator(SFC64((*seed, first + index)))
            tree.add(index, self._micro_batch(images[part], labels[part], rng))
        return tree.total

    @functools.cached_property
    def _parameters(self) -> list[Parameter]:
        return _trainable(self.model)

    def _micro_batch(self, images: numpy.ndarray, labels: numpy.ndarray, rng: Generator) -> Partial:
        with use_generator(rng):
            loss, correct = self.objective.loss(self.model, _input(self.model, images), labels)
        value = loss.item()
        weight = numpy.asarray(1 / self.batch_size, loss.dtype)
        found = gradients(loss, self._parameters, weight)
        flat = array_module(*found).concatenate([gradient.ravel() for gradient in found])
        return [flat, numpy.array([value, correct])]


@dataclasses.dataclass(frozen=True)
class _EvaluationTask:
    """One micro-batch of an evaluation: the sum of its losses and its confusion matrix."""

    model: Learner
    transform: Any
    objective: Objective

    def __call__(self, images: numpy.ndarray, labels: numpy.ndarray, index: int) -> Partial:
        images = self.transform(images, numpy.random.default_rng(0))
        with no_grad(), use_generator(Generator(SFC64(index))):
            loss, confusion = self.objective.measure(self.model, _input(self.model, images), labels)
        return [numpy.array(loss), confusion]


def _trainable(model: Learner) -> list[Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _input(model: Learner, images: numpy.ndarray) -> Tensor:
    return Tensor(to_device(images.astype(model.dtype, copy=False), model.device))


def _count(images: int, micro_batch: int) -> int:
    return -(-images // micro_batch)


def _distribute(flat: Array, parameters: list[Parameter]) -> None:
    """Give each parameter its part of `flat` as its gradient, without a copy."""
    start = 0
    for parameter in parameters:
        end = start + parameter.size
        parameter.grad = flat[start:end].reshape(parameter.shape)
        start = end
