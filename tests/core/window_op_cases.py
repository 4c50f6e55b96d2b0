"""Cases of the ops of windows and neighbourhoods, with oracles that go token by token."""

from __future__ import annotations

from typing import Any

import numpy as np
from core.op_cases import Case, normal

from numpyvit.ops.local_attention import Tile


def _one_by_one(
    qkv: np.ndarray, heads: int, bias: np.ndarray, may: np.ndarray, gone: float
) -> np.ndarray:
    """Attention (B, N, 3*D) -> (B, N, D) with a bias (H, N, N), `gone` added where one may not."""
    b, n, width = qkv.shape
    y, k = np.zeros((b, n, width // 3)), width // 3 // heads
    for image, head, query in np.ndindex(b, heads, n):
        part = qkv[image].reshape(n, 3, heads, k)[:, :, head]
        scores = np.array(
            [
                part[query, 0] @ part[key, 1] / k**0.5
                + bias[head, query, key]
                + (0 if may[query, key] else gone)
                for key in range(n)
            ]
        )
        weights = np.exp(scores - scores.max())
        y[image, query, head * k : (head + 1) * k] = weights @ part[:, 2] / weights.sum()
    return y


def _written_out(t: Any, qkv: Any, heads: int, bias: Any, may: np.ndarray, gone: float) -> Any:
    """The same in PyTorch, (..., N, 3*D) -> (..., N, D)."""
    *front, n, width = qkv.shape
    heads_first = qkv.reshape(*front, n, 3, heads, -1).movedim(-3, 0).movedim(-2, -3)
    q, k, v = heads_first
    forbidden = t.zeros(may.shape, dtype=qkv.dtype).masked_fill(~t.tensor(may), gone)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias + forbidden
    return (scores.softmax(-1) @ v).movedim(-3, -2).reshape(*front, n, width // 3)


def _orders() -> list[Case]:
    def oracle(x: np.ndarray, order: np.ndarray) -> np.ndarray:
        tokens = [x[:, place] if place >= 0 else 0 * x[:, 0] for place in order]
        return np.stack(tokens, axis=1)

    def torch(t: Any, x: Any, order: np.ndarray) -> Any:
        padded = t.cat([x, t.zeros_like(x[:, :1])], 1)
        return padded[:, t.tensor(order)]

    rows = [("turned round", [4, 3, 2, 1, 0]), ("one left out", [3, 0, 4, 2]), ("a gap", [1, -1])]
    return [
        Case("rearrange", about, normal((2, 5, 3)), oracle, torch, {"order": np.array(order)})
        for about, order in rows
    ]


def _biases() -> list[Case]:
    def row(grid: tuple[int, int], in_front: int, query: int, key: int) -> int:
        (h, w), ask, asked = grid, query - in_front, key - in_front
        places = (2 * h - 1) * (2 * w - 1)
        if ask < 0 or asked < 0:
            return places + (2 if ask < 0 and asked < 0 else int(asked < 0))
        dy, dx = ask // w - asked // w, ask % w - asked % w
        return (dy + h - 1) * (2 * w - 1) + dx + w - 1

    def rows(grid: tuple[int, int], in_front: int) -> np.ndarray:
        n = in_front + grid[0] * grid[1]
        return np.array([[row(grid, in_front, q, k) for k in range(n)] for q in range(n)])

    def oracle(table: np.ndarray, grid: tuple[int, int], in_front: int = 0) -> np.ndarray:
        return np.array([column[rows(grid, in_front)] for column in table.T])

    def torch(t: Any, table: Any, grid: tuple[int, int], in_front: int = 0) -> Any:
        return table.T[:, t.tensor(rows(grid, in_front))]

    cases: list[tuple[str, tuple[int, int], dict[str, Any]]] = [
        ("a square", (25, 2), {"grid": (3, 3)}),
        ("an oblong", (15, 1), {"grid": (2, 3)}),
        ("tokens in front", (18, 2), {"grid": (2, 3), "in_front": 2}),
        ("one place", (1, 3), {"grid": (1, 1)}),
    ]
    return [
        Case("relative_bias", about, normal(shape), oracle, torch, given)
        for about, shape, given in cases
    ]


def _windows() -> list[Case]:
    apart = np.zeros((3, 4, 4), bool)
    apart[2, :2, 2:] = apart[2, 2:, :2] = True

    def oracle(qkv: np.ndarray, bias: np.ndarray, num_heads: int, apart: Any = None) -> np.ndarray:
        none = np.zeros((qkv.shape[1], *bias.shape[1:]), bool)
        masks = none if apart is None else apart
        windows = [
            _one_by_one(qkv[:, w], num_heads, bias, ~masks[w], -100.0) for w in range(len(masks))
        ]
        return np.stack(windows, axis=1)

    def torch(t: Any, qkv: Any, bias: Any, num_heads: int, apart: Any = None) -> Any:
        masks = np.zeros((qkv.shape[1], *bias.shape[1:]), bool) if apart is None else apart
        return t.stack(
            [
                _written_out(t, qkv[:, w], num_heads, bias, ~masks[w], -100.0)
                for w in range(len(masks))
            ],
            1,
        )

    draw, two = normal((2, 3, 4, 12), (2, 4, 4)), {"num_heads": 2}
    return [
        Case("window_attention", "windows", draw, oracle, torch, two),
        Case("window_attention", "some apart", draw, oracle, torch, {**two, "apart": apart}),
        Case(
            "window_attention",
            "one head, one window",
            normal((1, 1, 3, 6), (1, 3, 3)),
            oracle,
            torch,
            {"num_heads": 1},
        ),
    ]


def _neighbourhoods() -> list[Case]:
    whole, top, bottom = ((slice(*rows), slice(0, 2)) for rows in ((0, 3), (0, 1), (1, 3)))
    corner = np.ones((4, 4), bool)
    corner[0, 3] = corner[3, 0] = False
    split = [Tile(top, top, None), Tile(bottom, bottom, corner)]

    def may(tiles: list[Tile], n: int, grid: tuple[int, int]) -> np.ndarray:
        front = n - grid[0] * grid[1]
        places = front + np.arange(grid[0] * grid[1]).reshape(grid)
        allowed = np.ones((n, n), bool)
        allowed[front:, front:] = False
        for tile in tiles:
            queries, keys = places[tile.queries].ravel(), places[tile.keys].ravel()
            allowed[np.ix_(queries, keys)] = True if tile.allowed is None else tile.allowed
        return allowed

    def oracle(qkv: np.ndarray, num_heads: int, grid: Any, tiles: list[Tile]) -> np.ndarray:
        n = qkv.shape[1]
        none = np.zeros((num_heads, n, n))
        return _one_by_one(qkv, num_heads, none, may(tiles, n, grid), -np.inf)

    def torch(t: Any, qkv: Any, num_heads: int, grid: Any, tiles: list[Tile]) -> Any:
        return _written_out(t, qkv, num_heads, 0, may(tiles, qkv.shape[1], grid), -t.inf)

    given = {"num_heads": 2, "grid": (3, 2)}
    rows = [
        ("one tile", 6, [Tile(whole, whole, None)]),
        ("tiles and a mask", 6, split),
        ("tokens in front", 8, split),
    ]
    return [
        Case("local_attention", about, normal((2, n, 12)), oracle, torch, {**given, "tiles": tiles})
        for about, n, tiles in rows
    ]


CASES = [*_orders(), *_biases(), *_windows(), *_neighbourhoods()]
