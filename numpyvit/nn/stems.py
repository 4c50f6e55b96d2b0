"""Stems that look beyond a patch: overlapping patches, a few convolutions, a small CNN."""

from __future__ import annotations

import math
import operator
from typing import Any

from numpy.random import Generator, default_rng

from numpyvit import functional
from numpyvit.nn import init
from numpyvit.nn.basic import Conv2d, LayerNorm
from numpyvit.nn.module import Module, Parameter
from numpyvit.nn.patch import Pair, Size, Stem, as_tokens
from numpyvit.tensor import Tensor

GROUPS = 32  # of channels that are normalised together, at most
_GROUP = 3  # channels at least in a group: fewer can leave nothing of the image
_NARROWEST = 4  # channels at least between convolutions, for the same reason
_WEIGHT_EPS = 1e-8  # timm's for hybrids


class OverlappingPatchEmbed(Stem):
    """Each token sees half of the patches around its own: (B, C, H, W) -> (B, N, D).

    A convolution with a kernel of 2P - 1, stride P and padding P - 1, then a LayerNorm (Wang et al.
    2022, PVT v2, "Overlapping patch embedding").
    """

    def __init__(
        self,
        image_size: Size,
        patch_size: Size,
        in_channels: int,
        embed_dim: int,
        norm_eps: float = 1e-6,
        *,
        pad: bool = False,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(image_size, patch_size, pad=pad)
        p, q = self.patch_shape
        kernel, padding = (2 * p - 1, 2 * q - 1), (p - 1, q - 1)
        self.proj = Conv2d(in_channels, embed_dim, kernel, (p, q), padding, rng=rng)
        self.norm = LayerNorm(embed_dim, norm_eps)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D), rows of patches first."""
        return self.norm(as_tokens(self.proj(self.padded(images))))


class ConvolutionalStem(Stem):
    """Small convolutions that halve the image, then one of 1 x 1: (B, C, H, W) -> (B, N, D).

    3 x 3, stride 2, each followed by a norm and ReLU, their widths doubling up to D (Xiao et al.
    2021, the stem of ViT_C). Theirs normalise over the batch; here a LayerNorm over the channels
    does it, so that images do not influence each other. ValueError for patches whose sides are no
    powers of 2.
    """

    def __init__(
        self,
        image_size: Size,
        patch_size: Size,
        in_channels: int,
        embed_dim: int,
        norm_eps: float = 1e-6,
        *,
        pad: bool = False,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(image_size, patch_size, pad=pad)
        rng = rng or default_rng()
        self.strides = halvings("ConvolutionalStem", self.patch_shape)
        widths = [in_channels, *_doubling(embed_dim, len(self.strides))]
        self.backbone = [
            _NormedConv2d(before, after, stride, norm_eps, rng)
            for before, after, stride in zip(widths, widths[1:], self.strides, strict=False)
        ]
        self.proj = Conv2d(widths[-1], embed_dim, 1, rng=rng)

    @property
    def pixel_filters(self) -> Conv2d:
        """The first convolution."""
        return self.backbone[0].conv

    @property
    def multiply_adds(self) -> int:
        """Of the matrix products for one image."""
        places = _places(self.num_patches, self.strides)[1:]
        sizes = [layer.conv.weight.size for layer in self.backbone]
        return super().multiply_adds + sum(map(operator.mul, places, sizes))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D), rows of patches first."""
        x = self.padded(images)
        for layer in self.backbone:
            x = layer(x)
        return as_tokens(self.proj(x))


class _NormedConv2d(Module):
    """Convolution of 3 x 3, LayerNorm over the channels, ReLU: (B, C, H, W) -> (B, O, ., .)."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: Pair, norm_eps: float, rng: Generator
    ) -> None:
        self.conv = Conv2d(in_channels, out_channels, 3, stride, 1, bias=False, rng=rng)
        self.norm = LayerNorm(out_channels, norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, rows, columns)."""
        x = self.norm(self.conv(x).permute(0, 2, 3, 1))  # b c h w -> b h w c
        return functional.relu(x).permute(0, 3, 1, 2)


class HybridStem(Stem):
    """A small residual network, then a convolution of 1 x 1: (B, C, H, W) -> (B, N, D).

    The CNN in front of R26+ViT (Dosovitskiy et al. 2021, section 3.1; Steiner et al. 2022) made
    small, under timm's names: standardised weights, groups of channels normalised, `depth`
    bottlenecks a stage. Where the original starts with 7 x 7, stride 2, and a pooling, this starts
    with 3 x 3, stride 2, and every stage halves the image: the last has 2D channels. ValueError for
    patches whose sides are no powers of 2.
    """

    def __init__(
        self,
        image_size: Size,
        patch_size: Size,
        in_channels: int,
        embed_dim: int,
        *,
        depth: int = 2,
        pad: bool = False,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(image_size, patch_size, pad=pad)
        rng = rng or default_rng()
        self.strides = halvings("HybridStem", self.patch_shape)
        widths = _doubling(embed_dim, len(self.strides))
        first = StandardizedConv2d(in_channels, widths[0], 3, self.strides[0], rng=rng)
        width, stages = widths[0], []
        for after, stride in zip(widths[1:], self.strides[1:], strict=True):
            blocks = [Bottleneck(width, 2 * after, stride, rng=rng)]
            blocks += [Bottleneck(2 * after, 2 * after, rng=rng) for _ in range(depth - 1)]
            stages.append({"blocks": blocks})
            width = 2 * after
        self.backbone: dict[str, Any] = {
            "stem": {"conv": first, "norm": GroupNorm(widths[0])},
            "stages": stages,
        }
        self.proj = Conv2d(width, embed_dim, 1, rng=rng)

    @property
    def pixel_filters(self) -> Conv2d:
        """The first convolution."""
        return self.backbone["stem"]["conv"]

    @property
    def multiply_adds(self) -> int:
        """Of the matrix products for one image."""
        places = _places(self.num_patches, self.strides)
        total = super().multiply_adds + places[1] * self.pixel_filters.weight.size
        for number, stage in enumerate(self.backbone["stages"], start=1):
            before, after = places[number : number + 2]
            for block in stage["blocks"]:
                total += block.multiply_adds(before, after)
                before = after
        return total

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D), rows of patches first."""
        stem = self.backbone["stem"]
        x = functional.relu(stem["norm"](stem["conv"](self.padded(images))))
        for stage in self.backbone["stages"]:
            for block in stage["blocks"]:
                x = block(x)
        return as_tokens(self.proj(x))


class StandardizedConv2d(Conv2d):
    """Convolution whose filters have mean 0 and variance 1 (Qiao et al. 2019); the size is kept.

    `weight` (O, C, P, P) as it is before that; no bias. A stride divides the size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int | Pair = 1,
        *,
        rng: Generator | None = None,
    ) -> None:
        padding = kernel_size // 2
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, False, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, rows, columns)."""
        axes = (1, 2, 3)
        centred = self.weight - self.weight.mean(axes, keepdims=True)
        variance = (centred * centred).mean(axes, keepdims=True)
        weight = centred / (variance + _WEIGHT_EPS).sqrt()
        return functional.conv2d(x, weight, None, self.stride, self.padding)


class GroupNorm(Module):
    """See `functional.group_norm`: (B, C, ...), kept. `weight`, `bias` (dim,)."""

    def __init__(self, dim: int, num_groups: int | None = None, eps: float = 1e-5) -> None:
        self.num_groups, self.eps = num_groups or _groups(dim), eps
        self.weight = Parameter(init.ones((dim,)))
        self.bias = Parameter(init.zeros((dim,)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...), kept."""
        return functional.group_norm(x, self.weight, self.bias, self.num_groups, self.eps)

    def extra_repr(self) -> str:
        """Groups and epsilon."""
        return f"num_groups={self.num_groups}, eps={self.eps:g}"


class Bottleneck(Module):
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1 beside a shortcut: (B, C, H, W) -> (B, O, ., .).

    The inner width is a quarter of O; a norm follows each, and ReLU (He et al. 2016, with the
    stride in the middle).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int | Pair = 1,
        *,
        rng: Generator | None = None,
    ) -> None:
        rng = rng or default_rng()
        inner = max(out_channels // 4, 1)
        self.downsample: dict[str, Any] = {}
        if in_channels != out_channels or stride != 1:
            shortcut = StandardizedConv2d(in_channels, out_channels, 1, stride, rng=rng)
            self.downsample = {"conv": shortcut, "norm": GroupNorm(out_channels)}
        self.conv1 = StandardizedConv2d(in_channels, inner, 1, rng=rng)
        self.norm1 = GroupNorm(inner)
        self.conv2 = StandardizedConv2d(inner, inner, 3, stride, rng=rng)
        self.norm2 = GroupNorm(inner)
        self.conv3 = StandardizedConv2d(inner, out_channels, 1, rng=rng)
        self.norm3 = GroupNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, rows, columns)."""
        y = functional.relu(self.norm1(self.conv1(x)))
        y = functional.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        for layer in self.downsample.values():
            x = layer(x)
        return functional.relu(x + y)

    def multiply_adds(self, before: int, after: int) -> int:
        """Of the matrix products, with so many places in its input and in its output."""
        later = [self.conv2, self.conv3, *([self.downsample["conv"]] if self.downsample else [])]
        return before * self.conv1.weight.size + after * sum(conv.weight.size for conv in later)


def halvings(component: str, patch: Pair) -> list[Pair]:
    """Strides of 2, and of 1 for an axis that is done, that make one place of a patch."""
    steps = [side.bit_length() - 1 for side in patch]
    if max(patch) < 2 or any(1 << count != side for count, side in zip(steps, patch, strict=True)):
        raise ValueError(
            f"[{component}] expected a patch whose sides are powers of 2, got {patch[0]} x "
            f"{patch[1]}; take another patch_size or stem"
        )
    return [(1 + (step < steps[0]), 1 + (step < steps[1])) for step in range(max(steps))]


def _doubling(width: int, count: int) -> list[int]:
    """`count` widths, each about twice the one before, up to `width`, but none too narrow."""
    return [max(width >> left, _NARROWEST) for left in reversed(range(count))]


def _groups(dim: int) -> int:
    """How many groups: a power of 2 that divides `dim` channels and leaves enough in each."""
    most = max(dim // _GROUP, 1)
    return math.gcd(dim, GROUPS, 1 << (most.bit_length() - 1))


def _places(patches: int, strides: list[Pair]) -> list[int]:
    """How many places there are before each of the strides, and after the last."""
    places = [patches]
    for down, right in reversed(strides):
        places.insert(0, places[0] * down * right)
    return places
