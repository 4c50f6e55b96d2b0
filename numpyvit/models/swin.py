"""The Swin Transformer (Liu et al. 2021), under timm's names."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy
from numpy.random import Generator, default_rng

from numpyvit import functional
from numpyvit.backend import Array
from numpyvit.models.base import ImageModel, ModelConfig, check_kinds, shortest
from numpyvit.nn import (
    Block,
    Dropout,
    Identity,
    LayerNorm,
    Linear,
    Mlp,
    Module,
    NormedPatchEmbed,
    PatchMerging,
    WindowAttention,
    Windows,
    activation,
    check_heads,
    check_positive,
    inverse_order,
    merging_order,
)
from numpyvit.tensor import Tensor

Pair = tuple[int, int]
Indices = Any  # an array of integers of NumPy
PADDINGS = ("after_shift", "before_shift")
# Far beyond any model that was ever made: more is a mistake, or a file that is made to harm.
MOST: dict[str, int] = {
    "image_size": 16384,
    "in_channels": 4096,
    "num_classes": 1 << 24,
    "stages": 8,
    "embed_dim": 1 << 14,
    "depth": 1000,
    "window_size": 256,
    "mlp_ratio": 1 << 10,
    "num_patches": 1 << 16,  # the order of a grid's tokens is written out
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwinConfig(ModelConfig):
    """The sizes and choices of a SwinTransformer (Liu et al. 2021, section 3.3).

    `depths` and `num_heads` have an entry a stage; the first stage has `embed_dim` channels and a
    token a patch, each further one twice the channels and a quarter of the tokens. Every second
    block shifts its windows of `window_size` x `window_size` tokens by half a window. `padding`
    matters only where windows do not divide a stage's grid: "after_shift" pads the shifted grid and
    shrinks a window that is larger than the grid (timm, Microsoft); "before_shift" pads, then
    shifts, and a grid smaller than the window is padded to it (torchvision, Hugging Face). With
    `num_classes` 0 there is no head, and the pooled features come out.

    Lists are taken for tuples. Raises ValueError for values of another kind, sizes that are not
    positive, a patch that does not divide the image, heads that do not divide a stage's width,
    probabilities outside [0, 1), unknown names, sizes beyond MOST, and other than one number of
    heads a stage.
    """

    image_size: int = 224
    patch_size: int = 4
    in_channels: int = 3
    num_classes: int = 1000
    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    activation: str = "gelu"
    norm_eps: float = 1e-5
    padding: str = "after_shift"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for name in ("depths", "num_heads"):  # JSON has lists
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        for name in ("image_size", "patch_size"):
            object.__setattr__(self, name, shortest(getattr(self, name)))
        check_kinds(self)
        check_positive(
            "SwinConfig",
            image_size=self.image_size,
            patch_size=self.patch_size,
            in_channels=self.in_channels,
            depth=min(self.depths),
            window_size=self.window_size,
            mlp_ratio=self.mlp_ratio,
            norm_eps=self.norm_eps,
        )
        self._check_most(MOST)
        check_positive("SwinConfig", hidden_width=self.hidden_width(0))
        if len(self.num_heads) != self.stages:
            raise ValueError(
                f"[SwinConfig] expected num_heads for {self.stages} stages, as many as "
                f"depths, got {len(self.num_heads)}"
            )
        for stage, heads in enumerate(self.num_heads):
            check_heads(self.width(stage), heads)
        activation(self.activation)
        if self.image_size % self.patch_size:
            raise ValueError(
                f"[SwinConfig] expected an image_size that is a multiple of patch_size "
                f"{self.patch_size}, got {self.image_size}"
            )
        self._check_shares(("dropout", "attention_dropout", "drop_path"))
        self._check_not_negative(("num_classes",))
        self._check_names({"padding": PADDINGS})
        side, mergings = self.grid[0], self.stages - 1
        if self.padding == "after_shift" and side >> mergings == 0:
            raise ValueError(
                f"[SwinConfig] expected at least {1 << mergings} patches a side for {mergings} "
                f"mergings, got {side}; take fewer stages or smaller patches"
            )

    @property
    def image_shape(self) -> Pair:
        """Height and width of an image."""
        return self.image_size, self.image_size

    @property
    def patch_shape(self) -> Pair:
        """Height and width of a patch."""
        return self.patch_size, self.patch_size

    @property
    def grid(self) -> Pair:
        """Rows and columns of patches in an image."""
        side = self.image_size // self.patch_size
        return side, side

    @property
    def num_patches(self) -> int:
        """Patches in an image: the tokens of the first stage, which has the most."""
        return self.grid[0] * self.grid[1]

    num_tokens = num_patches

    @property
    def stages(self) -> int:
        """How many stages there are."""
        return len(self.depths)

    @property
    def depth(self) -> int:
        """Blocks of all stages."""
        return sum(self.depths)

    @property
    def num_features(self) -> int:
        """Numbers that the head reads: the last stage's width."""
        return self.width(self.stages - 1)

    def width(self, stage: int) -> int:
        """Channels of a token in a stage."""
        return self.embed_dim << stage

    def hidden_width(self, stage: int) -> int:
        """Width of the hidden layer of a stage's MLPs."""
        return math.floor(self.width(stage) * self.mlp_ratio + 1e-6)  # 24 * (64 / 24) is 64

    @property
    def mlp_dim(self) -> int:
        """Width of the hidden layer of the first stage's MLPs."""
        return self.hidden_width(0)

    def windows(self, stage: int, shifted: bool = False) -> Windows:
        """The windows of a stage's blocks: as they are, or shifted by half a window."""
        pad_first = self.padding == "before_shift"
        grid = -(-self.grid[0] // (1 << stage))  # an odd grid is padded before it is halved
        # timm and Microsoft round an odd grid down where they choose the window.
        cut = grid if pad_first else self.grid[0] >> stage
        size = self.window_size if pad_first else min(self.window_size, cut)
        shift = size // 2 if shifted and cut > size else 0
        return Windows(grid, size, shift, pad_first)


class SwinStage(Module):
    """Patch merging, except in the first stage, and blocks whose windows shift in turn.

    Tokens stay as the windows of a block lie until the next one needs them otherwise: one move a
    block, where cutting windows and putting them back would be two. `order_before` is how tokens
    come in, `order` how they go out: for each place, which token of the grid (row by row).
    """

    def __init__(
        self, config: SwinConfig, stage: int, order_before: Indices, *, rng: Generator
    ) -> None:
        dim, first = config.width(stage), sum(config.depths[:stage])
        self.merges = stage > 0
        self.downsample = (
            PatchMerging(dim // 2, config.norm_eps, rng=rng) if self.merges else Identity()
        )
        self.blocks = [
            _block(config, stage, number, first + number, rng)
            for number in range(config.depths[stage])
        ]
        self.moves: list[Indices | None] = []  # before each block
        self.ways_back: list[Indices | None] = []  # after it, to rows
        self.order = order_before
        for number in range(len(self.blocks)):
            windows = config.windows(stage, shifted=number % 2 == 1)
            wanted = windows.order_kept
            if self.merges and number == 0:
                merged = merging_order(math.isqrt(len(order_before)))[wanted]
                self.moves.append(_places(merged, order_before))
            else:
                self.moves.append(_move(self.order, wanted))
            self.ways_back.append(_move(wanted, numpy.arange(len(wanted))))
            self.order = wanted

    def forward(
        self,
        x: Tensor,
        maps: list[Tensor] | None = None,
        hidden_states: list[Tensor] | None = None,
    ) -> Tensor:
        """(B, N, C) in `order_before` -> (B, M, D) in `order`; see SwinTransformer."""
        for number, block in enumerate(self.blocks):
            move, back = self.moves[number], self.ways_back[number]
            if self.merges and number == 0:
                x = self.downsample(x, move)
            elif move is not None:
                x = functional.rearrange(x, move)
            x = block(x, maps)
            if hidden_states is not None:
                rows = x if back is None else functional.rearrange(x, back)
                hidden_states.append(rows)  # what follows reads it, so that gradients reach it
                x = (
                    rows
                    if back is None
                    else functional.rearrange(rows, inverse_order(back, len(back)))
                )
        return x


class SwinHead(Module):
    """The classifier under timm's name `head.fc`: (B, features) -> (B, num_classes)."""

    def __init__(self, num_features: int, num_classes: int, *, rng: Generator) -> None:
        self.fc = Linear(num_features, num_classes, rng=rng) if num_classes else Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, features) -> (B, num_classes)."""
        return self.fc(x)


class SwinTransformer(ImageModel):
    """Image to logits: patches, stages of blocks with windows, mean over tokens, a linear head.

    Attention weights are (B * windows, H, w*w, w*w) a block; hidden states (B, N, D) are the tokens
    before the first block and after each, row by row, before any merging.
    """

    attends_globally = False

    def __init__(self, config: SwinConfig, *, rng: Generator | None = None) -> None:
        rng = rng or default_rng()
        self.config = config
        self.patch_embed = NormedPatchEmbed(
            config.image_size,
            config.patch_size,
            config.in_channels,
            config.embed_dim,
            config.norm_eps,
            rng=rng,
        )
        self.pos_drop = Dropout(config.dropout)
        self.layers: list[SwinStage] = []
        order = numpy.arange(config.num_patches)
        for stage in range(config.stages):
            self.layers.append(SwinStage(config, stage, order, rng=rng))
            order = self.layers[-1].order
        self.norm = LayerNorm(config.num_features, config.norm_eps)
        self.head = SwinHead(config.num_features, config.num_classes, rng=rng)
        self._start(rng)

    @property
    def blocks(self) -> list[Any]:
        """The blocks of all stages, the first one first."""
        return [block for stage in self.layers for block in stage.blocks]

    def forward_features(
        self,
        images: Tensor | Array,
        maps: list[Tensor] | None = None,
        hidden_states: list[Tensor] | None = None,
        keep: int | None = None,
    ) -> Tensor:
        """(B, C, H, W) -> tokens (B, N, D) of the last stage after the norm, row by row.

        Attention weights and the tokens between blocks are appended to the lists, if given. `keep`
        is for VisionTransformer's sake: the first tokens only are returned.
        """
        x = self.pos_drop(self.patch_embed(self._as_input(images)))
        if hidden_states is not None:
            hidden_states.append(x)
        for stage in self.layers:
            x = stage(x, maps, hidden_states)
        tokens, back = self.norm(x), self.layers[-1].ways_back[-1]
        tokens = tokens if back is None else functional.rearrange(tokens, back)
        return tokens if keep is None else tokens[:, :keep]

    def forward_pooled(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, D): the mean over tokens."""
        return tokens.mean(1)

    def layer_of(self, name: str) -> int:
        """As for any model; a stage's merging of patches belongs to its first block."""
        parts = name.split(".")
        if parts[0] != "layers":
            return super().layer_of(name)
        before = sum(self.config.depths[: int(parts[1])])
        return before + 1 + (int(parts[3]) if parts[2] == "blocks" else 0)


def _block(config: SwinConfig, stage: int, number: int, position: int, rng: Generator) -> Block:
    """Block `number` of a stage, `position` of all; drop_path rises linearly over all, from 0."""
    dim = config.width(stage)
    attention = WindowAttention(
        dim,
        config.num_heads[stage],
        config.windows(stage, shifted=number % 2 == 1),
        qkv_bias=config.qkv_bias,
        attention_dropout=config.attention_dropout,
        dropout=config.dropout,
        rng=rng,
    )
    mlp = Mlp(
        dim,
        config.hidden_width(stage),
        activation_name=config.activation,
        dropout=config.dropout,
        rng=rng,
    )
    drop_path = config.drop_path * position / max(config.depth - 1, 1)
    norm = functools.partial(LayerNorm, eps=config.norm_eps)
    return Block(dim, attention, mlp, norm=norm, drop_path=drop_path)


def _move(before: Indices, after: Indices) -> Indices | None:
    """What `rearrange` takes to bring tokens from one order into another; None for nothing."""
    return None if (before == after).all() else _places(after, before)


def _places(wanted: Indices, order: Indices) -> Indices:
    """Where in `order` the `wanted` tokens stand; -1 stays -1."""
    return numpy.where(wanted < 0, -1, inverse_order(order, len(order))[wanted])
