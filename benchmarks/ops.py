"""Each fused op beside the same function composed of primitive ops, and beside PyTorch's own.

    python -m benchmarks ops

Forward and backward with respect to all float inputs, float32, on one thread, with the shapes of 32
images in vit_cifar_patch4_32 (65 tokens of width 48, 4 heads, 192 hidden values). The composed form
is the one that a formula suggests, from ops that the package has anyway: what a fused op gains over
it is what earns it its place. PyTorch takes its fastest op for the same, through autograd. Values
and gradients are compared before anything is timed; of dropout, whose bits differ, what survives.
A timing is the mean of 5 calls in a row: a single one is too short to be followed by a rest.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
from numpy.random import SFC64, Generator

from benchmarks.side_by_side import available, parser, print_rows, race, rows_of, save
from numpyvit import Tensor, functional, gradients
from numpyvit.train import WorkerPool

NAME = "ops"
OURS, COMPOSED, TORCH = "fused", "composed", "PyTorch"
SCALE = 4e-4  # of the largest value: how far results in float32 may lie apart
KEEP = 0.9
CALLS = 5

Function = Callable[..., Any]
Arrays = list[numpy.ndarray]


@dataclasses.dataclass(frozen=True)
class Case:
    """One function in three forms: of Tensors twice, and given PyTorch, of its tensors.

    `random` marks functions that draw their own bits: their results are not compared one by one.
    """

    fused: Function
    composed: Function
    torch: Callable[[Any], Function]
    inputs: Arrays
    random: bool = False


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


def composed_gelu(x: Tensor) -> Tensor:
    """The exact GELU with erf by its series 7.1.26 in Abramowitz and Stegun: error 1.5e-7."""
    z = (x * x + 1e-30).sqrt() * 0.5**0.5
    t = 1.0 / (z * 0.3275911 + 1.0)
    series = 1.061405429
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * t + coefficient
    tail = series * t * (-z * z).exp()  # 1 - erf(|x| / sqrt 2)
    return functional.where(x.data > 0, x - x * tail * 0.5, x * tail * 0.5)


def composed_softmax(x: Tensor) -> Tensor:
    """Exponentials over their sum."""
    e = (x - x.max(-1, keepdims=True)).exp()
    return e / e.sum(-1, keepdims=True)


def composed_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The equation."""
    return composed_softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5) @ v


def composed_packed_attention(qkv: Tensor) -> Tensor:
    """Heads cut apart, the equation, heads merged."""
    b, n, width = qkv.shape
    q, k, v = qkv.reshape(b, n, 3, 4, width // 12).permute(2, 0, 3, 1, 4)
    return composed_attention(q, k, v).transpose(1, 2).reshape(b, n, width // 3)


def composed_cross_entropy(logits: Tensor, labels: numpy.ndarray) -> Tensor:
    """Logarithm of the softmax's entry."""
    return -composed_softmax(logits).log()[numpy.arange(len(labels)), labels].mean()


def composed_dropout(x: Tensor, rng: Generator) -> Tensor:
    """Uniform floats against a probability."""
    keep = rng.random(x.shape, numpy.float32) < KEEP
    return x * keep.astype(numpy.float32) * (1 / KEEP)


def patches_and_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The package's patch embedding, as (B, D, rows, columns)."""
    tokens = functional.linear(functional.patches(x, (4, 4)), weight.reshape(48, 48), bias)
    return tokens.transpose(1, 2).reshape(len(x), 48, 8, 8)


def cases() -> dict[str, Case]:
    """All ops, by name."""
    rng = numpy.random.default_rng(0)

    def normal(*shape: int) -> numpy.ndarray:
        return rng.standard_normal(shape, numpy.float32)

    f = functional
    tokens, hidden, scores = normal(32, 65, 48), normal(32, 65, 192), normal(32, 4, 65, 65)
    heads = [normal(32, 4, 65, 12) for _ in range(3)]
    labels = rng.integers(0, 10, 32)
    image = [normal(32, 3, 32, 32), normal(48, 3, 4, 4), normal(48)]
    bits = Generator(SFC64(0))
    norm = [tokens, normal(48), normal(48)]
    return {
        "linear 48 -> 192": _linear([tokens, normal(192, 48), normal(192)]),
        "linear 192 -> 48": _linear([hidden, normal(48, 192), normal(48)]),
        "layer_norm": Case(f.layer_norm, composed_layer_norm, _torch_layer_norm, norm),
        "gelu_tanh": Case(f.gelu_tanh, composed_gelu_tanh, _torch_gelu("tanh"), [hidden]),
        "gelu": Case(f.gelu, composed_gelu, _torch_gelu("none"), [hidden]),
        "softmax": Case(f.softmax, composed_softmax, _torch_softmax, [scores]),
        "attention": Case(
            f.scaled_dot_product_attention,
            composed_attention,
            lambda torch: torch.nn.functional.scaled_dot_product_attention,
            heads,
        ),
        "packed_attention": Case(
            lambda qkv: f.packed_attention(qkv, num_heads=4),
            composed_packed_attention,
            _torch_packed_attention,
            [normal(32, 65, 144)],
        ),
        "cross_entropy": Case(
            f.cross_entropy,
            composed_cross_entropy,
            lambda torch: torch.nn.functional.cross_entropy,
            [normal(32, 10), labels],
        ),
        "patch embedding": Case(
            patches_and_linear, lambda *x: f.conv2d(*x, stride=4), _torch_convolution, image
        ),
        "dropout 0.1": Case(
            lambda x: f.dropout(x, 1 - KEEP, bits),
            lambda x: composed_dropout(x, bits),
            lambda torch: lambda x: torch.nn.functional.dropout(x, 1 - KEEP),
            [tokens],
            random=True,
        ),
    }


def _linear(inputs: Arrays) -> Case:
    return Case(
        functional.linear, composed_linear, lambda torch: torch.nn.functional.linear, inputs
    )


def _torch_layer_norm(torch: Any) -> Function:
    return lambda x, weight, bias: torch.nn.functional.layer_norm(x, (48,), weight, bias, 1e-6)


def _torch_gelu(form: str) -> Callable[[Any], Function]:
    return lambda torch: lambda x: torch.nn.functional.gelu(x, approximate=form)


def _torch_softmax(torch: Any) -> Function:
    return lambda x: x.softmax(-1)


def _torch_convolution(torch: Any) -> Function:
    return lambda x, weight, bias: torch.nn.functional.conv2d(x, weight, bias, stride=4)


def _torch_packed_attention(torch: Any) -> Function:
    def attend(qkv: Any) -> Any:
        b, n, width = qkv.shape
        q, k, v = qkv.view(b, n, 3, 4, width // 12).permute(2, 0, 3, 1, 4)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return y.transpose(1, 2).reshape(b, n, width // 3)

    return attend


def numpy_call(function: Function, inputs: Arrays) -> Callable[[], Arrays]:
    """A forward and a backward pass with respect to all float inputs: value and gradients."""

    def run() -> Arrays:
        arguments = [Tensor(x, requires_grad=True) if x.dtype.kind == "f" else x for x in inputs]
        y = function(*arguments)
        leaves = [argument for argument in arguments if isinstance(argument, Tensor)]
        return [y.data, *gradients(y, leaves, cotangent(y.shape))]

    return run


def torch_call(torch: Any, function: Function, inputs: Arrays) -> Callable[[], Arrays]:
    """The same in PyTorch."""
    arguments = [torch.from_numpy(x).requires_grad_(x.dtype.kind == "f") for x in inputs]
    leaves = [argument for argument in arguments if argument.requires_grad]

    def run() -> Arrays:
        y = function(*arguments)
        found = torch.autograd.grad(y, leaves, torch.from_numpy(cotangent(tuple(y.shape))))
        return [y.detach().numpy(), *(gradient.numpy() for gradient in found)]

    return run


_cotangents: dict[tuple[int, ...], numpy.ndarray] = {}


def cotangent(shape: tuple[int, ...]) -> numpy.ndarray:
    """The gradient that the backward pass starts from: the same array whenever asked for."""
    if shape not in _cotangents:
        drawn = numpy.random.default_rng(1).standard_normal(shape or (1,), numpy.float32)
        _cotangents[shape] = drawn.reshape(shape)
    return _cotangents[shape]


def check(case: Case, results: dict[str, Arrays]) -> None:
    """Raise ValueError where two contenders do not agree."""
    reference = results[COMPOSED]
    for name, found in results.items():
        for position, (one, other) in enumerate(zip(found, reference, strict=True)):
            if case.random:
                _check_survivors(name, found[0], found[1], case.inputs[0])
                continue
            apart, size = float(abs(one - other).max()), float(abs(other).max())
            if one.shape != other.shape or not apart <= SCALE * size:
                raise ValueError(
                    f"[ops] {name} and {COMPOSED} differ by {apart:g} in result {position}, "
                    f"whose largest value is {size:g}"
                )


def _check_survivors(name: str, y: numpy.ndarray, dx: numpy.ndarray, x: numpy.ndarray) -> None:
    """Of dropout: as many values as expected, rescaled, and their gradients."""
    kept = y != 0
    expected = kept * cotangent(x.shape) / KEEP
    fits = numpy.allclose(y, kept * x / KEEP, atol=1e-5) and numpy.allclose(dx, expected, atol=1e-5)
    if not fits or abs(kept.mean() - KEEP) > 0.02:
        raise ValueError(f"[ops] {name} is no dropout of {1 - KEEP:g}")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A group of bars an op: times relative to the composed form's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row["case"] for row in rows))
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    shades = {COMPOSED: "silver", TORCH: "tab:orange", OURS: "tab:blue"}
    figure, axes = pyplot.subplots(figsize=(9, 6))
    height = 0.8 / len(contenders)
    for row in rows:
        offset = (contenders.index(row["contender"]) - (len(contenders) - 1) / 2) * height
        place = names.index(row["case"]) + offset
        axes.barh(place, row["ratio"], height, color=shades[row["contender"]])
        text = f" {1e3 * row['median_s']:.3g} ms"
        axes.text(row["ratio"], place, text, va="center", fontsize=7)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("time, relative to the composed form (forward + backward, one thread)")
    axes.set_xlim(0, 1.12 * max(row["ratio"] for row in rows))
    axes.legend(
        [pyplot.Rectangle((0, 0), 1, 1, color=shades[name]) for name in contenders],
        contenders,
        loc="upper right",
    )
    figure.tight_layout()
    figure.savefig(path, dpi=140)
    pyplot.close(figure)
    print(f"written: {path}")


def main(argv: list[str] | None = None) -> None:
    """Check, time, print, save."""
    options = parser(__doc__ or "", rounds=41).parse_args(argv)
    torch = None
    if available("torch"):
        import torch

        torch.set_num_threads(1)
    rows = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(WorkerPool(1))  # holds NumPy's BLAS to one thread
        for name, case in cases().items():
            contenders = {
                COMPOSED: numpy_call(case.composed, case.inputs),
                OURS: numpy_call(case.fused, case.inputs),
            }
            if torch is not None:
                contenders[TORCH] = torch_call(torch, case.torch(torch), case.inputs)
            check(case, {who: run() for who, run in contenders.items()})
            seconds = race_of_bursts(contenders, options.rounds)
            rows += with_ratio_to_torch(rows_of(name, seconds, COMPOSED))
    print_rows(rows)
    save(NAME, rows, options.out)
    draw(rows, options.out / f"{NAME}.png")


def race_of_bursts(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Mean seconds of a call, in bursts of CALLS."""

    def burst(call: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(CALLS):
                call()

        return run

    seconds = race({name: burst(call) for name, call in contenders.items()}, rounds=rounds)
    return {name: [value / CALLS for value in values] for name, values in seconds.items()}


def with_ratio_to_torch(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`ratio` stays the one to the composed form; None where PyTorch did not take part."""
    base = next((row["median_s"] for row in rows if row["contender"] == TORCH), None)
    return [row | {"to_PyTorch": base and row["median_s"] / base} for row in rows]
