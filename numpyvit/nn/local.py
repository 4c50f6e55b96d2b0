"""Attention of patches to the patches near them: in windows, or around each one."""

from __future__ import annotations

import dataclasses
import functools
import numbers
from typing import Any, NamedTuple, Self

import numpy
from numpy.random import Generator

from numpyvit import functional
from numpyvit.backend import suggest
from numpyvit.nn.attention import Attention
from numpyvit.nn.basic import check_positive
from numpyvit.nn.positions import Constant
from numpyvit.nn.randomness import current_generator
from numpyvit.ops.local_attention import FORBIDDEN, Tile
from numpyvit.tensor import Tensor

_TILE = 8  # patches along a side of a tile of neighbourhoods, where two of them are not enough


class _Run(NamedTuple):
    """Patches in a row that ask, those that they ask, and who may ask whom (all where None)."""

    queries: slice
    keys: slice
    allowed: Any | None = None


@dataclasses.dataclass(frozen=True)
class Locality:
    """Which patches of a `grid` (rows, columns) look at which.

    "window": those in the same window of `size` x `size`; the first windows of each axis end after
    `shift` patches, if given, so that blocks can take turns (Liu et al. 2021, section 3.2; what is
    left at the edges makes smaller windows). "neighbourhood": the `size` x `size` patches around
    each; at an edge the square is moved inwards, so that all have as many (Hassani et al. 2023,
    section 3.1). Raises ValueError for sizes that are no whole numbers, an unknown kind, a square
    larger than the grid, a neighbourhood without a middle, and a shift that is none.
    """

    grid: tuple[int, int]
    size: int
    kind: str = "neighbourhood"
    shift: int = 0

    def __post_init__(self) -> None:
        grid = self.grid if isinstance(self.grid, tuple) else ()
        sizes = *grid, self.size, self.shift
        if len(grid) != 2 or not all(isinstance(each, numbers.Integral) for each in sizes):
            raise ValueError(
                "[Locality] expected a grid (rows, columns), a size and a shift of whole numbers, "
                f"got {self.grid}, {self.size} and {self.shift}"
            )
        check_positive("Locality", rows=self.grid[0], columns=self.grid[1], size=self.size)
        if self.kind not in _RUNS:
            raise ValueError(f"[Locality] unknown kind {self.kind!r}; {suggest(self.kind, _RUNS)}")
        if self.size > min(self.grid):
            raise ValueError(
                f"[Locality] expected a size of at most {min(self.grid)} on a grid of "
                f"{self.grid[0]} x {self.grid[1]} patches, got {self.size}"
            )
        if self.kind == "neighbourhood" and self.size % 2 == 0:
            raise ValueError(
                f"[Locality] expected an odd size, got {self.size}; take {self.size - 1} or "
                f"{self.size + 1}, so that a patch is in the middle of its neighbourhood"
            )
        if not 0 <= self.shift < (self.size if self.kind == "window" else 1):
            raise ValueError(
                "[Locality] expected a shift from 0 to below the window's size, and 0 for "
                f"neighbourhoods, got {self.shift}"
            )

    @functools.cached_property
    def tiles(self) -> list[Tile]:
        """The rectangles to work on, one after the other."""
        rows, columns = (_RUNS[self.kind](length, self.size, self.shift) for length in self.grid)
        return [_tile(row, column) for row in rows for column in columns]

    @functools.cached_property
    def allowed(self) -> Any:
        """(N, N) booleans: which patch (row) may look at which (column)."""
        allowed = numpy.zeros((*self.grid, *self.grid), bool)
        for queries, keys, inside in self.tiles:
            place = allowed[*queries, *keys]
            place[...] = True if inside is None else inside.reshape(place.shape)
        count = self.grid[0] * self.grid[1]
        return allowed.reshape(count, count)


class LocalAttention(Attention):
    """`Attention` in which patches look at patches near them only: (B, N, dim), kept.

    The tokens in front of the patches look at all and are looked at by all. Parameters and options
    are those of `Attention`; the last tokens must be `locality.grid` patches, row by row.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        locality: Locality,
        *,
        rng: Generator | None = None,
        **options: Any,
    ) -> None:
        super().__init__(dim, num_heads, rng=rng, **options)
        self.locality = locality

    @classmethod
    def of(cls, attention: Attention, locality: Locality) -> Self:
        """The same layers and weights as `attention`, shared with it."""
        local = object.__new__(cls)
        vars(local).update(vars(attention), locality=locality)
        return local

    def forward(
        self, x: Tensor, maps: list[Tensor] | None = None, keep: int | None = None
    ) -> Tensor:
        """(B, N, dim) -> (B, N, dim); `maps` and `keep` as in `Attention`."""
        rows, columns = self.locality.grid
        front = x.shape[1] - rows * columns
        if front < 0:
            raise ValueError(
                f"[LocalAttention] expected at least {rows} x {columns} tokens, got {x.shape[1]}; "
                "build the model for the size of the images"
            )
        if maps is None and keep is not None and keep <= front:
            return super().forward(x, None, keep)  # these look at all tokens anyway
        p = self.attention_drop.p if self.training else 0.0
        rng = current_generator() if p else None
        qkv, bias = self.qkv(x), self.rel_pos.bias()
        if maps is None and not self.qk_norm and bias is None:
            grid, tiles = self.locality.grid, self.locality.tiles
            qkv = self.rel_pos.turn(qkv, 2 * self.num_heads)
            y = functional.local_attention(qkv, self.num_heads, grid, tiles, p, rng)
        else:
            mask = Tensor(_mask(self.locality, front).like(qkv))
            y = self._by_heads(qkv, mask if bias is None else bias + mask, maps, p, rng)
        return self.proj_drop(self.proj(y if keep is None else y[:, :keep]))

    def extra_repr(self) -> str:
        """Heads, and who looks at whom."""
        rows, columns = self.locality.grid
        size, kind = self.locality.size, self.locality.kind
        return f"{super().extra_repr()}, {kind} {size}x{size} of {rows}x{columns}"


@functools.lru_cache(4)  # blocks share them
def _mask(locality: Locality, front: int) -> Constant:
    """What is added to the scores of all tokens, `front` before the patches: (N, N)."""
    mask = numpy.pad(numpy.where(locality.allowed, 0.0, FORBIDDEN), ((front, 0), (front, 0)))
    return Constant(mask)


def _windows(length: int, size: int, shift: int) -> list[_Run]:
    starts = sorted({0, *range(shift, length, size)})
    ends = [*starts[1:], length]
    return [_Run(slice(a, b), slice(a, b)) for a, b in zip(starts, ends, strict=True)]


def _neighbourhoods(length: int, size: int, _shift: int) -> list[_Run]:
    first = numpy.clip(numpy.arange(length) - size // 2, 0, length - size)  # that a patch asks
    step = _TILE if length > 2 * _TILE else length
    runs = []
    for start in range(0, length, step):
        firsts = first[start : start + step]
        keys = slice(int(firsts[0]), int(firsts[-1]) + size)
        offsets = numpy.arange(keys.start, keys.stop) - firsts[:, None]
        allowed = (offsets >= 0) & (offsets < size)
        runs.append(_Run(slice(start, start + len(firsts)), keys, allowed))
    return runs


_RUNS = {"window": _windows, "neighbourhood": _neighbourhoods}


def _tile(row: _Run, column: _Run) -> Tile:
    allowed = None
    if row.allowed is not None and column.allowed is not None:
        allowed = row.allowed[:, None, :, None] & column.allowed[:, None]  # r c s d
        allowed = allowed.reshape(len(row.allowed) * len(column.allowed), -1)
    return Tile((row.queries, column.queries), (row.keys, column.keys), allowed)
