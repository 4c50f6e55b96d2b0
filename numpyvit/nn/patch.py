"""From an image to a sequence of tokens: what all stems share, and the cutting into patches."""

from __future__ import annotations

from numpy.random import Generator, default_rng

from numpyvit import functional
from numpyvit.nn.basic import Conv2d, check_positive
from numpyvit.nn.module import Module
from numpyvit.tensor import Tensor

Pair = tuple[int, int]
Size = int | Pair


def as_pair(size: Size) -> Pair:
    """(height, width) of a size that may be given as one number."""
    return size if isinstance(size, tuple) else (size, size)


class Stem(Module):
    """The base of all stems: images (B, C, H, W) to tokens (B, N, D), a grid of them row by row.

    Sizes are one number or (height, width). One token stands for a patch: `grid` (rows, columns)
    has so many as fit the image. With `pad` the image is filled up with zeros at the bottom and on
    the right where they do not fit; without, that is a ValueError. `proj` is the convolution that
    gives the tokens, `pixel_filters` the one that sees the pixels.
    """

    proj: Conv2d

    def __init__(self, image_size: Size, patch_size: Size, *, pad: bool = False) -> None:
        self.image_shape, self.patch_shape = as_pair(image_size), as_pair(patch_size)
        image, patch, name = self.image_shape, self.patch_shape, type(self).__name__
        check_positive(name, image_size=min(image), patch_size=min(patch))
        self.grid = -(-image[0] // patch[0]), -(-image[1] // patch[1])
        self.missing = self.grid[0] * patch[0] - image[0], self.grid[1] * patch[1] - image[1]
        if any(self.missing) and not pad:
            raise ValueError(
                f"[{name}] expected an image size that is a multiple of the patch size "
                f"{patch_size}, got {image_size}; take another, or pad=True"
            )

    @property
    def num_patches(self) -> int:
        """How many tokens an image becomes."""
        return self.grid[0] * self.grid[1]

    @property
    def pixel_filters(self) -> Conv2d:
        """The convolution that sees the pixels: what people look at."""
        return self.proj

    @property
    def multiply_adds(self) -> int:
        """Of the matrix products for one image."""
        return self.num_patches * self.proj.weight.size

    def padded(self, images: Tensor) -> Tensor:
        """The images, filled up to whole patches; ValueError for images of another size."""
        expected = (self.pixel_filters.weight.shape[1], *self.image_shape)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise ValueError(
                f"[{type(self).__name__}] expected images (B, {', '.join(map(str, expected))}), "
                f"got {images.shape}; resize the images or build the model for their size"
            )
        if not any(self.missing):
            return images
        below, right = self.missing
        return functional.pad(images, ((0, 0), (0, 0), (0, below), (0, right)))


def as_tokens(features: Tensor) -> Tensor:
    """(B, D, H, W) -> (B, N, D), rows first."""
    return features.reshape(*features.shape[:2], -1).transpose(1, 2)  # b d h w -> b (h w) d


class PatchEmbed(Stem):
    """Cuts an image into patches and projects each to a token: (B, C, H, W) -> (B, N, D).

    The projection is a convolution whose stride is its kernel (Dosovitskiy et al. 2021, section
    3.1), with the weight (D, C, P, Q) of one. As its windows do not overlap, it is the same as a
    linear layer on flattened patches, which is the faster way and the default;
    `as_convolution=True` takes the other.
    """

    def __init__(
        self,
        image_size: Size,
        patch_size: Size,
        in_channels: int,
        embed_dim: int,
        *,
        bias: bool = True,
        pad: bool = False,
        as_convolution: bool = False,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(image_size, patch_size, pad=pad)
        self.as_convolution = as_convolution
        self.proj = Conv2d(
            in_channels,
            embed_dim,
            self.patch_shape,
            stride=self.patch_shape,
            bias=bias,
            rng=rng or default_rng(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D), rows of patches first."""
        images = self.padded(images)
        if self.as_convolution:
            return as_tokens(self.proj(images))
        weight = self.proj.weight
        patches = functional.patches(images, self.patch_shape)
        return functional.linear(patches, weight.reshape(weight.shape[0], -1), self.proj.bias)
