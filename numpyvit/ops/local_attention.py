"""Attention of patches to the patches near them, tile by tile of the grid."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpyvit.backend import Array, Generator, array_module
from numpyvit.ops.attention import attention
from numpyvit.ops.types import OpResult

FORBIDDEN = -float("inf")  # added to a score
_NEEDS = (True, True, True, False)  # gradients of queries, keys and values; none of a mask


Rectangle = tuple[slice, slice]  # of rows and columns


class Tile(NamedTuple):
    """A rectangle of patches that ask, and the rectangle of patches that they ask.

    `allowed` (Q, M) says who may ask whom, patches in rows; None where everybody may ask all.
    """

    queries: Rectangle
    keys: Rectangle
    allowed: Array | None


class _Heads:
    """Views of tokens b h n k: all of them, those in front, and the patches on their grid."""

    def __init__(self, tokens: Array, grid: tuple[int, int]) -> None:
        front = tokens.shape[2] - grid[0] * grid[1]
        self.all, self.front = tokens, tokens[:, :, :front]
        self.area = tokens[:, :, front:].reshape(*tokens.shape[:2], *grid, tokens.shape[-1])

    def inside(self, rectangle: Rectangle) -> Array:
        """The patches of a rectangle: b h r c k -> b h (r c) k."""
        part = self.area[:, :, *rectangle]
        return part.reshape(*part.shape[:2], -1, part.shape[-1])

    def asked(self, rectangle: Rectangle) -> Array:
        """Those in front, and the patches of a rectangle."""
        return array_module(self.all).concatenate([self.front, self.inside(rectangle)], 2)

    def add(self, rectangle: Rectangle, values: Array) -> None:
        """Add to what `asked` gave."""
        front = self.front.shape[2]
        self.front[...] += values[:, :, :front]
        part = self.area[:, :, *rectangle]
        part += values[:, :, front:].reshape(part.shape)

    def put(self, rectangle: Rectangle, values: Array) -> None:
        """Set what `inside` gave."""
        part = self.area[:, :, *rectangle]
        part[...] = values.reshape(part.shape)


def local_attention(
    qkv: Array,
    /,
    num_heads: int,
    grid: tuple[int, int],
    tiles: list[Tile],
    dropout: float = 0.0,
    rng: Generator | None = None,
) -> OpResult:
    """Self-attention on one projection, within `tiles`: (B, N, 3*D) -> (B, N, D).

    `qkv` has rows [q heads | k heads | v heads]. The last tokens are the patches, `grid` (rows,
    columns) of them; those in front ask all tokens and are asked by all. Every patch asks in
    exactly one tile. Time and memory grow with the tiles' queries times keys, not with N * N.
    """
    xp = array_module(qkv)
    y = xp.empty((*qkv.shape[:2], qkv.shape[2] // 3), qkv.dtype)
    q, k, v = _split(qkv, 3, num_heads, grid)
    (out,) = _split(y, 1, num_heads, grid)
    has_front = q.front.shape[2] > 0
    ways_back: list[Any] = []

    def attend(q: Array, k: Array, v: Array, bias: Array | None = None) -> Array:
        value, back = attention(q, k, v, bias, dropout=dropout, rng=rng)
        ways_back.append(back)
        return value

    if has_front:
        out.front[...] = attend(q.front, k.all, v.all)
    for tile in tiles:
        bias = _bias(xp, tile.allowed, q.front.shape[2], qkv.dtype)
        asked = k.asked(tile.keys), v.asked(tile.keys)
        out.put(tile.queries, attend(q.inside(tile.queries), *asked, bias))

    def pullback(dy: Array) -> tuple[Array]:
        dqkv = xp.zeros(qkv.shape, qkv.dtype)
        dq, dk, dv = _split(dqkv, 3, num_heads, grid)
        (given,) = _split(dy, 1, num_heads, grid)
        back = iter(ways_back)
        if has_front:
            dq.front[...], dk.all[...], dv.all[...], _ = next(back)(given.front, _NEEDS)
        for tile in tiles:
            queries, keys, values, _ = next(back)(given.inside(tile.queries), _NEEDS)
            dq.put(tile.queries, queries)
            dk.add(tile.keys, keys)
            dv.add(tile.keys, values)
        return (dqkv,)

    return y, pullback


def _split(packed: Array, parts: int, num_heads: int, grid: tuple[int, int]) -> list[_Heads]:
    """Views of `parts` arrays side by side in one: b n (parts h k) -> parts of b h n k."""
    split = packed.reshape(*packed.shape[:2], parts, num_heads, -1).transpose(2, 0, 3, 1, 4)
    return [_Heads(part, grid) for part in split]


def _bias(xp: Any, allowed: Array | None, front: int, dtype: Any) -> Array | None:
    if allowed is None:
        return None
    asks, asked = allowed.shape
    bias = xp.zeros((asks, front + asked), dtype)
    bias[:, front:][~xp.asarray(allowed)] = FORBIDDEN
    return bias
