"""What a training step changes: the weights, the optimizer's state, the weights' average."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy

from numpyvit.backend import Array
from numpyvit.models import Archive, ImageModel
from numpyvit.optim import AdamW, ExponentialMovingAverage
from numpyvit.train.recipes import Recipe
from numpyvit.train.tuning import parameter_groups

_OPTIMIZER, _AVERAGE, _RAW = "optimizer.", "average.", "raw."


class TrainingState:
    """The model, its AdamW, and the moving average of what is trained, if the recipe has one.

    Where there is an average, the weights of a checkpoint are the averages, which are what is
    validated; what the next step starts from lies beside them.
    """

    def __init__(self, model: ImageModel, recipe: Recipe) -> None:
        self.model = model
        groups = parameter_groups(model, recipe)
        self.optimizer = AdamW(groups, lr=recipe.lr, betas=(0.9, recipe.beta2))
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.average: ExponentialMovingAverage | None = None
        if recipe.ema_decay:
            self.average = ExponentialMovingAverage(
                self._trained.items(), decay=recipe.ema_decay, warmup=True
            )

    def step(self) -> None:
        """One step of the optimizer, and of the average."""
        self.optimizer.step()
        if self.average is not None:
            self.average.update()

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """A `with` block in which the model's weights are their averages, where there are some."""
        return contextlib.nullcontext() if self.average is None else self.average.applied()

    def finish(self) -> None:
        """Leave the model with the averages for good: nothing can be trained after that."""
        if self.average is not None:
            self.model.load_state_dict(self.average.averages, strict=False)

    @contextlib.contextmanager
    def checkpointed(self) -> Iterator[dict[str, Array]]:
        """A `with` block in which the model has a checkpoint's weights; what else goes into it."""
        arrays = self._arrays()  # before the averages take the place of what they are of
        with self.averaged():
            yield arrays

    def _arrays(self) -> dict[str, Array]:
        found: dict[str, Any] = {
            _OPTIMIZER + name: numpy.asarray(value) if isinstance(value, int) else value
            for name, value in self.optimizer.state_dict().items()
        }
        if self.average is not None:
            found[_AVERAGE + "step"] = numpy.asarray(self.average.steps)
            found |= {_RAW + name: parameter.data for name, parameter in self._trained.items()}
        return found

    def load(self, archive: Archive) -> None:
        """Continue from a checkpoint; ValueError for what does not fit."""
        self.model.load_state_dict(archive.weights())
        self.optimizer.load_state_dict(archive.section(_OPTIMIZER))
        if self.average is not None:
            averages = {_AVERAGE + name: p.data for name, p in self._trained.items()}
            # As `checkpointed` leaves them: the model has the averages, and raw weights lie beside.
            self.average.load_state_dict(archive.section(_AVERAGE) | averages)
            self.model.load_state_dict(archive.section(_RAW), strict=False)
