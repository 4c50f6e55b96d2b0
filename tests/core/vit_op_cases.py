"""The rest of the table of op cases: shapes, products and the Vision Transformer's own ops."""

from __future__ import annotations

from typing import Any

import numpy as np
from core import naive
from core.op_cases import BASIC_CASES, Case, also, constant, normal
from core.window_op_cases import CASES as WINDOW_CASES


def _f(torch: Any) -> Any:
    return torch.nn.functional


def _shaping() -> list[Case]:
    def torch_pad(t: Any, x: Any, widths: Any, value: float = 0.0) -> Any:
        flat = [width for pair in reversed(widths) for width in pair]
        return _f(t).pad(x, flat, value=value)

    def padded(x: np.ndarray, widths: Any, value: float = 0.0) -> np.ndarray:
        y = np.full([n + a + b for n, (a, b) in zip(x.shape, widths, strict=True)], value, x.dtype)
        y[tuple(slice(a, a + n) for n, (a, _) in zip(x.shape, widths, strict=True))] = x
        return y

    def permuted(x: np.ndarray, axes: Any) -> np.ndarray:
        y = np.zeros([x.shape[axis] for axis in axes])
        for place in np.ndindex(*y.shape):
            source = [0] * x.ndim
            for axis, at in zip(axes, place, strict=True):
                source[axis] = at
            y[place] = x[tuple(source)]
        return y

    reshape = (
        lambda x, shape: np.array(x.tolist()).reshape(shape),
        lambda t, x, shape: x.reshape(shape),
    )
    permute = (permuted, lambda t, x, axes: x.permute(axes))
    spread = (lambda x, shape: x + np.zeros(shape), lambda t, x, shape: x.broadcast_to(shape))
    pad = (padded, torch_pad)
    patches = (
        naive.patches,
        lambda t, x, patch: _f(t).unfold(x, patch, stride=patch).transpose(1, 2),
    )
    images = normal((2, 3, 4, 6))
    return [
        Case("reshape", "to a matrix", normal((2, 3, 4)), *reshape, {"shape": (6, 4)}),
        Case("reshape", "with an unknown", normal((2, 3, 4)), *reshape, {"shape": (-1, 2)}),
        Case("permute", "three axes", normal((2, 3, 4)), *permute, {"axes": (2, 0, 1)}),
        Case("permute", "negative axes", normal((2, 3, 4)), *permute, {"axes": (-1, 0, -2)}),
        Case("broadcast_to", "a row", normal((4,)), *spread, {"shape": (2, 3, 4)}),
        Case("broadcast_to", "inner axis", normal((2, 1, 4)), *spread, {"shape": (2, 3, 4)}),
        Case("broadcast_to", "as it is", normal((2, 3)), *spread, {"shape": (2, 3)}),
        Case("pad", "zeros", normal((2, 3)), *pad, {"widths": ((1, 0), (2, 1))}),
        Case("pad", "a value", normal((2, 3)), *pad, {"widths": ((0, 2), (0, 0)), "value": 3.0}),
        Case("patches", "square", images, *patches, {"patch": (2, 2)}),
        Case("patches", "oblong", images, *patches, {"patch": (4, 3)}),
        Case("patches", "of one pixel", images, *patches, {"patch": (1, 1)}),
    ]


def _joining() -> list[Case]:
    def join(*xs: np.ndarray, axis: int = 0) -> np.ndarray:
        rows = [row for x in xs for row in np.moveaxis(x, axis, 0)]
        return np.moveaxis(np.array(rows), 0, axis)

    def pile(*xs: np.ndarray, axis: int = 0) -> np.ndarray:
        return np.moveaxis(np.array([x.tolist() for x in xs]), 0, axis)

    concat = (join, lambda t, *xs, axis=0: t.concat(xs, axis))
    stack = (pile, lambda t, *xs, axis=0: t.stack(xs, axis))
    three = normal((3, 2), (3, 2), (3, 2))
    return [
        Case("concat", "along rows", normal((1, 3), (4, 3)), *concat),
        Case("concat", "along the last", normal((2, 3), (2, 1), (2, 2)), *concat, {"axis": -1}),
        Case("concat", "one array", normal((2, 3)), *concat),
        Case("concat", "with nothing", normal((0, 3), (2, 3)), *concat),
        Case("stack", "first", three, *stack),
        Case("stack", "last", three, *stack, {"axis": -1}),
        Case("stack", "between", three, *stack, {"axis": 1}),
        Case("stack", "numbers", normal((), ()), *stack),
    ]


def _indexing() -> list[Case]:
    keys: list[tuple[str, Any]] = [
        ("an integer", 1),
        ("a negative integer", -1),
        ("a slice", slice(1, 3)),
        ("a slice with a step", slice(None, None, 2)),
        ("integers and slices", (slice(None), 0, slice(1, None))),
        ("an ellipsis", (..., -1)),
        ("a new axis", (None, slice(1, 2), None)),
        ("an integer array", np.array([2, 0])),
        ("an integer array that repeats", np.array([2, 0, 2, 2, -1])),
        ("a matrix of integers", np.array([[0, 1], [1, 1]])),
        ("a list", [0, 0, 2]),
        ("two integer arrays", (np.array([0, 2, 0]), np.array([1, 1, 1]))),
        ("an integer array after a slice", (slice(None), np.array([1, 1, 0]))),
        ("two integer arrays apart", (np.array([0, 0]), slice(None), np.array([3, 3]))),
        ("an integer array and a new axis", (None, np.array([1, 1]), ...)),
        ("a mask", np.array([True, False, True])),
        ("a mask of two axes", np.array([[True, False], [False, False], [True, True]])),
        ("one value", (2, 1, 3)),
        ("nothing", slice(0, 0)),
    ]

    def torch(t: Any, x: Any, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        return x[tuple(t.tensor(p) if isinstance(p, np.ndarray) else p for p in parts)]

    def oracle(x: np.ndarray, key: Any) -> np.ndarray:
        """Which value each place of the result comes from, by indexing their numbers."""
        numbers = np.arange(x.size).reshape(x.shape)[key]
        return np.array([x.flat[n] for n in np.ravel(numbers)]).reshape(np.shape(numbers))

    return [
        Case("index", about, normal((3, 2, 4)), oracle, torch, {"key": key}) for about, key in keys
    ]


def _taking() -> list[Case]:
    def oracle(x: np.ndarray, indices: np.ndarray) -> np.ndarray:
        return np.array([[sample[i] for i in row] for sample, row in zip(x, indices, strict=True)])

    def torch(t: Any, x: Any, indices: np.ndarray) -> Any:
        places = t.tensor(indices).reshape(*indices.shape, *[1] * (x.ndim - 2))
        return x.gather(1, places.expand(*indices.shape, *x.shape[2:]))

    rows: list[tuple[str, tuple[int, ...], list[list[int]]]] = [
        ("some rows", (2, 4, 3), [[2, 0], [1, 3]]),
        ("all rows, in another order", (2, 3, 2), [[2, 0, 1], [1, 0, 2]]),
        ("rows that repeat", (2, 3, 2), [[2, 2, 0, 2], [1, 0, 2, 0]]),
        ("values", (3, 4), [[3], [0], [1]]),
        ("matrices", (2, 3, 2, 2), [[1, 2], [2, 0]]),
        ("nothing", (2, 3, 2), [[], []]),
    ]
    return [
        Case(
            "take_along",
            about,
            normal(shape),
            oracle if np.size(indices) else lambda x, indices: np.zeros((2, 0, 2)),
            torch,
            {"indices": np.array(indices, np.int64)},
            smooth=np.size(indices) > 0,
        )
        for about, shape, indices in rows
    ]


def _products() -> list[Case]:
    matmul = (naive.matmul, lambda t, a, b: a @ b)
    linear = (naive.linear, lambda t, x, w, b=None: _f(t).linear(x, w, b))
    shapes: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = [
        ("matrices", (3, 4), (4, 2)),
        ("batches", (2, 3, 4), (2, 4, 5)),
        ("a batch and a matrix", (2, 3, 4), (4, 5)),
        ("a matrix and a batch", (3, 4), (2, 4, 5)),
        ("stretched batches", (2, 1, 3, 4), (5, 4, 2)),
        ("two vectors", (4,), (4,)),
        ("a vector and a matrix", (4,), (4, 3)),
        ("a matrix and a vector", (3, 4), (4,)),
        ("a vector and a batch", (4,), (2, 4, 3)),
        ("a batch and a vector", (2, 3, 4), (4,)),
        ("axes of one", (1, 1), (1, 1)),
    ]
    return [
        *(Case("matmul", about, normal(a, b), *matmul) for about, a, b in shapes),
        Case("linear", "a matrix", normal((3, 4), (5, 4), (5,)), *linear),
        Case("linear", "tokens", normal((2, 3, 4), (5, 4), (5,)), *linear),
        Case("linear", "no bias", also(normal((2, 3, 4), (5, 4)), None), *linear),
        Case("linear", "a vector", normal((4,), (5, 4), (5,)), *linear),
        Case("linear", "width one", normal((3, 1), (1, 1), (1,)), *linear),
        Case("linear", "an empty batch", normal((0, 3, 4), (5, 4), (5,)), *linear),
    ]


def _softmaxes() -> list[Case]:
    cases = []
    for op, oracle, torch in [
        ("softmax", naive.softmax, lambda t, x, axis=-1: x.softmax(axis)),
        ("log_softmax", naive.log_softmax, lambda t, x, axis=-1: x.log_softmax(axis)),
    ]:
        cases += [
            Case(op, "a vector", normal((5,)), oracle, torch),
            Case(op, "three axes", normal((2, 3, 4)), oracle, torch),
            Case(op, "the first axis", normal((4, 3)), oracle, torch, {"axis": 0}),
            Case(op, "the middle axis", normal((2, 3, 4)), oracle, torch, {"axis": 1}),
            Case(op, "large logits", normal((3, 5), scale=1e4), oracle, torch),
            Case(op, "a constant row", constant([[7.0] * 4]), oracle, torch),
            Case(op, "an axis of one", normal((3, 1)), oracle, torch),
            Case(op, "an empty batch", normal((0, 3)), oracle, torch, smooth=False),
        ]
    return cases


def _layer_norms() -> list[Case]:
    def torch(t: Any, x: Any, weight: Any, bias: Any, eps: float) -> Any:
        return _f(t).layer_norm(x, x.shape[-1:], weight, bias, eps)

    def rows(x: Any) -> Any:
        return lambda rng: (np.array(x), *normal((4,), (4,))(rng))

    def far(rng: np.random.Generator) -> Any:
        return 30 + rng.standard_normal((3, 8)), *normal((8,), (8,))(rng)

    table: list[tuple[str, Any, float]] = [
        ("a matrix", normal((5, 8), (8,), (8,)), 1e-6),
        ("tokens", normal((2, 3, 8), (8,), (8,)), 1e-5),
        ("a vector", normal((8,), (8,), (8,)), 1e-6),
        ("a tiny epsilon", normal((5, 8), (8,), (8,)), 1e-12),
        ("a constant row", rows([[2.0] * 4, [1.0, 2.0, 3.0, 4.0]]), 1e-2),
        ("a width of one", normal((3, 1), (1,), (1,)), 1e-2),
        ("a large mean", far, 1e-6),
        ("an empty batch", normal((0, 8), (8,), (8,)), 1e-6),
    ]
    return [
        Case("layer_norm", about, draw, naive.layer_norm, torch, {"eps": eps})
        for about, draw, eps in table
    ]


def _group_norms() -> list[Case]:
    def torch(t: Any, x: Any, weight: Any, bias: Any, num_groups: int, eps: float) -> Any:
        return _f(t).group_norm(x, num_groups, weight, bias, eps)

    def constant_group(rng: np.random.Generator) -> Any:
        return np.arange(16.0).reshape(1, 4, 2, 2) // 8, *normal((4,), (4,))(rng)

    def far(rng: np.random.Generator) -> Any:
        return 30 + rng.standard_normal((2, 6, 4, 4)), *normal(*affine)(rng)

    affine = (6,), (6,)
    table: list[tuple[str, Any, int, float]] = [
        ("images", normal((2, 6, 3, 5), *affine), 2, 1e-5),
        ("one group", normal((2, 6, 3, 5), *affine), 1, 1e-6),
        ("a group a channel", normal((2, 6, 3, 5), *affine), 6, 1e-5),
        ("vectors", normal((5, 6), *affine), 1, 1e-5),
        ("a row of places", normal((2, 6, 7), *affine), 3, 1e-5),
        ("a constant group", constant_group, 2, 1e-2),
        ("a large mean", far, 2, 1e-5),
        ("an empty batch", normal((0, 6, 3, 3), *affine), 2, 1e-5),
    ]
    return [
        Case("group_norm", about, draw, naive.group_norm, torch, {"num_groups": groups, "eps": eps})
        for about, draw, groups, eps in table
    ]


def _rms_norms() -> list[Case]:
    def torch(t: Any, x: Any, weight: Any, eps: float) -> Any:
        return _f(t).rms_norm(x, x.shape[-1:], weight, eps)

    table: list[tuple[str, Any, float]] = [
        ("a matrix", normal((5, 8), (8,)), 1e-6),
        ("tokens", normal((2, 3, 8), (8,)), 1e-5),
        ("a vector", normal((8,), (8,)), 1e-6),
        ("a tiny epsilon", normal((5, 8), (8,)), 1e-12),
        ("a row of zeros", lambda rng: (np.eye(2, 4), *normal((4,))(rng)), 1e-2),
        ("a row of zeros alone", lambda rng: (np.zeros((1, 4)), *normal((4,))(rng)), 1e-2),
        ("a width of one", normal((3, 1), (1,)), 1e-2),
        ("large values", normal((3, 8), (8,), scale=1e3), 1e-6),
        ("an empty batch", normal((0, 8), (8,)), 1e-6),
    ]
    return [
        Case("rms_norm", about, draw, naive.rms_norm, torch, {"eps": eps})
        for about, draw, eps in table
    ]


def _noises() -> list[Case]:
    def dropout(t: Any, x: Any, p: float, rng: Any) -> Any:
        return x * t.tensor(naive.keep_mask(tuple(x.shape), p, rng)) / (1 - p)

    def drop_path(t: Any, x: Any, p: float, rng: Any) -> Any:
        keep = t.tensor(naive.keep_mask((len(x),), p, rng))
        return x * keep.reshape(-1, *[1] * (x.ndim - 1)) / (1 - p)

    def with_p(p: float) -> dict[str, Any]:
        return {"p": p, "rng": np.random.default_rng(3)}

    return [
        Case("dropout", "a matrix", normal((5, 7)), naive.dropout, dropout, with_p(0.4)),
        Case("dropout", "p = 0", normal((5, 7)), naive.dropout, dropout, with_p(0.0)),
        Case("dropout", "one number", normal(()), naive.dropout, dropout, with_p(0.5)),
        Case("dropout", "no values", normal((0, 3)), naive.dropout, dropout, with_p(0.5)),
        Case("drop_path", "tokens", normal((9, 3, 2)), naive.drop_path, drop_path, with_p(0.4)),
        Case("drop_path", "vectors", normal((9, 3)), naive.drop_path, drop_path, with_p(0.4)),
    ]


def _attentions() -> list[Case]:
    def torch(
        t: Any,
        q: Any,
        k: Any,
        v: Any,
        bias: Any = None,
        scale: Any = None,
        dropout: Any = 0.0,
        rng: Any = None,
    ) -> Any:
        if not dropout:
            bias = bias if bias is None else bias.expand(*q.shape[:-1], k.shape[-2])
            return _f(t).scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
        scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
        weights = (scores if bias is None else scores + bias).softmax(-1)
        keep = naive.keep_mask(tuple(weights.shape), dropout, rng)
        return (weights * t.tensor(keep) / (1 - dropout)) @ v

    def packed(
        t: Any,
        qkv: Any,
        bias: Any = None,
        *,
        num_heads: int,
        dropout: Any = 0.0,
        rng: Any = None,
        num_queries: Any = None,
    ) -> Any:
        b, n, width = qkv.shape
        width //= 3
        q, k, v = qkv.reshape(b, n, 3, num_heads, width // num_heads).permute(2, 0, 3, 1, 4)
        y = torch(t, q[:, :, :num_queries], k, v, bias, dropout=dropout, rng=rng)
        return y.transpose(1, 2).reshape(b, y.shape[2], width)

    shapes = (2, 3, 5, 4), (2, 3, 6, 4), (2, 3, 6, 7)
    noise = {"dropout": 0.3, "rng": np.random.default_rng(3)}
    mask = np.triu(np.full((5, 6), -np.inf), 2)
    large = normal((1, 2, 5, 4), (1, 2, 5, 4), (1, 2, 5, 4), scale=4)
    table: list[tuple[str, Any, dict[str, Any]]] = [
        ("batch and heads", normal(*shapes), {}),
        ("no leading axes", normal((5, 4), (6, 4), (6, 3)), {}),
        ("a scale", normal(*shapes), {"scale": 0.3}),
        ("a bias", normal(*shapes, (2, 3, 5, 6)), {}),
        ("a bias for all heads", normal(*shapes, (5, 6)), {}),
        ("a bias by head", normal(*shapes, (3, 1, 6)), {}),
        ("a bias and a scale", normal(*shapes, (5, 6)), {"scale": 2.0}),
        ("large scores", large, {}),
        ("large scores and a bias", lambda rng: (*large(rng), *normal((2, 5, 5))(rng)), {}),
        ("a large bias", lambda rng: (*normal(*shapes)(rng), *normal((5, 6), scale=1e3)(rng)), {}),
        ("one token", normal((2, 1, 4), (2, 1, 4), (2, 1, 3)), {}),
        ("dropout", normal(*shapes), noise),
        ("dropout and a bias", normal(*shapes, (5, 6)), noise),
        ("dropout and large scores", large, noise),
    ]
    masked = also(normal(*shapes), mask)
    qkv = normal((2, 5, 24))
    packed_table: list[tuple[str, Any, dict[str, Any]]] = [
        ("two heads", qkv, {"num_heads": 2}),
        ("one head", qkv, {"num_heads": 1}),
        ("heads of width one", qkv, {"num_heads": 8}),
        ("one token", normal((3, 1, 12)), {"num_heads": 2}),
        ("large scores", normal((1, 5, 12), scale=5), {"num_heads": 1}),
        ("dropout", qkv, {"num_heads": 2, **noise}),
        ("one query", qkv, {"num_heads": 2, "num_queries": 1}),
        ("some queries and dropout", qkv, {"num_heads": 2, "num_queries": 3, **noise}),
        ("an empty batch", normal((0, 5, 24)), {"num_heads": 2}),
        ("a bias by head", normal((2, 5, 24), (2, 5, 5)), {"num_heads": 2}),
        (
            "a bias, some queries and dropout",
            normal((2, 5, 24), (2, 3, 5)),
            {"num_heads": 2, "num_queries": 3, **noise},
        ),
    ]
    return [
        *(Case("attention", about, a, naive.attention, torch, given) for about, a, given in table),
        Case("attention", "a mask of -inf", masked, naive.attention, torch, smooth=False),
        *(
            Case("packed_attention", about, a, naive.packed_attention, packed, given)
            for about, a, given in packed_table
        ),
    ]


def _rotations() -> list[Case]:
    def torch(t: Any, x: Any, turns: Any) -> Any:
        (p, m), c = turns.shape, x.shape[-1]
        head, tail = x[..., : x.shape[-2] - p, :], x[..., x.shape[-2] - p :, :]
        even, odd = tail[..., 0 : 2 * m : 2], tail[..., 1 : 2 * m : 2]
        cos, sin = (t.tensor(part).to(x.dtype) for part in (turns.real, turns.imag))
        pairs = t.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(-2)
        return t.cat([head, t.cat([pairs, tail[..., 2 * m : c]], -1)], -2)

    def turns(tokens: int, pairs: int) -> dict[str, Any]:
        return {"turns": np.exp(1j * np.random.default_rng(3).uniform(0, 9, (tokens, pairs)))}

    table: list[tuple[str, Any, dict[str, Any]]] = [
        ("all tokens and channels", normal((2, 5, 4)), turns(5, 2)),
        ("the last tokens of heads", normal((2, 3, 5, 4)), turns(4, 2)),
        ("the first channels", normal((2, 5, 6)), turns(3, 2)),
        ("a quarter turn", normal((1, 2)), {"turns": np.array([[1j]])}),
        ("no images", normal((0, 5, 4)), turns(5, 2)),
    ]
    return [
        Case("rotate", about, x, naive.rotate, torch, given, smooth=about != "no images")
        for about, x, given in table
    ]


def _convolutions() -> list[Case]:
    def torch(t: Any, x: Any, w: Any, b: Any = None, stride: Any = 1, padding: Any = 0) -> Any:
        return _f(t).conv2d(x, w, b, stride, padding)

    table: list[tuple[str, Any, dict[str, Any]]] = [
        ("3 x 3", normal((2, 3, 5, 6), (4, 3, 3, 3), (4,)), {}),
        ("3 x 3, padded", normal((2, 3, 5, 6), (4, 3, 3, 3), (4,)), {"padding": 1}),
        ("strided", normal((2, 3, 7, 6), (4, 3, 3, 3), (4,)), {"stride": 2, "padding": 1}),
        ("oblong", normal((2, 2, 7, 6), (3, 2, 2, 3), (3,)), {"stride": (3, 1), "padding": (2, 0)}),
        ("a stride over the kernel", normal((1, 2, 7, 7), (3, 2, 2, 2), (3,)), {"stride": 3}),
        ("rows left over", normal((1, 2, 6, 7), (3, 2, 3, 3), (3,)), {"stride": 2}),
        ("no bias", also(normal((2, 3, 5, 5), (4, 3, 2, 2)), None), {}),
        ("1 x 1", normal((2, 3, 4, 4), (5, 3, 1, 1), (5,)), {}),
        ("the whole image", normal((2, 3, 4, 4), (5, 3, 4, 4), (5,)), {}),
        ("patches", normal((2, 3, 8, 8), (5, 3, 4, 4), (5,)), {"stride": 4}),
    ]
    return [Case("conv2d", about, draw, naive.conv2d, torch, given) for about, draw, given in table]


def _losses() -> list[Case]:
    def entropy(
        t: Any, logits: Any, target: Any, label_smoothing: float = 0.0, reduction: str = "mean"
    ) -> Any:
        classes = logits.shape[-1]
        flat = target.reshape(-1, classes) if target.is_floating_point() else target.reshape(-1)
        return _f(t).cross_entropy(
            logits.reshape(-1, classes), flat, label_smoothing=label_smoothing, reduction=reduction
        )

    def soft(rng: np.random.Generator) -> Any:
        target = rng.uniform(0, 1, (3, 5))
        return rng.standard_normal((3, 5)), target / target.sum(-1, keepdims=True)

    def unnormalised(rng: np.random.Generator) -> Any:
        return rng.standard_normal((3, 5)), rng.uniform(0, 2, (3, 5))

    labels, few = [0, 4, 2], also(normal((3, 5)), [0, 4, 2])
    table: list[tuple[str, Any, dict[str, Any]]] = [
        ("labels", few, {}),
        ("labels, summed", few, {"reduction": "sum"}),
        ("labels, smoothed", few, {"label_smoothing": 0.1}),
        ("labels of tokens", also(normal((2, 3, 5)), [labels, labels]), {}),
        ("one label", also(normal((5,)), np.array(3)), {}),
        ("soft targets", soft, {}),
        ("soft targets, summed, smoothed", soft, {"reduction": "sum", "label_smoothing": 0.2}),
        ("soft targets that do not add up to one", unnormalised, {}),
        ("large logits", also(normal((3, 5), scale=1e3), labels), {}),
        ("a constant row", constant([[3.0] * 4], [1]), {}),
        ("one class", also(normal((3, 1)), [0, 0, 0]), {}),
    ]

    def mse(t: Any, x: Any, target: Any, reduction: str = "mean") -> Any:
        return _f(t).mse_loss(x, target, reduction=reduction)

    pair = normal((3, 4), (3, 4))
    return [
        *(
            Case("cross_entropy", a, d, naive.cross_entropy, entropy, given)
            for a, d, given in table
        ),
        Case("mse", "the mean", pair, naive.mse, mse),
        Case("mse", "the sum", pair, naive.mse, mse, {"reduction": "sum"}),
        Case("mse", "one number", normal((), ()), naive.mse, mse),
    ]


CASES = [
    *BASIC_CASES,
    *_shaping(),
    *_joining(),
    *_indexing(),
    *_taking(),
    *_products(),
    *_softmaxes(),
    *_layer_norms(),
    *_rms_norms(),
    *_group_norms(),
    *_noises(),
    *_attentions(),
    *_rotations(),
    *_convolutions(),
    *_losses(),
    *WINDOW_CASES,
]
