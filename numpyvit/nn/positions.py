"""How tokens know their place: what is added to them, and what attention is told."""

from __future__ import annotations

import functools

import numpy
from numpy.random import Generator, default_rng

from numpyvit import functional, ops
from numpyvit.backend import Array, suggest, to_device
from numpyvit.nn import init
from numpyvit.nn.basic import check_positive
from numpyvit.nn.module import Module, Parameter
from numpyvit.nn.patch import Pair, Size, as_pair
from numpyvit.tensor import Tensor


class Positions:
    """The base of all kinds, and itself none: tokens are a set.

    A kind holds no parameters: what it `start`s is the model's `pos_embed`, and what it puts
    `in_attention` belongs to each attention layer.
    """

    def start(self, rng: Generator) -> Parameter | None:
        """The learned positions (1, tokens, D) that the model keeps; None for none."""
        return None

    def add(self, in_front: list[Tensor], patches: Tensor, pos_embed: Parameter | None) -> Tensor:
        """Tokens `in_front` (B, ., D) and `patches` (B, P, D), joined and placed: (B, N, D)."""
        return functional.concat([*in_front, patches], axis=1)

    def added(self, pos_embed: Parameter | None) -> Array | None:
        """What is added to tokens, (tokens, D), those of patches last; None for nothing."""
        return None if pos_embed is None else pos_embed.data[0]

    def in_attention(self, rng: Generator) -> AttentionPositions | None:
        """What one attention layer gets for itself; None for nothing."""
        return None


class LearnedPositions(Positions):
    """A learned vector for each of all tokens (Dosovitskiy et al. 2021, section 3.1)."""

    def __init__(self, num_tokens: int, dim: int) -> None:
        self.shape = (1, num_tokens, dim)

    def start(self, rng: Generator) -> Parameter | None:
        """Truncated normal values, 0.02."""
        return Parameter(init.trunc_normal(self.shape, rng))

    def add(self, in_front: list[Tensor], patches: Tensor, pos_embed: Parameter | None) -> Tensor:
        """Joined, then added."""
        return super().add(in_front, patches, None) + pos_embed


class LearnedPatchPositions(LearnedPositions):
    """A learned vector for each patch, none for the tokens in front (DeiT III)."""

    def add(self, in_front: list[Tensor], patches: Tensor, pos_embed: Parameter | None) -> Tensor:
        """Added, then joined."""
        return Positions.add(self, in_front, patches + pos_embed, None)


class SincosPositions(Positions):
    """Fixed sines and cosines for the patches, nothing for the tokens in front."""

    def __init__(self, grid: Pair, dim: int, form: str) -> None:
        self.waves = Constant(sincos_positions(grid, dim, form))

    def add(self, in_front: list[Tensor], patches: Tensor, pos_embed: Parameter | None) -> Tensor:
        """Added, then joined."""
        return super().add(in_front, patches + self.waves.like(patches), None)

    def added(self, pos_embed: Parameter | None) -> Array | None:
        """The waves (P, D), float64."""
        return self.waves.values


class RelativePositions(Positions):
    """Attention is told how far apart tokens lie: see `RelativeBias`."""

    def __init__(self, grid: Pair, num_heads: int, num_prefix_tokens: int = 0) -> None:
        self.sizes = grid, num_heads, num_prefix_tokens

    def in_attention(self, rng: Generator) -> AttentionPositions | None:
        """A table of its own."""
        return RelativeBias(*self.sizes, rng=rng)


class RotaryPositions(Positions):
    """Queries and keys are turned by their place: see `Rotary`."""

    def __init__(self, grid: Pair, head_dim: int, temperature: float = 100.0) -> None:
        self.sizes = grid, head_dim, temperature

    def in_attention(self, rng: Generator) -> AttentionPositions | None:
        """The same for every layer."""
        return Rotary(*self.sizes)


class AttentionPositions(Module):
    """What one attention layer is told of places; the base tells nothing."""

    about = ""  # what `likeness` is, as the title of a picture

    def turn(self, x: Tensor, heads: int) -> Tensor:
        """(..., N, C) with the first `heads` heads in C, of queries or keys, marked by place."""
        return x

    def bias(self) -> Tensor | None:
        """What is added to the scaled scores, (H, N, N); None for nothing."""
        return None

    def likeness(self) -> Array | None:
        """How much the place of one patch draws another's: (P, P), or (H, P, P) by head."""
        return None


class RelativeBias(AttentionPositions):
    """A learned number for each head and each offset of two patches (Liu et al. 2021, section 3.2).

    `relative_position_bias_table` ((2h-1)(2w-1), H) for a grid of h x w patches; with tokens in
    front, three more rows for these (Bao et al. 2022, BEiT). timm's names and order.
    """

    about = "Bias of attention from the middle patch to all others"

    def __init__(
        self,
        grid: Pair,
        num_heads: int,
        num_prefix_tokens: int = 0,
        *,
        rng: Generator | None = None,
    ) -> None:
        check_positive("RelativeBias", rows=grid[0], columns=grid[1], num_heads=num_heads)
        self.grid, self.num_prefix_tokens = grid, num_prefix_tokens
        rows = (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3 * bool(num_prefix_tokens)
        table = init.trunc_normal((rows, num_heads), rng or default_rng())
        self.relative_position_bias_table = Parameter(table)

    def bias(self) -> Tensor | None:
        """(H, N, N)."""
        return functional.relative_bias(
            self.relative_position_bias_table, self.grid, self.num_prefix_tokens
        )

    def likeness(self) -> Array | None:
        """The bias between patches, (H, P, P)."""
        table = self.relative_position_bias_table.data
        return ops.relative_bias(table, self.grid, self.num_prefix_tokens)[0][
            :, self.num_prefix_tokens :, self.num_prefix_tokens :
        ]


class Rotary(AttentionPositions):
    """Rotary positions in two dimensions (Su et al. 2021; Heo et al. 2024, "axial").

    Pairs of a head's channels are turned by place times frequency: the first half of the pairs by
    the column, the second by the row, with frequencies temperature^(-i / (K/4)), i below K/4, for a
    head of width K. The score of a query and a key then depends on how far apart they lie. Tokens
    in front are not turned. Places count patches; the paper's temperature is 100. Nothing is
    learned. Raises ValueError for a head width that 4 does not divide.
    """

    about = "Mean cosine of the turn between two places"

    def __init__(self, grid: Pair, head_dim: int, temperature: float = 100.0) -> None:
        self.sizes = grid, head_dim, temperature
        _turns(*self.sizes)

    def turn(self, x: Tensor, heads: int) -> Tensor:
        """The first `heads` heads in the last axis are turned, in the last P tokens."""
        return functional.rotate(x, _turns(*self.sizes, heads).like(x))

    def likeness(self) -> Array | None:
        """How alike equal vectors are after the turns of two places, (P, P)."""
        turns = _turns(*self.sizes).values
        return (turns @ turns.conj().T).real / turns.shape[1]


class Constant:
    """An array that is computed and never trained, in the dtype and on the device of its partner.

    It is no parameter: it is neither stored with a model nor moved by `Module.to`.
    """

    def __init__(self, values: numpy.ndarray) -> None:
        self.values = values
        self._found: dict[tuple[str, str], Array] = {}

    def like(self, x: Tensor) -> Array:
        """The array for a computation with `x`."""
        key = str(x.dtype), x.device
        if key not in self._found:
            is_complex = numpy.iscomplexobj(self.values)
            dtype = numpy.result_type(x.dtype, numpy.complex64) if is_complex else x.dtype
            self._found[key] = to_device(self.values.astype(dtype), x.device)
        return self._found[key]


@functools.lru_cache(16)  # all layers share them
def _turns(grid: Pair, head_dim: int, temperature: float, heads: int = 1) -> Constant:
    """Complex numbers of length 1, (P, K/2) of a head, side by side for so many heads."""
    count = wave_count("Rotary", "a head width", head_dim)
    angles = numpy.concatenate(_angles(count, grid, temperature), axis=1)
    return Constant(numpy.tile(numpy.exp(1j * angles), heads))


# What the number of frequencies is lessened by, before it divides the exponents.
SINCOS_FORMS = {"mae": 0, "big_vision": 1}


def sincos_positions(grid: Size, dim: int, form: str = "mae") -> numpy.ndarray:
    """Sines and cosines of columns, then rows, of a grid's patches: (P, D), float64.

    A quarter of the width n = D/4 each: sin x, cos x, sin y, cos y, with frequencies 10000^(-i/n)
    for i from 0 (Vaswani et al. 2017, section 3.5, once for each axis; He et al. 2022), or in the
    form "big_vision" 10000^(-i/(n-1)), so that the last is 1/10000 (Beyer et al. 2022). Raises
    ValueError for a width that 4 does not divide, too few frequencies, or an unknown form.
    """
    if form not in SINCOS_FORMS:
        raise ValueError(f"[sincos_positions] unknown form {form!r}; {suggest(form, SINCOS_FORMS)}")
    count = wave_count("sincos_positions", "a width", dim, form)
    x, y = _angles(count, as_pair(grid), 10000.0, SINCOS_FORMS[form])
    return numpy.concatenate([numpy.sin(x), numpy.cos(x), numpy.sin(y), numpy.cos(y)], axis=1)


def wave_count(component: str, what: str, width: int, form: str = "mae") -> int:
    """How many frequencies `width` channels have room for; ValueError where that is not even."""
    least = 4 + 4 * SINCOS_FORMS[form]
    if width % 4 or width < least:
        raise ValueError(
            f"[{component}] expected {what} that 4 divides, {least} at least, got {width}; take "
            "another width, number of heads or kind of positions"
        )
    return width // 4


def _angles(count: int, grid: Pair, temperature: float, less: int = 0) -> list[Array]:
    """Columns, then rows, times `count` frequencies: (P, count) each."""
    frequencies = temperature ** (-numpy.arange(count) / (count - less))
    rows, columns = numpy.mgrid[: grid[0], : grid[1]].reshape(2, -1, 1) * frequencies
    return [columns, rows]
