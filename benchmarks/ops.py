"""Each fused op beside the same function composed of primitive ops: the gain that it must earn.

    python benchmarks/ops.py

Forward and backward, float32, with the shapes of a micro-batch of 32 images in vit_cifar_patch4_32.
Values and gradients are compared before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
from side_by_side import race, save, table

from numpyvit import Tensor, functional, gradients
from numpyvit.train import WorkerPool

Function = Callable[..., Tensor]


def composed_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Product and sum."""
    return x @ weight.T + bias


def composed_layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Mean and variance."""
    centred = x - x.mean(-1, keepdims=True)
    variance = x.var(-1, correction=0, keepdims=True)
    return centred / (variance + 1e-6).sqrt() * weight + bias


def composed_gelu_tanh(x: Tensor) -> Tensor:
    """The formula, with a power."""
    return x * 0.5 * (((x + 0.044715 * x**3) * (2 / numpy.pi) ** 0.5).tanh() + 1.0)


def composed_softmax(x: Tensor) -> Tensor:
    """Exponentials over their sum."""
    e = (x - x.max(-1, keepdims=True)).exp()
    return e / e.sum(-1, keepdims=True)


def composed_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The equation."""
    return composed_softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5) @ v


def composed_cross_entropy(logits: Tensor, labels: numpy.ndarray) -> Tensor:
    """Logarithm of the softmax's entry."""
    return -composed_softmax(logits).log()[numpy.arange(len(labels)), labels].mean()


def cases() -> dict[str, tuple[Function, Function, list[Any]]]:
    """Fused, composed and inputs, by name."""
    rng = numpy.random.default_rng(0)

    def normal(*shape: int) -> numpy.ndarray:
        return rng.standard_normal(shape, numpy.float32)

    heads = [normal(32, 4, 65, 12) for _ in range(3)]
    labels = rng.integers(0, 10, 32)
    return {
        "linear 48 -> 192": (
            functional.linear,
            composed_linear,
            [normal(32, 65, 48), normal(192, 48), normal(192)],
        ),
        "layer_norm": (
            functional.layer_norm,
            composed_layer_norm,
            [normal(32, 65, 48), normal(48), normal(48)],
        ),
        "gelu_tanh": (functional.gelu_tanh, composed_gelu_tanh, [normal(32, 65, 192)]),
        "softmax": (functional.softmax, composed_softmax, [normal(32, 4, 65, 65)]),
        "attention": (functional.scaled_dot_product_attention, composed_attention, heads),
        "cross_entropy": (
            functional.cross_entropy,
            composed_cross_entropy,
            [normal(32, 10), labels],
        ),
    }


def step(function: Function, inputs: list[Any]) -> Callable[[], list[numpy.ndarray]]:
    """A forward and a backward pass with respect to all float inputs."""

    def run() -> list[numpy.ndarray]:
        arguments = [Tensor(x, requires_grad=True) if x.dtype.kind == "f" else x for x in inputs]
        y = function(*arguments)
        leaves = [argument for argument in arguments if isinstance(argument, Tensor)]
        return [y.data, *gradients(y, leaves, numpy.ones(y.shape, y.dtype))]

    return run


def main() -> None:
    """Check, time, print, save."""
    rows = []
    with WorkerPool(1):  # holds BLAS to one thread
        for name, (fused, composed, inputs) in cases().items():
            contenders = {"composed": step(composed, inputs), "fused": step(fused, inputs)}
            results = [run() for run in contenders.values()]
            for one, other in zip(*results, strict=True):
                numpy.testing.assert_allclose(one, other, rtol=1e-2, atol=1e-3)
            rows += table(name, race(contenders, rounds=41, warm_up=5), "composed")
    save("ops", rows)


if __name__ == "__main__":
    main()
