"""Deliberately naive versions of the ops: loops and the definition, in float64."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np


def each(function: Any) -> Any:
    """`function` of numbers, applied value by value."""

    def apply(*arrays: Any) -> np.ndarray:
        broadcast = np.broadcast_arrays(*arrays)
        values = [
            function(*map(float, items)) for items in zip(*map(np.ravel, broadcast), strict=True)
        ]
        return np.array(values, float).reshape(broadcast[0].shape)

    return apply


def stable_sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def gelu(x: float) -> float:
    return x * math.erfc(-x / math.sqrt(2)) / 2


def gelu_tanh(x: float) -> float:
    return x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def reduce(function: Any) -> Any:
    """`function` of a list of numbers, applied to what is reduced, one result at a time."""

    def apply(x: np.ndarray, axis: Any = None, keepdims: bool = False, **settings: Any) -> Any:
        axes = range(x.ndim) if axis is None else np.atleast_1d(axis) % x.ndim
        kept = [place for place in range(x.ndim) if place not in axes]
        y = np.zeros([x.shape[place] for place in kept])
        for position in np.ndindex(*y.shape):
            key: list[Any] = [slice(None)] * x.ndim
            for place, at in zip(kept, position, strict=True):
                key[place] = at
            y[position] = function(x[tuple(key)].ravel().tolist(), **settings)
        return np.expand_dims(y, tuple(axes)) if keepdims else y

    return apply


def variance(values: list[float], correction: int = 1) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - correction)


def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    rows = a[None, :] if a.ndim == 1 else a
    columns = b[:, None] if b.ndim == 1 else b
    leading = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    rows = np.broadcast_to(rows, leading + rows.shape[-2:])
    columns = np.broadcast_to(columns, leading + columns.shape[-2:])
    y = np.zeros((*leading, rows.shape[-2], columns.shape[-1]))
    for *place, i, j in np.ndindex(*y.shape):
        y[(*place, i, j)] = math.fsum(rows[(*place, i)] * columns[(*place, ..., j)])
    if b.ndim == 1:
        y = y[..., 0]
    return y[..., 0, :] if a.ndim == 1 and b.ndim > 1 else y.reshape(y.shape[a.ndim == 1 :])


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    y = np.zeros((*x.shape[:-1], len(weight)))
    for place in np.ndindex(*y.shape):
        y[place] = math.fsum(x[place[:-1]] * weight[place[-1]])
        y[place] += 0 if bias is None else bias[place[-1]]
    return y


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    y = np.empty_like(x)
    for place in np.ndindex(*np.delete(x.shape, axis)):
        key: list[Any] = list(place)
        key.insert(axis % x.ndim, slice(None))
        row = x[tuple(key)].tolist()
        total = math.fsum(math.exp(value - max(row)) for value in row)
        y[tuple(key)] = [math.exp(value - max(row)) / total for value in row]
    return y


def log_softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    shift = x.max(axis, keepdims=True)
    return x - shift - np.log(np.exp(x - shift).sum(axis, keepdims=True))


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    y = np.empty_like(x)
    for place in np.ndindex(*x.shape[:-1]):
        row = x[place].tolist()
        mean = math.fsum(row) / len(row)
        deviation = math.sqrt(variance(row, correction=0) + eps)
        y[place] = [(value - mean) / deviation for value in row] * weight + bias
    return y


def group_norm(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, num_groups: int, eps: float
) -> np.ndarray:
    y, width = np.empty_like(x), x.shape[1] // num_groups
    for image, channel in np.ndindex(*x.shape[:2]):
        first = channel // width * width
        group = x[image, first : first + width].ravel().tolist()
        mean = math.fsum(group) / len(group)
        deviation = math.sqrt(variance(group, correction=0) + eps)
        y[image, channel] = (x[image, channel] - mean) / deviation * weight[channel] + bias[channel]
    return y


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    y = np.empty_like(x)
    for place in np.ndindex(*x.shape[:-1]):
        row = x[place].tolist()
        square = math.fsum(value * value for value in row) / len(row)
        y[place] = [value / math.sqrt(square + eps) for value in row] * weight
    return y


def conv2d(
    x: np.ndarray, weight: np.ndarray, bias: Any = None, stride: Any = 1, padding: Any = 0
) -> np.ndarray:
    (down, right), (above, left) = (np.broadcast_to(pair, 2) for pair in (stride, padding))
    (b, c, height, width), (o, _, p, q) = x.shape, weight.shape
    rows, columns = (height + 2 * above - p) // down + 1, (width + 2 * left - q) // right + 1
    y = np.zeros((b, o, rows, columns))
    for image, out, i, j in np.ndindex(*y.shape):
        for channel, m, n in np.ndindex(c, p, q):
            row, column = i * down + m - above, j * right + n - left
            if 0 <= row < height and 0 <= column < width:
                y[image, out, i, j] += x[image, channel, row, column] * weight[out, channel, m, n]
        y[image, out, i, j] += 0 if bias is None else bias[out]
    return y


def patches(x: np.ndarray, patch: tuple[int, int]) -> np.ndarray:
    (b, c, height, width), (p, q) = x.shape, patch
    corners = itertools.product(range(0, height, p), range(0, width, q))
    rows = [x[:, :, i : i + p, j : j + q].reshape(b, c * p * q) for i, j in corners]
    return np.stack(rows, axis=1)


def keep_mask(shape: tuple[int, ...], p: float, rng: np.random.Generator) -> np.ndarray:
    """The documented rule: 16 raw bits a value, the lowest of each number first, keep from p up."""
    bits: list[int] = []
    while len(bits) < math.prod(shape):
        number = int(rng.bit_generator.random_raw())
        bits += [number >> shift & 0xFFFF for shift in (0, 16, 32, 48)]
    kept = [value >= round(p * 2**16) for value in bits[: math.prod(shape)]]
    return np.array(kept, bool).reshape(shape)


def dropout(x: np.ndarray, p: float, rng: np.random.Generator) -> np.ndarray:
    return np.where(keep_mask(x.shape, p, rng), x / (1 - p), 0)


def drop_path(x: np.ndarray, p: float, rng: np.random.Generator) -> np.ndarray:
    keep = keep_mask((len(x),), p, rng)
    return np.array([row / (1 - p) if kept else 0 * row for row, kept in zip(x, keep, strict=True)])


def attention(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    bias: Any = None,
    scale: float | None = None,
    dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """One query at a time, each weight a scalar product."""
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    shape = (*q.shape[:-1], k.shape[-2])
    bias = np.zeros(shape) if bias is None else np.broadcast_to(bias, shape)
    keep = keep_mask(shape, dropout, rng) if dropout and rng else np.ones(shape)
    y = np.zeros((*q.shape[:-1], v.shape[-1]))
    for place in np.ndindex(*q.shape[:-1]):
        keys, values = k[place[:-1]], v[place[:-1]]
        scores = [scale * math.fsum(q[place] * key) for key in keys]
        weights = softmax(np.array(scores) + bias[place]) * keep[place] / (1 - dropout)
        y[place] = sum(w * value for w, value in zip(weights, values, strict=True))
    return y


def packed_attention(
    qkv: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    num_heads: int,
    dropout: float = 0.0,
    rng: Any = None,
    num_queries: int | None = None,
) -> np.ndarray:
    b, n, width = qkv.shape
    width //= 3
    q, k, v = qkv.reshape(b, n, 3, num_heads, width // num_heads).transpose(2, 0, 3, 1, 4)
    y = attention(q[:, :, :num_queries], k, v, bias, dropout=dropout, rng=rng)
    return y.transpose(0, 2, 1, 3).reshape(b, y.shape[2], width)


def rotate(x: np.ndarray, turns: np.ndarray) -> np.ndarray:
    y = x.copy()
    skipped = x.shape[-2] - len(turns)
    for (token, pair), turn in np.ndenumerate(turns):
        sin, cos = turn.imag, turn.real
        a, b = np.moveaxis(x[..., skipped + token, 2 * pair : 2 * pair + 2], -1, 0)
        y[..., skipped + token, 2 * pair] = a * cos - b * sin
        y[..., skipped + token, 2 * pair + 1] = a * sin + b * cos
    return y


def cross_entropy(
    logits: np.ndarray, target: np.ndarray, label_smoothing: float = 0.0, reduction: str = "mean"
) -> np.ndarray:
    losses = []
    for place in np.ndindex(*logits.shape[:-1]):
        log_p = log_softmax(logits[place])
        wanted = np.eye(len(log_p))[target[place]] if target.dtype.kind == "i" else target[place]
        wanted = wanted * (1 - label_smoothing) + label_smoothing / len(log_p)
        losses.append(-math.fsum(wanted * log_p))
    total = math.fsum(losses)
    return np.array(total / len(losses) if reduction == "mean" else total)


def mse(x: np.ndarray, target: np.ndarray, reduction: str = "mean") -> np.ndarray:
    squares = [
        (a - b) ** 2 for a, b in zip(x.ravel().tolist(), target.ravel().tolist(), strict=True)
    ]
    return np.array(math.fsum(squares) / (len(squares) if reduction == "mean" else 1))
