"""The time in which this machine could do a step at best, and where the rest of it goes.

    python -m benchmarks floor

The floor of a computation is the sum, over the work that it cannot do without, of amount times
measured rate. What that work is, op by op, is defined in `floor_work.py`; the rates are measured by
`floor_rates.py` in turn with the step itself:

- matrix products: each at exactly its shape (of a micro-batch in training), formed by NumPy's
  matmul on one core with BLAS on one thread, operands contiguous and in cache, in the layout that
  turns out fastest;
- exponentials and tanh: seconds a value of NumPy's own, in cache, reading and writing included;
- dropout's masks: seconds a value for 16 random bits and a comparison;
- all other passes over arrays: bytes read and written, at the rate of an in-place multiplication
  of 256 KiB, which lies in a core's cache, whatever the size of the array.

For several cores all of it is divided by their number: ideal scaling, AdamW included. So the floor
leaves out cache misses, allocation, Python, and everything that NumPy needs an extra pass for. It
is a floor for this BLAS and these ops one by one: a compiler that fuses ops may go below. With all
products at the rate of a large one, "products at peak", it is lower still. "In NumPy's passes" is
what stands between it and a NumPy program: elementwise work is charged as the calls that NumPy
needs for it, each at the rate of such a call on 256 KiB in cache, in rows of the model's width.

The step is then run with a stopwatch around every op, forward and back, in one worker. "Tape and
Python" is what no op accounts for: the tape, the modules, cutting and adding up micro-batches.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy

from benchmarks.floor_rates import PEAK, Rates
from benchmarks.floor_work import (
    ATTENTION,
    DROPOUT,
    GELU,
    LINEAR,
    LOSS,
    NORM,
    PRODUCT,
    SUMS,
    UPDATE,
    Work,
    forward_work,
    training_work,
    update_work,
)
from benchmarks.op_times import Stopwatch, timed_ops
from benchmarks.side_by_side import parser, print_rows, race, rows_of, save
from benchmarks.step import TrainingStep
from numpyvit import no_grad
from numpyvit.models import create_model, model_config
from numpyvit.threads import limit_threads, single_threaded_blas
from numpyvit.train import WorkerPool, available_cores
from numpyvit.train.step import micro_batch_for

NAME = "floor"
OURS, PASSES = "numpyvit", "floor, in NumPy's passes"
REST = "tape and Python"
KINDS = (LINEAR, ATTENTION, NORM, GELU, DROPOUT, SUMS, LOSS, UPDATE, REST)
OF_OP = {
    "linear": LINEAR,
    "conv2d": LINEAR,
    "attention": ATTENTION,
    "packed_attention": ATTENTION,
    "layer_norm": NORM,
    "gelu": GELU,
    "gelu_tanh": GELU,
    "dropout": DROPOUT,
    "drop_path": DROPOUT,
    "cross_entropy": LOSS,
    UPDATE: UPDATE,
}  # all other ops move values or add them

Seconds = dict[str, float]


class Floor:
    """The floor of `batches` micro-batches of `each` and of what is done once, on one core."""

    def __init__(
        self, width: int, each: list[Work], batches: float = 1, once: list[Work] | None = None
    ) -> None:
        self.parts = [(work, batches) for work in each] + [(work, 1.0) for work in once or []]
        self.rates = Rates((work for work, _ in self.parts), width)
        self.rounds: list[Seconds] = []
        self.in_passes: list[Seconds] = []
        self.at_peak: list[float] = []

    def __call__(self) -> None:
        """Measure the rates and note the floor by kind of op."""
        self.rates.measure()
        for rounds, rate in (
            (self.rounds, self.rates.seconds),
            (self.in_passes, self.rates.seconds_in_passes),
        ):
            found = dict.fromkeys(KINDS, 0.0)
            for work, times in self.parts:
                found[work.op] += times * rate(work)
            rounds.append(found)
        self.at_peak.append(sum(n * self.rates.seconds_at_peak(work) for work, n in self.parts))

    def rate_rows(self) -> list[dict[str, Any]]:
        """The rates last measured."""
        units = self.rates.unit
        rows: list[dict[str, Any]] = [
            {"rate": f"{kind}, nanoseconds each", "value": 1e9 * seconds}
            for kind, seconds in units.items()
            if kind != "bytes"
        ]
        rows.append({"rate": "elementwise, GB/s", "value": 1e-9 / units["bytes"]})
        shapes = sorted({work.shape for work, _ in self.parts if work.kind == PRODUCT})
        for shape in [PEAK, *shapes]:
            name = "{} of ({}, {}) @ ({}, {}), GFLOP/s".format(*shape[:3], *shape[2:])
            rows.append({"rate": name, "value": self.rates.gflops(shape)})
        return rows


class Profile:
    """Seconds by kind of op of calls of `run(watch)`."""

    def __init__(self, run: Callable[[Stopwatch], object]) -> None:
        self.run = run
        self.rounds: list[Seconds] = []

    def __call__(self) -> None:
        """Run once, with a stopwatch around every op."""
        watch = Stopwatch()
        with timed_ops(watch):
            watch.time(REST, self.run, watch)
        found = dict.fromkeys(KINDS, 0.0)
        for name, seconds in watch.seconds.items():
            found[name if name in KINDS else OF_OP.get(name, SUMS)] += seconds
        self.rounds.append(found)


def training(name: str, batch_size: int, dropout: float, rounds: int) -> dict[str, Any]:
    """Rates, steps of one worker and of all cores, and a step by op, in turn."""
    config = model_config(name, dropout=dropout, attention_dropout=dropout)
    images = min(micro_batch_for(config), batch_size)
    with WorkerPool(1) as alone, WorkerPool(available_cores()) as together:
        one, all_cores = (TrainingStep(config, batch_size, pool) for pool in (alone, together))

        def watched(watch: Stopwatch) -> None:
            one.forward_and_back()
            watch.time(UPDATE, one.optimizer.step)

        work = training_work(config, images)
        floor = Floor(config.embed_dim, work, batch_size / images, update_work(config))
        title = f"training step, {name}, batch {batch_size}, dropout {dropout:g}"
        return measured(title, floor, one, all_cores, Profile(watched), rounds)


def inference(name: str, batch_size: int, rounds: int) -> dict[str, Any]:
    """The same for a forward pass, the whole batch at once."""
    model = create_model(name).eval()
    side = model.config.image_size
    shape = (batch_size, 3, side, side)
    images = numpy.random.default_rng(0).standard_normal(shape, numpy.float32)

    def all_cores() -> None:
        with no_grad():
            model(images)

    def one(watch: Stopwatch | None = None) -> None:
        with single_threaded_blas(), limit_threads(1):
            all_cores()

    with single_threaded_blas():
        floor = Floor(model.config.embed_dim, forward_work(model.config, batch_size))

    def rates() -> None:
        with single_threaded_blas():
            floor()

    title = f"inference, {name}, batch {batch_size}"
    return measured(title, floor, one, all_cores, Profile(one), rounds, rates)


def measured(
    title: str,
    floor: Floor,
    one: Callable[[], object],
    all_cores: Callable[[], object],
    profile: Profile,
    rounds: int,
    rates: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Race the four, and set floor and step side by side: rows, and medians by kind of op."""
    runs = {"rates": rates or floor, "one": one, "all": all_cores, "by op": profile}
    seconds = race(runs, rounds=rounds)
    floors, in_passes = (
        [sum(found.values()) for found in each[-rounds:]]
        for each in (floor.rounds, floor.in_passes)
    )
    at_peak, cores = floor.at_peak[-rounds:], available_cores()
    rows = []
    for count, steps in ((1, seconds["one"]), (cores, seconds["all"])):
        contenders = {
            "floor": [value / count for value in floors],
            "floor, products at peak": [value / count for value in at_peak],
            PASSES: [value / count for value in in_passes],
            OURS: steps,
        }
        noun = "core" if count == 1 else "cores"
        rows += rows_of(f"{title}, {count} {noun}", contenders, "floor")
    parts = [
        {
            "case": title,
            "kind": kind,
            "floor_s": _median(floor.rounds, rounds, kind),
            "in_passes_s": _median(floor.in_passes, rounds, kind),
            "step_s": _median(profile.rounds, rounds, kind),
        }
        for kind in KINDS
        if floor.rounds[-1][kind] or profile.rounds[-1][kind]
    ]
    return {"title": title, "rows": rows, "parts": parts, "rates": floor.rate_rows()}


def _median(found: list[Seconds], rounds: int, kind: str) -> float:
    return statistics.median(seconds[kind] for seconds in found[-rounds:])


def draw(cases: list[dict[str, Any]], path: Path) -> None:
    """For every case a stacked bar for the floor and one for the step, on one core and on all."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(len(cases), 1, figsize=(10, 2.6 * len(cases) + 0.9))
    shades = pyplot.get_cmap("tab10")
    colours = {kind: shades(position) for position, kind in enumerate(KINDS)}
    for axes, case in zip(numpy.atleast_1d(panels), cases, strict=True):
        _draw_case(axes, case, colours)
    numpy.atleast_1d(panels)[-1].set_xlabel("seconds (median)")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=colours[kind]) for kind in KINDS]
    figure.legend(handles, KINDS, loc="lower center", ncols=5, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=140)
    pyplot.close(figure)
    print(f"written: {path}")


def _draw_case(axes: Any, case: dict[str, Any], colours: dict[str, Any]) -> None:
    found = {(row["case"], row["contender"]): row for row in case["rows"]}
    one, several = dict.fromkeys(row["case"] for row in case["rows"])
    bars = [(one, "floor"), (one, PASSES), (one, OURS), (several, "floor"), (several, OURS)]
    ends = [found[bar]["median_s"] for bar in bars]
    axes.barh([3, 4], ends[3:], color="silver")
    for position, column in enumerate(("floor_s", "in_passes_s", "step_s")):
        start = 0.0
        for part in case["parts"]:
            axes.barh(position, part[column], left=start, color=colours[part["kind"]])
            start += part[column]
        axes.text(start, position, f"  {1e3 * ends[position]:.0f} ms", va="center", fontsize=8)
    for position in (3, 4):
        text = f"  {1e3 * ends[position]:.0f} ms"
        axes.text(ends[position], position, text, va="center", fontsize=8)
    axes.set_yticks(range(5), [f"{who}, {case.rpartition(', ')[2]}" for case, who in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(ends))
    title = f"{case['title']}: {found[one, OURS]['ratio']:.2f} times its floor on 1 core"
    cores = several.rpartition(", ")[2]
    axes.set_title(f"{title}, {found[several, OURS]['ratio']:.2f} times on {cores}", fontsize=10)


def main(argv: list[str] | None = None) -> None:
    """Measure, print, save."""
    options = parser(__doc__ or "", rounds=15).parse_args(argv)
    cases = []
    for case in _cases(options.quick, options.rounds):
        print_rows(case["rows"])
        print_rows(case["parts"])
        cases.append(case)
    rows = [row for case in cases for row in case["rows"]]
    parts = [part for case in cases for part in case["parts"]]
    rates = {f"rates of {case['title']}": case["rates"] for case in cases}
    save(NAME, rows, options.out, by_kind_of_op=parts, **rates)
    draw(cases, options.out / f"{NAME}.png")


def _cases(quick: bool, rounds: int) -> Iterator[dict[str, Any]]:
    for dropout in (0.0, 0.1):
        yield training("vit_cifar_patch4_32", 64 if quick else 256, dropout, rounds)
    yield inference("vit_tiny_patch16_224" if quick else "vit_base_patch16_224", 1, rounds)
