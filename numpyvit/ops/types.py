"""What every op returns, and the one rule of broadcasting that their gradients share.

An op takes arrays and returns its value and its pullback, the function that carries a gradient of
the value back to the arrays. What stands before the slash in its signature is an array and gets a
gradient; what stands after it is a setting. An op of one array has `pullback(dy)`; an op of several
has `pullback(dy, needs)`, where `needs` says for which of them a gradient is wanted, and returns
None for the others. Neither half writes into its arguments. A pullback is called once: it may
overwrite what the forward half saved for it. An op with a setting `recorded` is told whether the
pullback can be called at all, so that it prepares the way back only then.
"""

from __future__ import annotations

from collections.abc import Callable

from numpyvit.backend import Array, array_module

Needs = tuple[bool, ...]
Pullback = Callable[..., tuple[Array | None, ...]]
OpResult = tuple[Array, Pullback]


def sum_to(dy: Array, like: Array) -> Array:
    """Sum `dy` over the axes along which `like` was broadcast: the reverse of broadcasting."""
    shape = array_module(dy).shape(like)
    if dy.shape == shape:
        return dy
    added = dy.ndim - len(shape)
    stretched = tuple(
        axis + added for axis, size in enumerate(shape) if size == 1 and dy.shape[axis + added] != 1
    )
    return dy.sum((*range(added), *stretched), keepdims=True).reshape(shape)
