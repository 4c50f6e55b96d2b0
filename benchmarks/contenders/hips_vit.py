"""The step in HIPS autograd: a loss in its NumPy, and its derivative; AdamW by hand."""

from __future__ import annotations

import autograd.numpy
import numpy
from autograd import value_and_grad
from autograd.extend import defvjp, primitive

from benchmarks.contenders.array_vit import ArrayViT, PlainAdamW
from benchmarks.contenders.contract import Arrays, Case, Contender


@primitive
def softmax(x: numpy.ndarray) -> numpy.ndarray:
    """Over the last axis; a primitive of its own, for going back through a maximum is slow."""
    y = numpy.exp(x - x.max(-1, keepdims=True))
    y /= y.sum(-1, keepdims=True)
    return y


defvjp(softmax, lambda y, x: lambda g: y * (g - (g * y).sum(-1, keepdims=True)))


def erf(x: numpy.ndarray) -> numpy.ndarray:
    """SciPy's, with autograd's derivative."""
    from autograd.scipy.special import erf as traced

    return traced(x)


class HipsStep(Contender):
    """Loss and gradients by `value_and_grad` with respect to a dictionary."""

    def prepare(self, case: Case) -> None:
        model = ArrayViT(case, autograd.numpy, softmax, erf)
        self.loss_and_gradients = value_and_grad(model.loss)
        self.parameters = {name: array.copy() for name, array in case.weights.items()}
        self.optimizer = PlainAdamW(case.weights)

    def __call__(self) -> float:
        loss, self.last = self.loss_and_gradients(self.parameters)
        self.optimizer.step(self.parameters, self.last)
        return float(loss)

    def gradients(self) -> Arrays:
        return self.last

    def weights(self) -> Arrays:
        return self.parameters
