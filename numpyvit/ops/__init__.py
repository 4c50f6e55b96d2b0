"""The mathematics: each op takes arrays and returns its value and its pullback (see `types`)."""

from __future__ import annotations

from numpyvit.ops.types import OpResult, sum_to
from numpyvit.ops.elementwise import (
    absolute,
    add,
    divide,
    exp,
    log,
    multiply,
    negative,
    power,
    sqrt,
    subtract,
    tanh,
    where,
)
from numpyvit.ops.reduction import max, mean, sum, var
from numpyvit.ops.shaping import (
    broadcast_to,
    concat,
    index,
    pad,
    patches,
    permute,
    reshape,
    stack,
    take_along,
)
from numpyvit.ops.product import linear, matmul
from numpyvit.ops.small_products import right_side as right_side
from numpyvit.ops.special import erf
from numpyvit.ops.activation import (
    gelu,
    gelu_tanh,
    log_softmax,
    quick_gelu,
    relu,
    sigmoid,
    silu,
    softmax,
)
from numpyvit.ops.normalization import layer_norm, rms_norm
from numpyvit.ops.group_normalization import group_norm
from numpyvit.ops.regularization import drop_path, dropout
from numpyvit.ops.tiled_attention import TiledAttention as TiledAttention
from numpyvit.ops.attention import attention, packed_attention
from numpyvit.ops.windows import rearrange, relative_bias, window_attention
from numpyvit.ops.local_attention import local_attention
from numpyvit.ops.rotation import rotate
from numpyvit.ops.convolution import conv2d
from numpyvit.ops.loss import cross_entropy, mse

__all__ = [
    "OpResult",
    "absolute",
    "add",
    "attention",
    "broadcast_to",
    "concat",
    "conv2d",
    "cross_entropy",
    "divide",
    "drop_path",
    "dropout",
    "erf",
    "exp",
    "gelu",
    "gelu_tanh",
    "group_norm",
    "index",
    "layer_norm",
    "linear",
    "local_attention",
    "log",
    "log_softmax",
    "matmul",
    "max",
    "mean",
    "mse",
    "multiply",
    "negative",
    "packed_attention",
    "pad",
    "patches",
    "permute",
    "power",
    "quick_gelu",
    "rearrange",
    "relative_bias",
    "relu",
    "reshape",
    "rms_norm",
    "rotate",
    "sigmoid",
    "silu",
    "softmax",
    "sqrt",
    "stack",
    "subtract",
    "sum",
    "sum_to",
    "take_along",
    "tanh",
    "var",
    "where",
    "window_attention",
]
