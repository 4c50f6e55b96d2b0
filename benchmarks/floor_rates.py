"""How fast one core of this machine does each kind of work, measured on the spot through NumPy.

All operands are contiguous and stay in the core's cache as far as they fit, outputs are there
already. Of several ways to ask for the same thing the fastest counts.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterable

import numpy
from numpy.random import SFC64, Generator

from benchmarks.floor_work import (
    ARRAY,
    BYTES,
    COLUMN,
    EXP,
    MASK,
    MASKING,
    NUMBER,
    PRODUCT,
    ROW,
    ROW_SUM,
    TANH,
    Work,
)

Shape = tuple[int, int, int, int]
Call = Callable[[], object]

VALUES = 1 << 16  # float32: 256 KiB, which lies in a core's second cache
REPEATS = 3
PIECES = (1, 2, 4)  # a stack of products may be formed in so many pieces
PEAK = (1, 1024, 1024, 1024)


class Rates:
    """Seconds of work on one core; `measure` renews them.

    `unit` holds the seconds of one value (or byte) of a kind, `product` those of all products of a
    shape. `width` is that of the rows which NumPy's passes over rows and columns deal with.
    """

    def __init__(self, work: Iterable[Work], width: int) -> None:
        shapes = {piece.shape for piece in work if piece.kind == PRODUCT} | {PEAK}
        self._products = {shape: fastest(product_calls(shape)) for shape in sorted(shapes)}
        self._units = {
            kind: (fastest(calls), count) for kind, (calls, count) in _units(width).items()
        }
        self.unit: dict[str, float] = {}
        self.product: dict[Shape, float] = {}
        self.measure()

    def measure(self) -> None:
        """Time everything once more: the best of a few calls each."""
        self.unit = {kind: best(call) / count for kind, (call, count) in self._units.items()}
        self.product = {shape: best(call) for shape, call in self._products.items()}

    def seconds(self, work: Work) -> float:
        """What `work` takes at the measured rates."""
        rate = self.product[work.shape] if work.kind == PRODUCT else self.unit[work.kind]
        return work.amount * rate

    def seconds_in_passes(self, work: Work) -> float:
        """The same with NumPy's passes in place of elementwise bytes, where it needs several."""
        if not work.passes:
            return self.seconds(work)
        return sum(times * work.values * self.unit[kind] for kind, times in work.passes.items())

    def seconds_at_peak(self, work: Work) -> float:
        """The same with products as fast, for each multiply-add, as one of 1024 x 1024 x 1024."""
        if work.kind != PRODUCT:
            return self.seconds(work)
        return work.multiply_adds * self.product[PEAK] / 1024**3

    def gflops(self, shape: Shape) -> float:
        """Billions of additions and multiplications a second."""
        return 2e-9 * numpy.prod(shape, dtype=float) / self.product[shape]


def best(call: Call, repeats: int = REPEATS) -> float:
    """Least seconds of a call, after one that warms the cache."""
    call()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found)


def fastest(calls: Iterable[Call]) -> Call:
    """The fastest of several ways to do the same."""
    return min(calls, key=lambda call: best(call, 5))


def product_calls(shape: Shape) -> list[Call]:
    """Every way to form the products: operands as they are or transposed, the stack in pieces."""
    stack, rows, inner, columns = shape
    calls = []
    for pieces, left, right in itertools.product(PIECES, (False, True), (False, True)):
        if pieces == 1 or (stack % pieces == 0 and stack > pieces):
            a = _operand(stack // pieces, rows, inner, left)
            b = _operand(stack // pieces, inner, columns, right)
            out = numpy.empty((len(a), rows, columns), numpy.float32)
            if stack == 1:
                a, b, out = a[0], b[0], out[0]
            calls.append(functools.partial(_repeat, pieces, numpy.matmul, a, b, out))
    return calls


def _repeat(times: int, function: Callable[..., object], *arguments: object) -> None:
    for _ in range(times):
        function(*arguments)


def _operand(stack: int, rows: int, columns: int, transposed: bool) -> numpy.ndarray:
    """(stack, rows, columns), contiguous or the transposed view of what is."""
    shape = (stack, columns, rows) if transposed else (stack, rows, columns)
    array = numpy.random.default_rng(0).standard_normal(shape, numpy.float32)
    return array.swapaxes(-1, -2) if transposed else array


def _units(width: int) -> dict[str, tuple[list[Call], float]]:
    """Calls, and how many values (or bytes) one call is about, by kind of work."""
    rng = Generator(SFC64(0))
    x = rng.standard_normal(VALUES, numpy.float32)
    y, ones = numpy.empty_like(x), numpy.ones_like(x)
    one = numpy.float32(1)
    return {
        BYTES: ([lambda: numpy.multiply(ones, one, out=ones)], 2.0 * x.nbytes),
        EXP: ([lambda: numpy.exp(x, out=y)], x.size),
        TANH: ([lambda: numpy.tanh(x, out=y)], x.size),
        MASK: (_mask_calls(rng, VALUES), x.size),
        **{kind: ([call], x.size // width * width) for kind, call in _pass_calls(x, width).items()},
    }


def _pass_calls(values: numpy.ndarray, width: int) -> dict[str, Call]:
    """A NumPy call of every shape, on rows of `width`, in place or into an array that is there."""
    x = values[: len(values) // width * width].reshape(-1, width)
    y, ones, keep = numpy.empty_like(x), numpy.ones_like(x), x > 0
    row, column, sums = ones[0].copy(), ones[:, :1].copy(), numpy.empty(len(x), numpy.float32)
    one = numpy.float32(1)
    return {
        NUMBER: lambda: numpy.multiply(ones, one, out=ones),
        ARRAY: lambda: numpy.multiply(y, ones, out=y),
        ROW: lambda: numpy.multiply(y, row, out=y),
        COLUMN: lambda: numpy.multiply(y, column, out=y),
        ROW_SUM: lambda: numpy.matmul(x, row, out=sums),
        MASKING: lambda: numpy.multiply(x, keep, out=y),
    }


def _mask_calls(rng: Generator, count: int) -> list[Call]:
    """16 random bits a value, compared with a threshold."""
    keep, largest = numpy.empty(count, bool), (1 << 64) - 1
    threshold = numpy.uint16(6554)
    ways: list[Callable[[], numpy.ndarray]] = [
        lambda: rng.integers(0, largest, count // 4, numpy.uint64, endpoint=True),
        lambda: rng.bit_generator.random_raw(count // 4),
    ]

    def call(draw: Callable[[], numpy.ndarray]) -> None:
        numpy.greater_equal(draw().view("<u2"), threshold, out=keep)

    return [functools.partial(call, draw) for draw in ways]
