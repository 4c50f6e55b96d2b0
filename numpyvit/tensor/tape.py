"""The tape: what was computed from what, and the walk back along it. It knows no mathematics.

Where a gradient is wanted, every op leaves a node: who its parents are, and its pullback. The walk
visits nodes in the reverse of the order in which they were made, which is the order that the chain
rule needs, and adds up what arrives at each. It is a loop, so depth is limited by memory alone.

Nodes belong to the thread that made them and all else is local to a call, so several threads can
record and walk back at once, with shared parameters.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from typing import Any

from numpyvit.backend import Array, array_module


class Node:
    """One value on the tape: the parents it was computed from, and the way back to them.

    A leaf has no parents; it knows the Tensor that it stands for, its `owner`, instead.
    """

    __slots__ = ("dtype", "name", "number", "owner", "parents", "pullback", "shape", "takes_needs")
    _numbers = itertools.count()

    def __init__(self, value: Array, name: str, owner: Any = None) -> None:
        self.number = next(self._numbers)
        self.name = name
        self.shape, self.dtype = value.shape, value.dtype
        self.owner = None if owner is None else weakref.ref(owner)
        self.parents: tuple[Node | None, ...] = ()
        self.pullback: Callable[..., tuple[Array | None, ...]] | None = None
        self.takes_needs = False

    @property
    def is_leaf(self) -> bool:
        """Whether this stands for a Tensor that was not computed from others."""
        return self.owner is not None

    def free(self) -> None:
        """Let go of all that was saved for the way back."""
        self.parents, self.pullback = (), None


class _Mode(threading.local):
    records = True


_mode = _Mode()


def is_recording() -> bool:
    """Whether ops of this thread leave nodes."""
    return _mode.records


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Inside this context, and in this thread, nothing is recorded: for inference."""
    before, _mode.records = _mode.records, False
    try:
        yield
    finally:
        _mode.records = before


def walk_back(output: Node, seed: Array, wanted: Collection[Node] = ()) -> dict[Node, Array]:
    """Gradients by node, for those of `wanted` (all leaves if empty) that `output` depends on.

    `seed` is the gradient of `output`. Only what leads to a wanted node is computed, and nodes are
    freed on the way. Each array in the result belongs to its entry alone.
    """
    nodes = _nodes_behind(output)
    targets = set(wanted) or {node for node in nodes if node.is_leaf}
    leading: set[Node | None] = set()  # the nodes through which some target is reached
    for node in nodes:
        if node in targets or any(parent in leading for parent in node.parents):
            leading.add(node)
    arriving = {output: seed}
    owned: set[Node] = set()
    found: dict[Node, Array] = {}
    for node in reversed(nodes):
        dy = arriving.pop(node, None)
        if dy is not None:
            if node in targets:
                found[node] = dy
            _pull(node, dy, leading, arriving, owned)
        node.free()
    return _unshared(found, seed)


def _nodes_behind(output: Node) -> list[Node]:
    """All nodes that `output` was computed from, oldest first, `output` itself last."""
    seen, waiting = {output}, [output]
    while waiting:
        node = waiting.pop()
        if node.pullback is None and not node.is_leaf:
            raise RuntimeError(
                f"[backward] the tape behind {node.name!r} was freed by an earlier backward; "
                "compute the forward pass again"
            )
        for parent in node.parents:
            if parent is not None and parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return sorted(seen, key=lambda node: node.number)


def _pull(
    node: Node,
    dy: Array,
    leading: set[Node | None],
    arriving: dict[Node, Array],
    owned: set[Node],
) -> None:
    """Carry `dy` over one node and add what comes out to its parents' gradients."""
    needs = tuple(parent in leading for parent in node.parents)
    if node.pullback is None or not any(needs):
        return
    pulled = node.pullback(dy, needs) if node.takes_needs else node.pullback(dy)
    for position, (parent, need, dx) in enumerate(zip(node.parents, needs, pulled, strict=True)):
        if parent is None or not need:
            continue
        _check_edge(node, position, parent, dx)
        if parent not in arriving:
            arriving[parent] = dx
        elif parent in owned:
            arriving[parent] += dx
        else:  # somebody else may hold the array that came first
            arriving[parent] = arriving[parent] + dx
            owned.add(parent)


def _check_edge(node: Node, position: int, parent: Node, dx: Array) -> None:
    if dx is None or dx.shape != parent.shape or dx.dtype != parent.dtype:
        got = "None" if dx is None else f"{dx.dtype} {dx.shape}"
        raise RuntimeError(
            f"[{node.name}] expected its pullback to return a gradient {parent.dtype} "
            f"{parent.shape} for input {position}, got {got}"
        )


def _unshared(found: dict[Node, Array], seed: Array) -> dict[Node, Array]:
    """`found` with every array owned by its entry alone, so that it may be changed in place."""
    handed_out = {id(seed)}
    for node, array in found.items():
        # A number of NumPy's, which arrays without axes turn into, is not writeable either.
        writeable = getattr(array.flags, "writeable", True)
        if array.base is not None or id(array) in handed_out or not writeable:
            found[node] = array_module(array).array(array)
        handed_out.add(id(found[node]))
    return found
