"""Attention tile by tile, in memory that grows with the tokens, not with their square.

A tile is some queries against some keys, small enough for a core's cache. Going back, its weights
are computed a second time instead of being kept; what is kept is a sum a query (FlashAttention-2,
Dao 2023, algorithms 1 and 2). Keys and values are copied into place for a tile, so that every
product finds its right-hand side in rows that start at cache lines: see `product`.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from numpyvit.backend import Array, Generator, array_module
from numpyvit.ops.regularization import keep_mask
from numpyvit.ops.small_products import empty_rows, product, right_side, transposed
from numpyvit.threads import run_tiles

Piece = tuple[int | slice, ...]

_TILE_QUERIES = 512
_TILE_KEYS = 512
_BLOCK_TILES = 4  # tiles of queries that use a copy of keys
_BLOCKS = 4  # of one head's queries, and of its keys, going back: that many threads have work
_SMALLEST_SUM, _LARGEST_SUM = 1e-15, 1e15  # of exp(scores): outside, exp may have lost something


class TiledAttention:
    """softmax(q k^T * scale + bias) v, written into `y` by `forward`; `backward` has the gradients.

    `q` (..., N, K), `k` (..., M, K), `v` (..., M, V), `bias` (..., N, M) or None, `y` (..., N, V).
    """

    def __init__(
        self,
        q: Array,
        k: Array,
        v: Array,
        bias: Array | None,
        y: Array,
        *,
        scale: float,
        dropout: float = 0.0,
        rng: Generator | None = None,
    ) -> None:
        xp = array_module(q)
        self.q, self.k, self.v, self.bias, self.y = q, k, v, bias, y
        self.scale, self.dropout = scale, dropout
        self.row_sum = xp.empty((*q.shape[:-1], 1), q.dtype)  # of exp(scores - shift), over keys
        self.shift = xp.zeros(self.row_sum.shape, q.dtype)
        self.shifted = False
        self.rng = rng if dropout else None
        self.seed = 0 if self.rng is None else int(self.rng.integers(1 << 63))
        self.rows = _cut(q.shape[-2], _TILE_QUERIES)
        self.columns = _cut(k.shape[-2], _TILE_KEYS)
        tile = self.rows[0].stop * self.columns[0].stop
        self.pieces = pieces(q.shape[:-2], _TILE_QUERIES * _TILE_KEYS / tile)

    def forward(self) -> None:
        """Fill `y`, and keep what `backward` needs."""
        blocks = _share(self.rows, math.ceil(len(self.rows) / _BLOCK_TILES))
        tasks = [(piece, rows) for piece in self.pieces for rows in blocks]
        run_tiles(lambda index: self._attend(*tasks[index]), len(tasks))

    def _attend(self, piece: Piece, block: list[slice]) -> None:
        """The output of a block of queries."""
        with array_module(self.q).errstate(over="ignore", invalid="ignore"):
            self._sum_up(piece, block)
        sums = self.row_sum[piece][..., block[0].start : block[-1].stop, :]
        if not (sums.min() > _SMALLEST_SUM and sums.max() < _LARGEST_SUM):
            self._find_shifts(piece, block)
            self._sum_up(piece, block)
        for rows in block:
            scale = 1 / ((1 - self.dropout) * self.row_sum[piece][..., rows, :])
            self.y[piece][..., rows, :] *= scale

    def _sum_up(self, piece: Piece, block: list[slice]) -> None:
        """Sums over keys of exp(scores), and of exp(scores) v into `y`."""
        xp = array_module(self.q)
        v, y, row_sum = self.v[piece], self.y[piece], self.row_sum[piece]
        scratch = self._scratch(piece)
        for columns in self.columns:
            keys_t = self._keys_t(piece, columns)
            values = right_side(v[..., columns, :])
            ones = xp.ones((values.shape[-2], 1), v.dtype)
            for rows in block:
                weights = self._weights(piece, rows, columns, keys_t, scratch)
                terms = weights @ ones
                keep = self._keep(piece, rows, columns, weights)
                if keep is not None:
                    weights *= keep
                outputs = product(weights, values)
                if columns.start:
                    terms += row_sum[..., rows, :]
                    outputs += y[..., rows, :]
                row_sum[..., rows, :] = terms
                y[..., rows, :] = outputs

    def _find_shifts(self, piece: Piece, block: list[slice]) -> None:
        """The largest score of each query, to be subtracted so that exp stays in range."""
        xp = array_module(self.q)
        shift = self.shift[piece]
        scratch = self._scratch(piece)
        for columns in self.columns:
            keys_t = self._keys_t(piece, columns)
            for rows in block:
                scores = self._scores(piece, rows, columns, keys_t, scratch)
                top = scores.max(-1, keepdims=True)
                if columns.start:
                    xp.maximum(top, shift[..., rows, :], out=top)
                shift[..., rows, :] = top
        self.shifted = True

    def _scratch(self, piece: Piece) -> Array:
        """Room for a tile, used again for the next."""
        tile = (*self.q[piece].shape[:-2], self.rows[0].stop, self.columns[0].stop)
        return empty_rows(tile, like=self.q)

    def _keys_t(self, piece: Piece, columns: slice) -> Array:
        return transposed(self.k[piece][..., columns, :], self.scale)

    def _scores(
        self, piece: Piece, rows: slice, columns: slice, keys_t: Array, scratch: Array
    ) -> Array:
        q = self.q[piece][..., rows, :]
        scores = product(q, keys_t, out=scratch[..., : q.shape[-2], : keys_t.shape[-1]])
        if self.bias is not None:
            scores += self.bias[piece][..., rows, columns]
        return scores

    def _weights(
        self, piece: Piece, rows: slice, columns: slice, keys_t: Array, scratch: Array
    ) -> Array:
        """Exp of a tile's scores, not normalised."""
        scores = self._scores(piece, rows, columns, keys_t, scratch)
        if self.shifted:
            scores -= self.shift[piece][..., rows, :]
        return array_module(scores).exp(scores, out=scores)

    def _keep(self, piece: Piece, rows: slice, columns: slice, like: Array) -> Array | None:
        """A tile's dropout mask, the same each time; None without dropout."""
        if self.rng is None:
            return None
        place = (self.pieces.index(piece), rows.start, columns.start)
        bits = type(self.rng.bit_generator)((self.seed, *place))
        return keep_mask(like.shape, self.dropout, type(self.rng)(bits), like=like)

    def backward(
        self, dy: Array, dq: Array | None, dk: Array | None, dv: Array | None, dscores: Array | None
    ) -> None:
        """Fill the gradients, those of the scores as well; what is None is left out.

        In each round, every block of keys meets another block of queries: no two tasks of a round
        add to the same gradient, and each gradient gets its terms in the same order every time.
        """
        count = math.ceil(_BLOCKS / len(self.pieces))
        count = min(count, len(self.rows), len(self.columns))
        rows, columns = _share(self.rows, count), _share(self.columns, count)
        gradients = (dy, dq, dk, dv, dscores)
        for turn in range(count):

            def task(index: int, turn: int = turn) -> None:
                piece, block = self.pieces[index // count], index % count
                queries = rows[(block + turn) % count]
                _Return(self, piece, gradients, turn == 0).run(queries, columns[block])

            run_tiles(task, len(self.pieces) * count)


class _Return:
    """What a block of queries and a block of keys give to the gradients."""

    def __init__(self, way: TiledAttention, piece: Piece, gradients: Any, first: bool) -> None:
        self.way, self.piece, self.first = way, piece, first
        parts: list[Any] = [None if a is None else a[piece] for a in gradients]
        self.dy, self.dq, self.dk, self.dv, self.dscores = parts
        # Scaling K values a key is cheaper than N, but the bias's gradient is not scaled.
        self.early = way.scale if self.dscores is None else 1.0

    def run(self, queries: list[slice], keys: list[slice]) -> None:
        """Add to the gradients, or set them where these terms are the first."""
        way = self.way
        prepared = [(rows, *self._prepare(rows)) for rows in queries]
        k, v = way.k[self.piece], way.v[self.piece]
        scratches = way._scratch(self.piece), way._scratch(self.piece)
        for columns in keys:
            keys_t = way._keys_t(self.piece, columns)
            values_t = transposed(v[..., columns, :], self.early)
            plain_keys = right_side(k[..., columns, :])
            for rows, scaled, row_sum in prepared:
                first = rows is queries[0]
                weights = way._weights(self.piece, rows, columns, keys_t, scratches[0])
                keep = way._keep(self.piece, rows, columns, weights)
                kept = weights if keep is None else weights * keep
                if self.dv is not None:
                    self._put(self.dv, columns, kept.swapaxes(-1, -2) @ scaled, first)
                if self.dq is None and self.dk is None and self.dscores is None:
                    continue
                room = scratches[1][..., : weights.shape[-2], : weights.shape[-1]]
                slopes = product(scaled, values_t, out=room)
                softmax_slopes(slopes, row_sum, weights, None if keep is None else kept)
                if self.dscores is not None:
                    self.dscores[..., rows, columns] = slopes
                    slopes *= way.scale
                if self.dq is not None:
                    self._put(self.dq, rows, product(slopes, plain_keys), columns is keys[0])
                if self.dk is not None:
                    q = way.q[self.piece][..., rows, :]
                    self._put(self.dk, columns, slopes.swapaxes(-1, -2) @ q, first)

    def _put(self, gradient: Array, places: slice, terms: Array, first: bool) -> None:
        if self.first and first:
            gradient[..., places, :] = terms
        else:
            gradient[..., places, :] += terms

    def _prepare(self, rows: slice) -> tuple[Array, Array]:
        """Of some queries: dy over the sums of weights, and the row sums of the softmax."""
        xp = array_module(self.dy)
        y, sums = (a[self.piece][..., rows, :] for a in (self.way.y, self.way.row_sum))
        dy = self.dy[..., rows, :]
        row_sum = xp.einsum("...k,...k->...", dy, y)[..., None] / sums
        row_sum *= self.early
        return dy * (1 / ((1 - self.way.dropout) * sums)), row_sum


def softmax_slopes(slopes: Array, row_sum: Array, weights: Array, kept: Array | None) -> None:
    """Turn the gradient of the weights into that of the scores, in place; `weights` may be spoilt.

    `kept` are the weights that dropout left, None without dropout.
    """
    if kept is None:
        slopes -= row_sum
        slopes *= weights
    else:
        slopes *= kept
        weights *= row_sum
        slopes -= weights


def pieces(shape: tuple[int, ...], heads: float) -> list[Piece]:
    """Indices that cut leading axes `shape` into pieces of about `heads` matrices."""
    if not shape:
        return [()]
    inner = math.prod(shape[1:])
    if len(shape) > 1 and inner > heads:
        return [(i, *rest) for i in range(shape[0]) for rest in pieces(shape[1:], heads)]
    step = max(round(heads / inner), 1)
    return [(slice(start, start + step),) for start in range(0, shape[0], step)]


def _cut(length: int, most: int) -> list[slice]:
    """`length` places in parts of nearly equal size, `most` at most."""
    step = math.ceil(length / math.ceil(length / most))
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _share(parts: list[slice], count: int) -> list[list[slice]]:
    """`parts` in `count` runs of nearly equal length."""
    ends = [round(len(parts) * i / count) for i in range(count + 1)]
    return [parts[start:end] for start, end in itertools.pairwise(ends)]
