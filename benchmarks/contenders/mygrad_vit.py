"""The step in MyGrad: its tensors, its softmax; AdamW by hand, for it has none."""

from __future__ import annotations

import math

import mygrad
import numpy
from mygrad.nnet import softmax
from mygrad.operation_base import Operation

from benchmarks.contenders.array_vit import ArrayViT, PlainAdamW
from benchmarks.contenders.contract import Arrays, Case, Contender


class Erf(Operation):
    """SciPy's error function as an operation of MyGrad's."""

    def __call__(self, x: mygrad.Tensor) -> numpy.ndarray:
        from scipy.special import erf as scipy_erf

        self.variables = (x,)
        return scipy_erf(x.data)

    def backward_var(self, grad: numpy.ndarray, index: int, **options: object) -> numpy.ndarray:
        (x,) = self.variables
        return grad * numpy.exp(-x.data * x.data) * (2 / math.pi**0.5)


def erf(x: mygrad.Tensor) -> mygrad.Tensor:
    """Asked for by models whose GELU is not the tanh form."""
    return mygrad.execute_op(Erf, x)


class MyGradStep(Contender):
    """With the guards of its memory off, as its manual advises for speed."""

    def __init__(self) -> None:
        mygrad.turn_memory_guarding_off()

    def prepare(self, case: Case) -> None:
        self.model = ArrayViT(case, mygrad, softmax, erf)
        self.parameters = {name: mygrad.tensor(w.copy()) for name, w in case.weights.items()}
        self.optimizer = PlainAdamW(case.weights)

    def __call__(self) -> float:
        loss = self.model.loss(self.parameters)
        loss.backward()
        self.optimizer.step({name: p.data for name, p in self.parameters.items()}, self.gradients())
        return loss.item()

    def gradients(self) -> Arrays:
        return {name: p.grad for name, p in self.parameters.items()}

    def weights(self) -> Arrays:
        return {name: p.data for name, p in self.parameters.items()}
