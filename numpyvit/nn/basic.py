"""The layers that every network has: linear, convolution, normalisation, dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.random import Generator, default_rng

from numpyvit import functional
from numpyvit.backend import suggest
from numpyvit.nn import init
from numpyvit.nn.module import Module, Parameter
from numpyvit.nn.randomness import current_generator
from numpyvit.tensor import Tensor

Norm = Callable[[int], Any]  # from a width to a normalisation, a Module with a `weight`

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": functional.gelu_tanh,
    "quick_gelu": functional.quick_gelu,
    "relu": functional.relu,
    "silu": functional.silu,
}


def activation(name: str) -> Callable[..., Tensor]:
    """The pointwise function called `name`; ValueError that suggests one for another name."""
    if name not in ACTIVATIONS:
        raise ValueError(f"[activation] unknown name {name!r}; {suggest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]


class Identity(Module):
    """Gives back what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        """`x`."""
        return x


class Linear(Module):
    """`x @ weight.T + bias`: (..., in_features) -> (..., out_features).

    `weight` (out_features, in_features), `bias` (out_features,) or None. PyTorch's layout and
    starting values.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: Generator | None = None,
    ) -> None:
        check_positive("Linear", in_features=in_features, out_features=out_features)
        rng = rng or default_rng()
        self.weight = Parameter(init.fan_in_uniform((out_features, in_features), rng))
        bound = in_features**-0.5
        self.bias = Parameter(init.uniform((out_features,), rng, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return functional.linear(x, self.weight, self.bias)


class Conv2d(Module):
    """Convolution of images: (B, C, H, W) -> (B, O, rows, columns); see `functional.conv2d`.

    `weight` (O, C, P, Q), `bias` (O,) or None. PyTorch's layout and starting values.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        bias: bool = True,
        *,
        rng: Generator | None = None,
    ) -> None:
        kernel = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        check_positive(
            "Conv2d",
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=min(kernel),
        )
        rng = rng or default_rng()
        shape = (out_channels, in_channels, *kernel)
        self.stride, self.padding = stride, padding
        self.weight = Parameter(init.fan_in_uniform(shape, rng))
        bound = (in_channels * kernel[0] * kernel[1]) ** -0.5
        self.bias = Parameter(init.uniform((out_channels,), rng, bound)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, rows, columns)."""
        return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def extra_repr(self) -> str:
        """Stride and padding."""
        return f"stride={self.stride}, padding={self.padding}"


class LayerNorm(Module):
    """Each vector along the last axis brought to mean 0 and variance 1, then scaled and shifted.

    `weight`, `bias` (dim,). `eps` is 1e-6 in timm's and torchvision's ViTs, 1e-12 in Hugging
    Face's, 1e-5 in `torch.nn.LayerNorm`.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        check_positive("LayerNorm", dim=dim, eps=eps)
        self.eps = eps
        self.weight = Parameter(init.ones((dim,)))
        self.bias = Parameter(init.zeros((dim,)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return functional.layer_norm(x, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The epsilon."""
        return f"eps={self.eps:g}"


class RMSNorm(Module):
    """Each vector along the last axis divided by its root mean square, then scaled.

    `weight` (dim,), no bias (Zhang and Sennrich 2019). `eps` is 1e-6 in timm; `torch.nn.RMSNorm`
    takes the float type's own by default.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        check_positive("RMSNorm", dim=dim, eps=eps)
        self.eps = eps
        self.weight = Parameter(init.ones((dim,)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return functional.rms_norm(x, self.weight, self.eps)

    def extra_repr(self) -> str:
        """The epsilon."""
        return f"eps={self.eps:g}"


class LayerScale(Module):
    """Each channel scaled by a learned number that starts small (Touvron et al. 2021, CaiT).

    `gamma` (dim,), all `value` at the start.
    """

    def __init__(self, dim: int, value: float = 1e-5) -> None:
        check_positive("LayerScale", dim=dim)
        self.gamma = Parameter(value * init.ones((dim,)))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return x * self.gamma


class _Noise(Module):
    """What dropout and stochastic depth share: a probability, and nothing to do in `eval()`."""

    op: Any

    def __init__(self, p: float = 0.0) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"[{type(self).__name__}] expected a probability 0 <= p < 1, got {p}")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """The shape of `x`; `x` itself when not training or when `p` is 0."""
        if not self.training or self.p == 0:
            return x
        return type(self).op(x, self.p, current_generator())

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p:g}"


class Dropout(_Noise):
    """Zeroes values with probability `p` while training and scales the rest by 1/(1-p)."""

    op = staticmethod(functional.dropout)


class DropPath(_Noise):
    """Zeroes whole samples of a residual branch with probability `p` while training (rescaled)."""

    op = staticmethod(functional.drop_path)


def check_positive(component: str, **sizes: float) -> None:
    """Raise ValueError for the first of `sizes` that is not above 0."""
    for name, size in sizes.items():
        if not size > 0:
            raise ValueError(f"[{component}] {name!r} must be positive but got {size}")
