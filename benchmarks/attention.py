"""The attention core, forward and back: time and peak memory against the number of tokens.

    python -m benchmarks attention

Heads of all images are one axis; sizes are heads x tokens x head width, float32. Every contender
lives in a process of its own with the same arrays and the same settings of malloc (freed memory is
kept), on all cores; outputs and gradients are compared before anything is timed. PyTorch's fused
attention gets its heads as (1, heads, tokens, width), without which it is not fused.

Memory is the peak of resident memory of forward and backward in a fresh process, less what was
resident before the call with the inputs in place, less output and gradients. Who
writes the weights out, tokens x tokens a head, is left out where that would take more than 6 GB.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy

from benchmarks.memory_probe import reset_peak, resident, supported
from benchmarks.side_by_side import Remote, Row, available, parser, print_rows, race, rows_of, save
from numpyvit import ops
from numpyvit.train import available_cores
from numpyvit.train.memory import keep_freed_memory

NAME = "attention"
OURS, FUSED, WRITTEN_OUT, TEXTBOOK = (
    "numpyvit",
    "PyTorch fused",
    "PyTorch written out",
    "textbook NumPy",
)
KINDS = {
    FUSED: "FusedTorch",
    WRITTEN_OUT: "WrittenOutTorch",
    TEXTBOOK: "Textbook",
    OURS: "Numpyvit",
}
QUADRATIC = (WRITTEN_OUT, TEXTBOOK)
MOST_BYTES = 6e9  # for arrays of weights
TOLERANCE = 1e-4  # relative, in the L2 norm
FORWARD, BOTH = "forward", "forward + backward"


@dataclasses.dataclass(frozen=True)
class Size:
    """Heads of all images, tokens, head width; and whether to go back as well."""

    heads: int
    tokens: int
    width: int
    backward: bool = False

    @property
    def label(self) -> str:
        """Such as "1024 x 65 x 12, forward"."""
        way = BOTH if self.backward else FORWARD
        return f"{self.heads} x {self.tokens} x {self.width}, {way}"

    @property
    def weights(self) -> int:
        """Attention weights: the work to do, up to a factor."""
        return self.heads * self.tokens**2

    def arrays(self) -> list[numpy.ndarray]:
        """The same q, k, v, dy in every process."""
        rng = numpy.random.default_rng(self.tokens)
        shape = (self.heads, self.tokens, self.width)
        return [rng.standard_normal(shape, numpy.float32) for _ in range(4)]

    def fits(self, name: str) -> bool:
        """Whether a contender's arrays of weights, three or five at a time, have room."""
        copies = 5 if self.backward else 3
        return name not in QUADRATIC or 4 * copies * self.weights <= MOST_BYTES


SIZES = [(1024, 65, 12), (96, 197, 64), (24, 785, 64), (4, 4096, 64), (2, 8192, 64), (2, 16384, 64)]
QUICK = [(64, 65, 12), (1, 1024, 64)]


class Contender:
    """A call computes attention of the prepared size, and its gradients where they are wanted."""

    def __init__(self, threads: int) -> None:
        keep_freed_memory()
        self.threads = threads

    def prepare(self, size: Size) -> None:
        """Draw the arrays."""
        self.size, self.arrays = size, size.arrays()

    def run(self) -> list[Any]:
        """Output and gradients."""
        raise NotImplementedError

    def __call__(self) -> None:
        self.run()

    def sample(self) -> list[numpy.ndarray]:
        """A few rows of everything that `run` returns."""
        rows = slice(None, None, max(1, self.size.tokens // 50))
        return [numpy.array(array[:2, rows]) for array in self.run()]

    def memory(self, size: Size) -> int:
        """Bytes of the peak of one run in this process, beyond inputs, output and gradients."""
        own = os.getpid()
        self.prepare(Size(2, 20, size.width, backward=True))  # imports what comes with first use
        self.run()
        self.prepare(size)
        before = resident(own)
        reset_peak(own)
        results = self.run()
        peak = resident(own, "VmHWM") - before
        return max(peak - len(results) * self.arrays[0].nbytes, 0)


class Numpyvit(Contender):
    def run(self) -> list[Any]:
        q, k, v, dy = self.arrays
        y, pullback = ops.attention(q, k, v, recorded=self.size.backward)
        return [y, *pullback(dy, (True, True, True))] if self.size.backward else [y]


class Textbook(Contender):
    """The equations, each one line of NumPy."""

    def run(self) -> list[Any]:
        q, k, v, dy = self.arrays
        scale = numpy.float32(q.shape[-1] ** -0.5)
        scores = q @ k.swapaxes(-1, -2) * scale
        exps = numpy.exp(scores - scores.max(-1, keepdims=True))
        weights = exps / exps.sum(-1, keepdims=True)
        del scores, exps
        y = weights @ v
        if not self.size.backward:
            return [y]
        dv = weights.swapaxes(-1, -2) @ dy
        dweights = dy @ v.swapaxes(-1, -2)
        dscores = weights * (dweights - (dweights * weights).sum(-1, keepdims=True)) * scale
        return [y, dscores @ k, dscores.swapaxes(-1, -2) @ q, dv]


class FusedTorch(Contender):
    """PyTorch's `scaled_dot_product_attention`."""

    def __init__(self, threads: int) -> None:
        import torch

        super().__init__(threads)
        torch.set_num_threads(threads)

    def prepare(self, size: Size) -> None:
        """Tensors on the same memory."""
        import torch

        super().prepare(size)
        self.leaves = [torch.from_numpy(array[None]) for array in self.arrays]
        for leaf in self.leaves[:3]:
            leaf.requires_grad_(size.backward)

    def attend(self, q: Any, k: Any, v: Any) -> Any:
        """(1, heads, tokens, width)."""
        from torch.nn import functional

        return functional.scaled_dot_product_attention(q, k, v)

    def run(self) -> list[Any]:
        import torch

        *leaves, dy = self.leaves
        y = self.attend(*leaves)
        results = [y, *torch.autograd.grad(y, leaves, dy)] if self.size.backward else [y]
        return [result.detach()[0].numpy() for result in results]


class WrittenOutTorch(FusedTorch):
    """The same from its equation."""

    def attend(self, q: Any, k: Any, v: Any) -> Any:
        return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v


def contenders() -> dict[str, dict[str, Any]]:
    """Factory and options of each that is installed."""
    torch = available("torch")
    return {
        name: {"factory": f"benchmarks.{NAME}:{kind}", "threads": available_cores()}
        for name, kind in KINDS.items()
        if torch or not kind.endswith("Torch")
    }


def check(samples: Mapping[str, list[numpy.ndarray]], size: Size) -> None:
    """RuntimeError where someone's output or gradients are not ours."""
    for name, arrays in samples.items():
        for found, ours in zip(arrays, samples[OURS], strict=True):
            distance = numpy.linalg.norm(found - ours) / numpy.linalg.norm(ours)
            if not distance <= TOLERANCE:
                raise RuntimeError(f"[{NAME}] {name} is {distance:.1e} from ours: {size.label}")


def measure(entries: Mapping[str, Any], size: Size, rounds: int) -> list[Row]:
    """Compare, then time who has room for the size."""
    present = {name: entry for name, entry in entries.items() if size.fits(name)}
    for name in entries.keys() - present.keys():
        print(f"skipped: {name} at {size.label}: its weights take too much memory", flush=True)
    for entry in present.values():
        entry.ask("prepare", size)
    check({name: entry.ask("sample") for name, entry in present.items()}, size)
    rounds = rounds if size.weights < 3e7 else min(rounds, 5)
    fewer = {name: 2 for name in present if name in QUADRATIC and size.weights > 3e7}
    return rows_of(size.label, race(present, rounds=rounds, warm_up=1, fewer=fewer), FUSED)


def peak(options: Mapping[str, Any], size: Size) -> int | None:
    """Bytes, from a process that has done nothing else, of forward and backward together.

    None for forward alone, which takes less, and where the system does not count.
    """
    if not size.backward or not supported():
        return None
    with Remote(**options) as fresh:
        return fresh.ask("memory", size)


def main(argv: list[str] | None = None) -> None:
    """Check, time, print, save, draw."""
    options = parser(__doc__ or "", rounds=15).parse_args(argv)
    found = contenders()
    sizes = [
        Size(*shape, backward=way)
        for shape in (QUICK if options.quick else SIZES)
        for way in (False, True)
    ]
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        entries = {name: stack.enter_context(Remote(**how)) for name, how in found.items()}
        for size in sizes:
            new = measure(entries, size, options.rounds)
            for row in new:
                row["memory_bytes"] = peak(found[row["contender"]], size)
                row["tokens"] = size.tokens
            print_rows(new)
            rows += new
    save(NAME, rows, options.out, threads=f"each contender {available_cores()}")
    draw(rows, options.out / f"{NAME}.png")


def draw(rows: list[Row], path: Path) -> None:
    """Time and memory of forward and backward against tokens, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullFormatter

    rows = [row for row in rows if row["case"].endswith(BOTH)]
    tokens = sorted({row["tokens"] for row in rows})
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    for name, style in zip(KINDS, ("s--", "v:", "^:", "o-"), strict=True):
        mine = [row for row in rows if row["contender"] == name]
        for panel, key, unit in zip(panels, ("median_s", "memory_bytes"), (1e3, 1e-6), strict=True):
            points = [(row["tokens"], row[key] * unit) for row in mine if row[key]]
            if points:
                panel.plot(*zip(*points, strict=True), style, label=name, markersize=5)
    for panel, title in zip(
        panels, ("milliseconds", "megabytes beyond inputs, output and gradients"), strict=True
    ):
        panel.set(xscale="log", yscale="log", xlabel="tokens", title=title)
        panel.set_xticks(tokens, [str(count) for count in tokens])
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.grid(alpha=0.3)
    panels[0].legend(frameon=False)
    cases = [row["case"].partition(",")[0] for row in rows if row["contender"] == OURS]
    figure.suptitle(
        "Attention, forward and backward; heads x tokens x width: " + ", ".join(cases), fontsize=9
    )
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
    print(f"written: {path}", flush=True)
