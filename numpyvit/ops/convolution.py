"""Two-dimensional convolution as a matrix product over unfolded windows (im2col)."""

from __future__ import annotations

from numpyvit.backend import Array, array_module
from numpyvit.ops.types import Needs, OpResult

Pair = tuple[int, int]


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    /,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
) -> OpResult:
    """Cross-correlation of images `x` (B, C, H, W) with `weight` (O, C, P, Q); `bias` (O,).

    Every window becomes a row of P*Q*C values, so that the whole convolution is one product.
    Returns (B, O, (H + 2*padding - P) // stride + 1, (W + 2*padding - Q) // stride + 1), whose
    channels are neighbours in memory: the next convolution copies its windows in long pieces.
    """
    stride, padding = _pair(stride, "stride", 1), _pair(padding, "padding", 0)
    _check(x, weight, padding)
    xp = array_module(x, weight, bias)
    (o, c, p, q), (height, width) = weight.shape, x.shape[2:]
    padded = xp.ascontiguousarray(x.transpose(0, 2, 3, 1))  # b c h w -> b h w c
    if any(padding):
        padded = xp.pad(padded, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))
    windows = _windows(padded, (p, q), stride)
    b, h, w, *_ = windows.shape
    rows = windows.reshape(b * h * w, p * q * c)
    kernel = weight.transpose(0, 2, 3, 1).reshape(o, p * q * c)
    y = rows @ kernel.T
    if bias is not None:
        y += bias

    def pullback(dy: Array, needs: Needs = (True, True, True)) -> tuple[Array | None, ...]:
        dy = dy.transpose(0, 2, 3, 1).reshape(-1, o)
        dx = dweight = dbias = None
        if needs[0]:
            dx = _fold((dy @ kernel).reshape(windows.shape), padded.shape, stride)
            dx = dx[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width]
            dx = dx.transpose(0, 3, 1, 2)
        if needs[1]:
            dweight = (dy.T @ rows).reshape(o, p, q, c).transpose(0, 3, 1, 2)
            dweight = xp.ascontiguousarray(dweight)
        if bias is not None and needs[2]:
            dbias = xp.ones(len(dy), dy.dtype) @ dy
        return (dx, dweight, dbias)[: len(needs)]

    return y.reshape(b, h, w, o).transpose(0, 3, 1, 2), pullback


def _windows(padded: Array, kernel: Pair, stride: Pair) -> Array:
    """A view of every window: (B, H, W, C) -> (B, rows, columns, P, Q, C)."""
    b, height, width, c = padded.shape
    rows, columns = (height - kernel[0]) // stride[0] + 1, (width - kernel[1]) // stride[1] + 1
    outer, down, right, inner = padded.strides
    return array_module(padded).lib.stride_tricks.as_strided(
        padded,
        (b, rows, columns, *kernel, c),
        (outer, down * stride[0], right * stride[1], down, right, inner),
    )


def _fold(windows: Array, shape: tuple[int, ...], stride: Pair) -> Array:
    """Add the windows (B, rows, columns, P, Q, C) up where they lie: the reverse of `_windows`."""
    _, rows, columns, p, q, _ = windows.shape
    if (rows, columns) == shape[1:3]:  # windows of one pixel
        return windows.reshape(shape)
    folded = array_module(windows).zeros(shape, windows.dtype)
    for i in range(p):
        for j in range(q):
            row_ends, column_ends = i + stride[0] * rows, j + stride[1] * columns
            folded[:, i : row_ends : stride[0], j : column_ends : stride[1]] += windows[
                :, :, :, i, j
            ]
    return folded


def _pair(value: int | Pair, name: str, least: int) -> Pair:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < least:
        raise ValueError(f"[conv2d] expected {name} of at least {least}, got {value}")
    return pair


def _check(x: Array, weight: Array, padding: Pair) -> None:
    if x.ndim != 4 or weight.ndim != 4 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            "[conv2d] expected images (B, C, H, W) and a weight (O, C, P, Q) of the same C, "
            f"got {x.shape} and {weight.shape}"
        )
    if any(x.shape[2 + i] + 2 * padding[i] < weight.shape[2 + i] for i in (0, 1)):
        raise ValueError(
            f"[conv2d] expected images at least as large as the kernel {weight.shape[2:]}, "
            f"got {x.shape[2:]} with padding {padding}; pad more or use a smaller kernel"
        )
