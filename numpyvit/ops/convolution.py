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

    Every window becomes a column of C*P*Q values, so that the whole convolution is one product.
    Returns (B, O, (H + 2*padding - P) // stride + 1, (W + 2*padding - Q) // stride + 1).
    """
    stride, padding = _pair(stride, "stride", 1), _pair(padding, "padding", 0)
    _check(x, weight, padding)
    xp = array_module(x, weight, bias)
    padded = x
    if any(padding):
        padded = xp.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2))
    o, c, p, q = weight.shape
    windows = _windows(padded, (p, q), stride)
    b, _, h, w, *_ = windows.shape
    # b c h w p q -> (b h w) (c p q)
    columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(b * h * w, c * p * q)
    y = columns @ weight.reshape(o, -1).T
    if bias is not None:
        y += bias

    def pullback(dy: Array, needs: Needs = (True, True, True)) -> tuple[Array | None, ...]:
        dy = dy.transpose(0, 2, 3, 1).reshape(-1, o)
        dx = None
        if needs[0]:
            dcolumns = (dy @ weight.reshape(o, -1)).reshape(b, h, w, c, p, q)
            dx = _fold(dcolumns.transpose(0, 3, 1, 2, 4, 5), padded.shape, stride)
            height, width = x.shape[2:]
            dx = dx[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width]
        dweight = (dy.T @ columns).reshape(weight.shape) if needs[1] else None
        dbias = dy.sum(0) if bias is not None and needs[2] else None
        return (dx, dweight, dbias)[: len(needs)]

    return y.reshape(b, h, w, o).transpose(0, 3, 1, 2), pullback


def _windows(padded: Array, kernel: Pair, stride: Pair) -> Array:
    """A view of every window: (B, C, H, W) -> (B, C, rows, columns, P, Q)."""
    b, c, height, width = padded.shape
    rows, columns = (height - kernel[0]) // stride[0] + 1, (width - kernel[1]) // stride[1] + 1
    *outer, down, right = padded.strides
    return array_module(padded).lib.stride_tricks.as_strided(
        padded,
        (b, c, rows, columns, *kernel),
        (*outer, down * stride[0], right * stride[1], down, right),
    )


def _fold(windows: Array, shape: tuple[int, ...], stride: Pair) -> Array:
    """Add the windows (B, C, rows, columns, P, Q) up where they lie: the reverse of `_windows`."""
    _, _, rows, columns, p, q = windows.shape
    folded = array_module(windows).zeros(shape, windows.dtype)
    for i in range(p):
        for j in range(q):
            row_ends, column_ends = i + stride[0] * rows, j + stride[1] * columns
            folded[:, :, i : row_ends : stride[0], j : column_ends : stride[1]] += windows[
                ..., i, j
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
