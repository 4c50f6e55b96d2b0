"""Attention inside windows that shift from block to block, and the merging of patches (Swin)."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy
from numpy.random import Generator, default_rng

from numpyvit import functional
from numpyvit.nn import init
from numpyvit.nn.attention import check_heads
from numpyvit.nn.basic import Dropout, LayerNorm, Linear, check_positive
from numpyvit.nn.module import Module, Parameter
from numpyvit.nn.patch import PatchEmbed
from numpyvit.nn.randomness import current_generator
from numpyvit.ops.windows import APART, inverse_order
from numpyvit.tensor import Tensor

Indices = Any  # an array of integers of NumPy


@dataclasses.dataclass(frozen=True)
class Windows:
    """A grid of `grid` x `grid` tokens cut into windows of `size` x `size`, shifted by `shift`.

    The shift is cyclic: each axis is read from token `shift` on, and what comes before it follows
    at the end. Where windows do not divide the grid, zeros are put in below and on the right: after
    the shift, as timm does, or with `pad_first` before it, as torchvision and Hugging Face do.
    """

    grid: int
    size: int
    shift: int = 0
    pad_first: bool = False

    def __post_init__(self) -> None:
        check_positive("Windows", grid=self.grid, size=self.size)
        if not 0 <= self.shift < self.size:
            raise ValueError(
                f"[Windows] expected a shift from 0 to below the window's {self.size} tokens, "
                f"got {self.shift}"
            )

    @property
    def per_side(self) -> int:
        """Windows along a side of the grid, padding included."""
        return -(-self.grid // self.size)

    @property
    def count(self) -> int:
        """How many windows there are."""
        return self.per_side**2

    @property
    def is_padded(self) -> bool:
        """Whether some windows have places without a token."""
        return self.per_side * self.size != self.grid

    @functools.cached_property
    def order(self) -> Indices:
        """Window after window, which token of the grid (row by row) stands there; -1 for none."""
        side = self.per_side * self.size
        places = numpy.full((side, side), -1)
        tokens = numpy.arange(self.grid**2).reshape(self.grid, self.grid)
        if self.pad_first:
            places[: self.grid, : self.grid] = tokens
            places = numpy.roll(places, (-self.shift, -self.shift), (0, 1))
        else:
            tokens = numpy.roll(tokens, (-self.shift, -self.shift), (0, 1))
            places[: self.grid, : self.grid] = tokens
        return self._cut(places).ravel()

    @property
    def order_kept(self) -> Indices:
        """The order that a block's tokens come and go in: `order`, or by rows if that has gaps."""
        return numpy.arange(self.grid**2) if self.is_padded else self.order

    @functools.cached_property
    def order_back(self) -> Indices:
        """Where each token of the grid, row by row, stands in `order`."""
        return inverse_order(self.order, self.grid**2)

    @functools.cached_property
    def apart(self) -> Indices | None:
        """Which tokens of a window only the shift brought together: (count, size^2, size^2).

        None without a shift. The last window of each axis has tokens from both ends of the grid.
        """
        if not self.shift:
            return None
        place = numpy.arange(self.per_side * self.size)
        end = place.size
        region = (place >= end - self.size).astype(int) + (place >= end - self.shift)
        regions = self._cut(3 * region[:, None] + region)
        return regions[:, :, None] != regions[:, None]

    def _cut(self, places: Indices) -> Indices:
        """(rows, columns) -> (count, size^2), windows in rows."""
        cut = places.reshape(self.per_side, self.size, self.per_side, self.size)
        return cut.swapaxes(1, 2).reshape(self.count, self.size**2)  # (h r) (w c) -> (h w) (r c)


def merging_order(grid: int) -> Indices:
    """Four tokens of the grid for each of the next, which has a quarter of them: (N, 4).

    Of the two rows and columns that become one, in the order of the published weights: top left,
    bottom left, top right, bottom right; -1 where an odd grid has none.
    """
    padded = numpy.full((grid + grid % 2,) * 2, -1)
    padded[:grid, :grid] = numpy.arange(grid**2).reshape(grid, grid)
    half = len(padded) // 2
    # (h r) (w c) -> (h w) (c r)
    return padded.reshape(half, 2, half, 2).transpose(0, 2, 3, 1).reshape(half * half, 4)


class WindowAttention(Module):
    """Multi-head self-attention inside windows (Liu et al. 2021, section 3.2): (B, N, dim), kept.

    `relative_position_bias_table` ((2w-1)^2, H) is added to the scores by how far two tokens lie
    apart; `qkv` and `proj` as in `Attention`. Tokens come and go as `windows.order_kept`
    says, so that cutting them into windows costs nothing unless windows have empty places.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        windows: Windows,
        *,
        qkv_bias: bool = True,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        rng: Generator | None = None,
    ) -> None:
        check_heads(dim, num_heads)
        rng = rng or default_rng()
        self.num_heads, self.windows = num_heads, windows
        rows = (2 * windows.size - 1) ** 2
        self.relative_position_bias_table = Parameter(init.trunc_normal((rows, num_heads), rng))
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias, rng=rng)
        self.attention_drop = Dropout(attention_dropout)
        self.proj = Linear(dim, dim, rng=rng)
        self.proj_drop = Dropout(dropout)

    def forward(
        self, x: Tensor, maps: list[Tensor] | None = None, keep: int | None = None
    ) -> Tensor:
        """(B, N, dim) -> (B, N, dim); the weights of all windows are appended to `maps` if given.

        They are (B * windows, H, w*w, w*w), an image's windows in rows. `keep` as in `Attention`.
        """
        b, n, dim = x.shape
        if n != self.windows.grid**2:
            raise ValueError(
                f"[WindowAttention] expected {self.windows.grid} x {self.windows.grid} tokens, "
                f"got {n}; build the model for the size of the images"
            )
        places = functional.rearrange(x, self.windows.order) if self.windows.is_padded else x
        qkv = self.qkv(places).reshape(b, self.windows.count, self.windows.size**2, -1)
        p = self.attention_drop.p if self.training else 0.0
        rng = current_generator() if p else None
        bias = functional.relative_bias(self.relative_position_bias_table, (self.windows.size,) * 2)
        if maps is None:
            y = functional.window_attention(qkv, bias, self.num_heads, self.windows.apart, p, rng)
        else:
            y = self._by_heads(qkv, bias, maps, p, rng)
        y = y.reshape(b, -1, dim)  # b w n d -> b (w n) d
        if self.windows.is_padded:
            y = functional.rearrange(y, self.windows.order_back)
        return self.proj_drop(self.proj(y if keep is None else y[:, :keep]))

    def _by_heads(
        self, qkv: Tensor, bias: Tensor, maps: list[Tensor], p: float, rng: Generator | None
    ) -> Tensor:
        """The same step by step, so that there are weights to look at: (B, W, N, dim)."""
        b, w, n, width = qkv.shape
        heads = qkv.reshape(b, w, n, 3, self.num_heads, -1).permute(3, 0, 1, 4, 2, 5)
        if (apart := self.windows.apart) is not None:
            mask = numpy.where(apart, APART, 0.0).astype(qkv.dtype)[:, None]
            bias = bias + Tensor(mask).to(qkv.device)  # h n n + w 1 n n -> w h n n
        y, weights = functional.scaled_dot_product_attention(
            heads[0], heads[1], heads[2], bias, dropout_p=p, rng=rng, return_weights=True
        )
        maps.append(weights.reshape(b * w, self.num_heads, n, n))
        return y.transpose(2, 3).reshape(b, w, n, width // 3)  # b w h n k -> b w n (h k)

    def extra_repr(self) -> str:
        """Heads and windows."""
        size, shift = self.windows.size, self.windows.shift
        return f"num_heads={self.num_heads}, window={size}x{size}, shift={shift}"


class PatchMerging(Module):
    """Four neighbouring tokens become one of twice the width (Liu et al. 2021, section 3.1).

    `norm` of all 4*dim values, then `reduction.weight` (2*dim, 4*dim).
    """

    def __init__(self, dim: int, norm_eps: float = 1e-5, *, rng: Generator | None = None) -> None:
        self.norm = LayerNorm(4 * dim, norm_eps)
        self.reduction = Linear(4 * dim, 2 * dim, bias=False, rng=rng)

    def forward(self, x: Tensor, order: Indices) -> Tensor:
        """(B, N, dim) -> (B, M, 2*dim): `order` (M, 4) says which tokens, -1 for zeros."""
        b, _, dim = x.shape
        together = functional.rearrange(x, order.ravel()).reshape(b, len(order), 4 * dim)
        return self.reduction(self.norm(together))


class NormedPatchEmbed(PatchEmbed):
    """`PatchEmbed` with a LayerNorm after the projection: (B, C, H, W) -> (B, N, D)."""

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        in_channels: int,
        embed_dim: int,
        norm_eps: float = 1e-5,
        *,
        rng: Generator | None = None,
    ) -> None:
        super().__init__(image_size, patch_size, in_channels, embed_dim, rng=rng)
        self.norm = LayerNorm(embed_dim, norm_eps)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D), rows of patches first."""
        return self.norm(super().forward(images))
