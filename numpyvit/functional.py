"""The ops, lifted to Tensors: one line an op, and the few that are made of others."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, overload

from numpyvit import ops
from numpyvit.backend import Generator
from numpyvit.tensor import Tensor, differentiable

TensorOp = Callable[..., Tensor]

# Lifted once, in Tensor, whose operators and methods they are.
add: TensorOp = Tensor.__add__
subtract: TensorOp = Tensor.__sub__
multiply: TensorOp = Tensor.__mul__
divide: TensorOp = Tensor.__truediv__
power: TensorOp = Tensor.pow
negative: TensorOp = Tensor.__neg__
absolute: TensorOp = Tensor.abs
exp: TensorOp = Tensor.exp
log: TensorOp = Tensor.log
sqrt: TensorOp = Tensor.sqrt
tanh: TensorOp = Tensor.tanh
sum: TensorOp = Tensor.sum  # noqa: A001 - the operation's name, as in NumPy
mean: TensorOp = Tensor.mean
var: TensorOp = Tensor.var
max: TensorOp = Tensor.max  # noqa: A001
matmul: TensorOp = Tensor.matmul
reshape: TensorOp = Tensor.reshape
permute: TensorOp = Tensor.permute
broadcast_to: TensorOp = Tensor.expand
index: TensorOp = Tensor.__getitem__

where: TensorOp = differentiable(ops.where)
pad: TensorOp = differentiable(ops.pad)
patches: TensorOp = differentiable(ops.patches)
take_along: TensorOp = differentiable(ops.take_along)
_concat: TensorOp = differentiable(ops.concat)
_stack: TensorOp = differentiable(ops.stack)

linear: TensorOp = differentiable(ops.linear)
conv2d: TensorOp = differentiable(ops.conv2d)

relu: TensorOp = differentiable(ops.relu)
sigmoid: TensorOp = differentiable(ops.sigmoid)
silu: TensorOp = differentiable(ops.silu)
quick_gelu: TensorOp = differentiable(ops.quick_gelu)
gelu: TensorOp = differentiable(ops.gelu)
gelu_tanh: TensorOp = differentiable(ops.gelu_tanh)
softmax: TensorOp = differentiable(ops.softmax)
log_softmax: TensorOp = differentiable(ops.log_softmax)

layer_norm: TensorOp = differentiable(ops.layer_norm)
rms_norm: TensorOp = differentiable(ops.rms_norm)
group_norm: TensorOp = differentiable(ops.group_norm)
dropout: TensorOp = differentiable(ops.dropout)
drop_path: TensorOp = differentiable(ops.drop_path)
packed_attention: TensorOp = differentiable(ops.packed_attention)
_attention: TensorOp = differentiable(ops.attention)
window_attention: TensorOp = differentiable(ops.window_attention)
local_attention: TensorOp = differentiable(ops.local_attention)
relative_bias: TensorOp = differentiable(ops.relative_bias)
rearrange: TensorOp = differentiable(ops.rearrange)
rotate: TensorOp = differentiable(ops.rotate)

cross_entropy: TensorOp = differentiable(ops.cross_entropy)
mse: TensorOp = differentiable(ops.mse)


def concat(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors joined along `axis`."""
    return _concat(*tensors, axis=axis)


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new `axis`."""
    return _stack(*tensors, axis=axis)


def split(x: Tensor, size: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Pieces of `x` along `axis`: of `size` each (the last may be shorter), or of the sizes given.

    Raises ValueError for a size below 1, and for sizes that are negative or do not add up to the
    axis; TypeError for what is not a whole number.
    """
    length = x.shape[axis]
    if isinstance(size, Iterable):
        sizes = [operator.index(each) for each in size]
    else:
        step = operator.index(size)
        if step < 1:
            raise ValueError(f"[split] expected a size of at least 1, got {step}")
        sizes = [min(step, length - start) for start in range(0, length, step)]
    ends = list(itertools.accumulate(sizes, initial=0))
    if ends[-1] != length or any(each < 0 for each in sizes):
        raise ValueError(
            f"[split] expected sizes of at least 0 that add up to {length}, got {sizes}"
        )
    before = (slice(None),) * (axis % x.ndim)
    return [x[(*before, slice(start, end))] for start, end in itertools.pairwise(ends)]


def attention_weights(
    q: Tensor, k: Tensor, bias: Tensor | None = None, *, scale: float | None = None
) -> Tensor:
    """`softmax(q k^T * scale + bias)`: how much each query attends to each key; rows sum to 1.

    `q` (..., N, K), `k` (..., M, K), `bias` broadcast to (..., N, M), `scale` K**-0.5 by default.
    Returns (..., N, M), a Tensor on the tape, so that its gradient can be asked for.
    """
    scores = (q * (q.shape[-1] ** -0.5 if scale is None else scale)) @ k.transpose(-1, -2)
    return softmax(scores if bias is None else scores + bias)


@overload
def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    *,
    scale: float | None = None,
    dropout_p: float = 0.0,
    rng: Generator | None = None,
    return_weights: Literal[False] = False,
) -> Tensor: ...


@overload
def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    *,
    scale: float | None = None,
    dropout_p: float = 0.0,
    rng: Generator | None = None,
    return_weights: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None = None,
    *,
    scale: float | None = None,
    dropout_p: float = 0.0,
    rng: Generator | None = None,
    return_weights: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """`softmax(q k^T * scale + bias) v` (Vaswani et al. 2017, equation 1): (..., N, V).

    Shapes as in `attention_weights`, with `v` (..., M, V). `dropout_p` zeroes weights at random
    and needs `rng`. With `return_weights` the weights, before dropout, come second; this is the
    slower way, step by step.
    """
    if not return_weights:
        return _attention(q, k, v, bias, scale=scale, dropout=dropout_p, rng=rng)
    weights = attention_weights(q, k, bias, scale=scale)
    kept = dropout(weights, dropout_p, rng) if dropout_p else weights
    return kept @ v, weights
