"""Stems against the same layers of PyTorch, on oblong images, padded and not; their costs."""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from core.test_layers import assert_parity, share
from tolerances import assert_close, assert_same_bits

from numpyvit import Tensor, functional, gradients, nn

# One stem of each kind: its class and its options.
STEMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "linear": (nn.PatchEmbed, {}),
    "convolution": (nn.PatchEmbed, {"as_convolution": True}),
    "overlapping": (nn.OverlappingPatchEmbed, {}),
    "convolutions": (nn.ConvolutionalStem, {}),
    "hybrid": (nn.HybridStem, {}),
}
# Image and patch, as they are given, and the grid of patches.
SIZES: dict[str, tuple[Any, Any, tuple[int, int]]] = {
    "squares": (8, 4, (2, 2)),
    "an oblong image": ((8, 12), 4, (2, 3)),
    "oblong patches": ((8, 12), (4, 2), (2, 6)),
    "patches on end": ((8, 8), (2, 8), (4, 1)),
    "padded": ((9, 7), 4, (3, 2)),
    "padded below": ((7, 8), (2, 4), (4, 2)),
}

each_stem = pytest.mark.parametrize("kind", STEMS)
each_size = pytest.mark.parametrize("size", SIZES)


def stem(kind: str, image: Any, patch: Any, dim: int = 12, seed: int = 0) -> Any:
    """A stem of the kind, of 3 channels; one that may pad."""
    make, options = STEMS[kind]
    return make(image, patch, 3, dim, pad=True, rng=np.random.default_rng(seed), **options)


def torchs(torch: ModuleType, ours: Any) -> Any:
    """The same stem of PyTorch's layers, under the same names."""
    makers = {
        nn.PatchEmbed: _patches,
        nn.OverlappingPatchEmbed: _overlapping,
        nn.ConvolutionalStem: _convolutions,
        nn.HybridStem: _hybrid,
    }
    layers, features = makers[type(ours)](torch, ours)

    class Theirs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, layer in layers.items():
                self.add_module(name, layer)

        def forward(self, x: Any) -> Any:
            below, right = (-n % p for n, p in zip(x.shape[2:], ours.patch_shape, strict=True))
            return features(torch.nn.functional.pad(x, (0, right, 0, below)))

    return Theirs()


def _tokens(features: Any) -> Any:
    return features.flatten(2).transpose(1, 2)


def _patches(torch: ModuleType, ours: Any) -> Any:
    proj = torch.nn.Conv2d(3, 12, ours.patch_shape, stride=ours.patch_shape)
    return {"proj": proj}, lambda x: _tokens(proj(x))


def _overlapping(torch: ModuleType, ours: Any) -> Any:
    (p, q), norm = ours.patch_shape, torch.nn.LayerNorm(12, 1e-6)
    proj = torch.nn.Conv2d(3, 12, (2 * p - 1, 2 * q - 1), (p, q), (p - 1, q - 1))
    return {"proj": proj, "norm": norm}, lambda x: norm(_tokens(proj(x)))


def _convolutions(torch: ModuleType, ours: Any) -> Any:
    backbone, before = torch.nn.ModuleList(), 3
    for stride, width in zip(*_stages(ours), strict=True):
        conv = torch.nn.Conv2d(before, width, 3, stride, 1, bias=False)
        norm = torch.nn.LayerNorm(width, 1e-6)
        backbone.append(torch.nn.ModuleDict({"conv": conv, "norm": norm}))
        before = width
    proj = torch.nn.Conv2d(12, 12, 1)

    def features(x: Any) -> Any:
        for layer in backbone:
            x = layer["norm"](layer["conv"](x).movedim(1, -1)).movedim(-1, 1).relu()
        return _tokens(proj(x))

    return {"backbone": backbone, "proj": proj}, features


def _stages(ours: Any) -> tuple[list[Any], list[int]]:
    """Strides and widths, written out: patches of 4 and of 2 along an axis, or 8."""
    return {
        (4, 4): ([2, 2], [6, 12]),
        (4, 2): ([2, (2, 1)], [6, 12]),
        (2, 4): ([2, (1, 2)], [6, 12]),
        (2, 8): ([2, (1, 2), (1, 2)], [4, 6, 12]),
    }[ours.patch_shape]


def _hybrid(torch: ModuleType, ours: Any) -> Any:
    class Standardized(torch.nn.Conv2d):
        def forward(self, x: Any) -> Any:
            variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
            weight = (self.weight - mean) / (variance + 1e-8).sqrt()
            return torch.nn.functional.conv2d(x, weight, None, self.stride, self.padding)

    def layer(before: int, after: int, kernel: int, stride: Any = 1) -> Any:
        conv = Standardized(before, after, kernel, stride, kernel // 2, bias=False)
        return conv, torch.nn.GroupNorm(1 if after == 4 else math.gcd(after, 32), after)

    def pair(conv: Any, norm: Any) -> Any:
        return torch.nn.ModuleDict({"conv": conv, "norm": norm})

    class Bottleneck(torch.nn.Module):
        def __init__(self, before: int, after: int, stride: Any) -> None:
            super().__init__()
            self.downsample = pair(*layer(before, after, 1, stride)) if stride != 1 else None
            self.conv1, self.norm1 = layer(before, after // 4, 1)
            self.conv2, self.norm2 = layer(after // 4, after // 4, 3, stride)
            self.conv3, self.norm3 = layer(after // 4, after, 1)

        def forward(self, x: Any) -> Any:
            y = self.norm1(self.conv1(x)).relu()
            y = self.norm3(self.conv3(self.norm2(self.conv2(y)).relu()))
            down = self.downsample
            return (y + (x if down is None else down["norm"](down["conv"](x)))).relu()

    strides, widths = _stages(ours)
    first, stages = pair(*layer(3, widths[0], 3, strides[0])), torch.nn.ModuleList()
    before = widths[0]
    for stride, width in zip(strides[1:], widths[1:], strict=True):
        blocks = [Bottleneck(before, 2 * width, stride), Bottleneck(2 * width, 2 * width, 1)]
        stages.append(torch.nn.ModuleDict({"blocks": torch.nn.ModuleList(blocks)}))
        before = 2 * width
    proj = torch.nn.Conv2d(before, 12, 1)

    def features(x: Any) -> Any:
        x = first["norm"](first["conv"](x)).relu()
        for stage in stages:
            for block in stage["blocks"]:
                x = block(x)
        return _tokens(proj(x))

    backbone = torch.nn.ModuleDict({"stem": first, "stages": stages})
    return {"backbone": backbone, "proj": proj}, features


@each_stem
@each_size
def test_a_stem_and_all_its_gradients_are_pytorchs(
    kind: str,
    size: str,
    torch: ModuleType,
    device: str,
    rng: np.random.Generator,
    dtype: np.dtype,
) -> None:
    image, patch, grid = SIZES[size]
    ours = stem(kind, image, patch)
    x = rng.standard_normal((2, 3, *ours.image_shape)).astype(dtype)
    assert_parity(torch, device, ours, share(ours, torchs(torch, ours), dtype), x)
    assert ours.grid == grid
    assert ours.num_patches == math.prod(grid)


@each_stem
@each_size
def test_the_multiply_adds_of_a_stem_are_those_of_its_products(
    kind: str, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []

    def counting(op: Any) -> Any:
        def counted_op(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
            y = op(x, weight, *rest)
            counted.append(y.size * weight[0].size)
            return y

        return counted_op

    for name in ("conv2d", "linear"):
        monkeypatch.setattr(functional, name, counting(getattr(functional, name)))
    image, patch, _ = SIZES[size]
    ours = stem(kind, image, patch)
    ours(Tensor(np.zeros((1, 3, *ours.image_shape), "float32")))
    assert ours.multiply_adds == sum(counted)


@each_stem
def test_a_stem_does_not_work_out_the_images_gradient_unless_it_is_wanted(
    kind: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, channels = sys.modules["numpyvit.ops.convolution"], []
    fold = module._fold

    def watched(windows: np.ndarray, *rest: Any) -> np.ndarray:
        channels.append(windows.shape[-1])
        return fold(windows, *rest)

    monkeypatch.setattr(module, "_fold", watched)
    ours, x = stem(kind, 8, 4), rng.standard_normal((1, 3, 8, 8)).astype("float32")
    gradients(ours(Tensor(x)).sum(), ours.parameters())
    assert 3 not in channels
    ours(Tensor(x, requires_grad=True)).sum().backward()
    assert (3 in channels) == (kind != "linear")


@each_stem
def test_an_image_does_not_depend_on_its_batch(kind: str, rng: np.random.Generator) -> None:
    ours, x = stem(kind, 8, 4), rng.standard_normal((3, 3, 8, 8))
    ours.to("float64")
    x[0] *= 100
    assert_close(ours(Tensor(x))[1:], ours(Tensor(x[1:])))
    assert_same_bits(ours(Tensor(x)), ours(Tensor(x)))


@each_stem
def test_padding_is_zeros_below_and_on_the_right(kind: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 9, 7)).astype("float32")
    whole = np.zeros((2, 3, 12, 8), "float32")
    whole[:, :, :9, :7] = x
    assert_same_bits(stem(kind, (9, 7), 4)(Tensor(x)), stem(kind, (12, 8), 4)(Tensor(whole)))


def test_where_the_pixels_are_seen() -> None:
    shapes = {kind: stem(kind, 8, (4, 2)).pixel_filters.weight.shape for kind in STEMS}
    assert shapes == {
        "linear": (12, 3, 4, 2),
        "convolution": (12, 3, 4, 2),
        "overlapping": (12, 3, 7, 3),
        "convolutions": (6, 3, 3, 3),
        "hybrid": (6, 3, 3, 3),
    }


def test_a_hybrid_has_timms_names() -> None:
    names = dict(nn.HybridStem(8, 4, 3, 8, depth=1).named_parameters())
    block = "backbone.stages.0.blocks.0"
    expected = ["backbone.stem.conv.weight", "backbone.stem.norm.weight", "backbone.stem.norm.bias"]
    expected += [
        f"{block}.downsample.{part}" for part in ("conv.weight", "norm.weight", "norm.bias")
    ]
    for n in (1, 2, 3):
        expected += [f"{block}.conv{n}.weight", f"{block}.norm{n}.weight", f"{block}.norm{n}.bias"]
    assert list(names) == [*expected, "proj.weight", "proj.bias"]


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 6, 8, 12, 16, 32, 64])
@pytest.mark.parametrize(("image", "patch"), [(2, 2), (4, 4), (16, 16), (32, 16), (8, (2, 8))])
@pytest.mark.parametrize("kind", ["convolutions", "hybrid"])
def test_tokens_depend_on_the_image_however_narrow_they_are(
    kind: str, image: Any, patch: Any, dim: int, rng: np.random.Generator
) -> None:
    ours = stem(kind, image, patch, dim).to("float64")
    images = rng.standard_normal((8, 3, image, image))
    for parameter in ours.parameters():
        parameter.data += 0.1 * rng.standard_normal(parameter.shape)
    tokens = ours(Tensor(images)).data
    assert tokens.std(0).max() > 0.01 * np.abs(tokens).max()


@pytest.mark.parametrize("dim", [24, 48, 96, 192, 384])
def test_groups_are_as_many_as_divide_the_widths_that_are_trained(dim: int) -> None:
    assert nn.GroupNorm(dim).num_groups == math.gcd(dim, 32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.PatchEmbed((8, 9), 4, 3, 8), r"multiple of the patch size 4, got \(8, 9\)"),
        (lambda: nn.ConvolutionalStem(9, 4, 3, 8), "ConvolutionalStem.*got 9; .* pad=True"),
        (lambda: nn.ConvolutionalStem(12, 6, 3, 8), "powers of 2, got 6 x 6"),
        (lambda: nn.HybridStem(12, (4, 3), 3, 8), "HybridStem.*powers of 2, got 4 x 3"),
        (lambda: nn.HybridStem(4, 1, 3, 8), "powers of 2, got 1 x 1"),
        (lambda: nn.PatchEmbed((8, 0), 4, 3, 8), "'image_size' must be positive but got 0"),
        (
            lambda: stem("hybrid", (9, 7), 4)(Tensor(np.zeros((1, 3, 7, 9), "float32"))),
            r"images \(B, 3, 9, 7\), got \(1, 3, 7, 9\)",
        ),
    ],
)
def test_a_size_that_a_stem_cannot_take_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
