"""Tensor: an array that remembers how it was computed, under PyTorch's names."""

from __future__ import annotations

import functools
import inspect
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy

from numpyvit import ops
from numpyvit.backend import Array, array_module, device_of, to_device, to_numpy
from numpyvit.tensor.tape import Node, is_recording, walk_back

_accumulation = threading.Lock()
_ALIASES = {"dim": "axis", "keepdim": "keepdims"}  # PyTorch's names of settings, and NumPy's


def differentiable(op: Callable[..., ops.OpResult]) -> Callable[..., Tensor]:
    """Lift an op on arrays to Tensors (numbers and arrays may stand among them as constants).

    The op's positional-only parameters (or `*xs`) are arrays; all others are settings. The settings
    `axis` and `keepdims` may be called `dim` and `keepdim`, as in PyTorch; `recorded` is not the
    caller's to set. Raises TypeError for an op that has no arrays.
    """
    signature = inspect.signature(op)
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    variadic = inspect.Parameter.VAR_POSITIONAL in kinds
    arity = kinds.count(inspect.Parameter.POSITIONAL_ONLY)
    if not (arity or variadic):
        raise TypeError(
            f"[differentiable] expected arrays before a slash, or *xs, in the signature of "
            f"{op.__name__!r}, got {signature}; write def {op.__name__}(x, /, setting=...)"
        )

    names = signature.parameters.keys()
    aliases = {a: b for a, b in _ALIASES.items() if b in names and a not in names}
    asks = "recorded" in names

    @functools.wraps(op)
    def lifted(*args: Any, **settings: Any) -> Tensor:
        if settings and aliases:
            settings = {aliases.get(name, name): value for name, value in settings.items()}
        inputs = args if variadic else args[:arity]
        arrays = [_unwrap(value) for value in inputs]
        parents = tuple(x._node if isinstance(x, Tensor) else None for x in inputs)
        recorded = is_recording() and any(parents)
        if asks:
            settings["recorded"] = recorded
        value, pullback = op(*arrays, *args[len(inputs) :], **settings)
        result = Tensor(value)
        _check_precision(op.__name__, arrays, result.data.dtype)
        if recorded:
            node = Node(result.data, op.__name__)
            node.parents, node.pullback = parents, pullback
            node.takes_needs = variadic or arity > 1
            result._node = node
        return result

    return lifted


def gradients(
    output: Tensor, sources: Sequence[Tensor], gradient: Array | None = None
) -> list[Array]:
    """The gradient of `output` with respect to each of `sources`, without touching `.grad`.

    `output` must have one element, or `gradient`, of its shape, says how much each one counts.
    `sources` may be leaves or intermediate results; one that `output` does not depend on gets
    zeros. The tape behind `output` is freed: a second walk raises RuntimeError.
    """
    wanted = [_node_of(source) for source in sources]
    found = walk_back(_node_of(output), _seed(output, gradient), wanted) if wanted else {}
    return [
        found[node] if node in found else array_module(source.data).zeros_like(source.data)
        for node, source in zip(wanted, sources, strict=True)
    ]


def _reflected(op: Callable[..., ops.OpResult]) -> Callable[..., Tensor]:
    lifted = differentiable(op)
    return lambda self, other: lifted(other, self)


_reshape = differentiable(ops.reshape)
_permute = differentiable(ops.permute)
_broadcast_to = differentiable(ops.broadcast_to)
_index = differentiable(ops.index)


class Tensor:
    """An array that remembers, where a gradient is wanted, how it was computed.

    `data` is a NumPy or CuPy array; lists and Python floats become float32. With
    `requires_grad=True` it is a leaf, and `backward()` adds to its `grad`, an array of the same
    shape. Only floats can require a gradient (TypeError).
    """

    __slots__ = ("__weakref__", "_node", "data", "grad")
    __array_ufunc__ = None  # array + Tensor is the Tensor's business

    def __init__(self, data: Any, requires_grad: bool = False) -> None:
        self.data: Array = _as_array(data)
        self.grad: Array | None = None
        self._node: Node | None = None
        if requires_grad:
            self.requires_grad = True

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to this Tensor; settable on leaves."""
        return self._node is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if self._node is not None and not self._node.is_leaf:
            raise RuntimeError(
                "[Tensor] requires_grad can be set on leaves only; use .detach() to cut the tape"
            )
        if wanted and self.data.dtype.kind != "f":
            raise TypeError(f"[Tensor] only floats can require a gradient, got {self.dtype}")
        self._node = Node(self.data, "leaf", owner=self) if wanted else None

    def requires_grad_(self, wanted: bool = True) -> Self:
        """Set `requires_grad` and give the Tensor back."""
        self.requires_grad = wanted
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.data.shape

    @property
    def dtype(self) -> Any:
        """The array's dtype."""
        return self.data.dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """Number of values."""
        return self.data.size

    @property
    def device(self) -> str:
        """Where the values are: "cpu" or "cuda"."""
        return device_of(self.data)

    @property
    def T(self) -> Tensor:
        """The matrix transposed; more axes are reversed."""
        return _permute(self, tuple(reversed(range(self.ndim))))

    def __len__(self) -> int:
        return len(self.data)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.data, self.requires_grad)  # for pickle and copy: a leaf

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> numpy.ndarray:
        if self.requires_grad:
            raise TypeError(
                "[Tensor] expected a Tensor that requires no gradient to make an array of, as the "
                "array would leave the tape; use .detach() first, or .numpy()"
            )
        return numpy.asarray(self.numpy(), dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        text = numpy.array2string(to_numpy(self.data), precision=4, threshold=50, prefix="Tensor(")
        flag = ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({text}, dtype={self.dtype}{flag})"

    def numpy(self) -> numpy.ndarray:
        """The values as a NumPy array on the CPU (no copy if they are there)."""
        return to_numpy(self.data)

    def item(self) -> float:
        """The one value as a Python number."""
        return self.data.item()

    def detach(self) -> Tensor:
        """The same data, cut off from the tape."""
        return Tensor(self.data)

    def astype(self, dtype: Any) -> Tensor:
        """A detached copy in another dtype."""
        return Tensor(self.data.astype(dtype))

    def to(self, device: str) -> Tensor:
        """A detached Tensor on `device`, "cpu" or "cuda"."""
        return Tensor(to_device(self.data, device))

    def backward(self, gradient: Any = None) -> None:
        """Add the gradient of this Tensor (see `gradients`) to the `.grad` of every leaf."""
        found = walk_back(_node_of(self), _seed(self, gradient))
        with _accumulation:
            for node, array in found.items():
                leaf = None if node.owner is None else node.owner()
                if leaf is not None:
                    leaf.grad = array if leaf.grad is None else _added(leaf.grad, array)

    # Arithmetic: one line lifts one op.
    __add__ = differentiable(ops.add)
    __radd__ = _reflected(ops.add)
    __sub__ = differentiable(ops.subtract)
    __rsub__ = _reflected(ops.subtract)
    __mul__ = differentiable(ops.multiply)
    __rmul__ = _reflected(ops.multiply)
    __truediv__ = differentiable(ops.divide)
    __rtruediv__ = _reflected(ops.divide)
    __matmul__ = matmul = differentiable(ops.matmul)
    __rmatmul__ = _reflected(ops.matmul)
    __pow__ = pow = differentiable(ops.power)
    __rpow__ = _reflected(ops.power)
    __neg__ = differentiable(ops.negative)
    __abs__ = abs = differentiable(ops.absolute)
    exp = differentiable(ops.exp)
    log = differentiable(ops.log)
    sqrt = differentiable(ops.sqrt)
    tanh = differentiable(ops.tanh)
    sum = differentiable(ops.sum)
    mean = differentiable(ops.mean)
    var = differentiable(ops.var)
    max = differentiable(ops.max)

    # Shape.
    def reshape(self, *shape: Any) -> Tensor:
        """The same values under another shape: `x.reshape(2, -1)` or `x.reshape((2, -1))`."""
        return _reshape(self, _sizes(shape))

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """The axes from `start_dim` to `end_dim`, both included, made one; all by default.

        Raises IndexError for an axis that is not there.
        """
        axes = range(self.ndim or 1)
        first, after = axes[start_dim], axes[end_dim] + 1
        if first >= after:
            raise ValueError(
                f"[flatten] expected start_dim not after end_dim, got {start_dim} and {end_dim}"
            )
        shape = self.shape
        return _reshape(self, (*shape[:first], math.prod(shape[first:after]), *shape[after:]))

    def permute(self, *axes: Any) -> Tensor:
        """All axes reordered: `x.permute(0, 2, 1)`."""
        return _permute(self, _sizes(axes))

    def transpose(self, first: int, second: int) -> Tensor:
        """Two axes exchanged, as in PyTorch."""
        axes = list(range(self.ndim))
        axes[first], axes[second] = axes[second], axes[first]
        return _permute(self, tuple(axes))

    def expand(self, *shape: Any) -> Tensor:
        """Axes of length 1 repeated to `shape`, without a copy; -1 keeps an axis as it is."""
        sizes = _sizes(shape)
        added = len(sizes) - len(self.shape)
        if -1 in sizes[: max(added, 0)]:
            raise ValueError(f"[expand] expected lengths for the axes added, got {sizes}")
        kept = tuple(
            self.shape[axis - added] if size == -1 else size for axis, size in enumerate(sizes)
        )
        return _broadcast_to(self, kept)

    def __getitem__(self, key: Any) -> Tensor:
        parts = tuple(map(_unwrap, key)) if isinstance(key, tuple) else _unwrap(key)
        return _index(self, parts)

    # Comparison and choice: no gradient.
    def argmax(self, axis: int | None = None, *, dim: int | None = None) -> Tensor:
        """Where the largest value stands along `axis`, alias `dim` (flattened by default)."""
        return Tensor(self.data.argmax(axis if dim is None else dim))

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return Tensor(self.data == _unwrap(other))

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return Tensor(self.data != _unwrap(other))

    def __lt__(self, other: Any) -> Tensor:
        return Tensor(self.data < _unwrap(other))

    def __le__(self, other: Any) -> Tensor:
        return Tensor(self.data <= _unwrap(other))

    def __gt__(self, other: Any) -> Tensor:
        return Tensor(self.data > _unwrap(other))

    def __ge__(self, other: Any) -> Tensor:
        return Tensor(self.data >= _unwrap(other))

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        return bool(self.data)  # one value only: NumPy explains otherwise

    def __float__(self) -> float:
        return float(self.data)


def _as_array(data: Any) -> Array:
    if isinstance(data, Tensor):
        return data.data
    if isinstance(data, numpy.generic):
        return numpy.asarray(data)
    if hasattr(data, "dtype"):
        return data
    array = numpy.asarray(data)
    return array.astype(numpy.float32) if array.dtype == numpy.float64 else array


def _rebuilt(kind: type[Tensor], data: Array, requires_grad: bool) -> Tensor:
    tensor = object.__new__(kind)
    Tensor.__init__(tensor, data, requires_grad)
    return tensor


def _unwrap(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.data
    if isinstance(value, numpy.generic):
        return value.item()  # a Python number takes the precision of what it meets
    return value


def _sizes(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """Accepts both `f(2, 3)` and `f((2, 3))`."""
    return tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes


def _node_of(tensor: Tensor) -> Node:
    if tensor._node is None:
        raise RuntimeError(
            "[backward] expected Tensors with requires_grad=True or computed from such; "
            "was this one detached or computed under no_grad()?"
        )
    return tensor._node


def _seed(output: Tensor, gradient: Any) -> Array:
    xp = array_module(output.data)
    if gradient is None:
        if output.size != 1:
            raise RuntimeError(
                f"[backward] expected one element to start from, got shape {output.shape}; "
                "reduce with .sum() or .mean(), or pass the gradient of the output"
            )
        return xp.ones_like(output.data)
    gradient = xp.asarray(_unwrap(gradient), dtype=output.dtype)
    if gradient.shape != output.shape:
        raise ValueError(
            f"[backward] expected a gradient of shape {output.shape}, got {gradient.shape}"
        )
    return gradient


def _added(a: Array, b: Array) -> Array:
    return array_module(a, b).asarray(a + b)  # NumPy makes a number of a sum without axes


def _check_precision(name: str, inputs: Sequence[Any], dtype: Any) -> None:
    """Refuse an op that returns another float type than it was given."""
    for value in inputs:
        given = getattr(value, "dtype", dtype)
        if given.kind == "f" and given != dtype and dtype.kind == "f":
            raise TypeError(
                f"[{name}] expected one float type throughout, got {given} in and {dtype} out; "
                "convert with .astype() or Module.to(dtype=...)"
            )
