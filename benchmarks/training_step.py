"""One training step, forward, backward and AdamW: numpyvit beside PyTorch and NumPy's libraries.

    python -m benchmarks training_step
    python -m benchmarks training_step --python312 venv312/bin/python
    python -m benchmarks training_step --keep-freed-memory

Every contender lives in a process of its own, so that neither BLAS limits nor idle threads of one
slow down another. All start from the same weights and see the same batch. Losses, gradients and
updated weights are compared, without dropout, before anything is timed. NumPy's libraries are so
slow that they take part in fewer rounds, and not in the cases with dropout.

In the last block numpyvit computes the class token alone, which is all that the head reads; the
usual ways to write a ViT in PyTorch compute every token. So numpyvit is compared with two: the
fastest of PyTorch's usual modes, and PyTorch with the same saving written by hand.

numpyvit asks glibc to keep what arrays free; other libraries leave that to their users, and most of
these leave it at the default. With --keep-freed-memory every contender is started so.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import statistics
from pathlib import Path
from typing import Any

import numpy

from benchmarks.contenders.contract import Arrays, Case
from benchmarks.side_by_side import (
    Remote,
    Row,
    available,
    parser,
    print_rows,
    race,
    rows_of,
    save,
)
from numpyvit.models import create_model
from numpyvit.train import available_cores

NAME = "training_step"

OURS, TORCH, LIBRARIES = "numpyvit", "PyTorch", "NumPy library"
PRUNED = "PyTorch, class token only"  # of the last block's output, as numpyvit
# What numpyvit.train.memory.keep_freed_memory sets, as glibc reads it from the environment.
KEEP_FREED_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(1 << 26),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 28),
}
THREADS = f"PyTorch {available_cores()}, numpyvit 1 in each worker"
SLOW_ROUNDS = 3  # of the libraries, which take several times as long as the others


@dataclasses.dataclass(frozen=True)
class Setting:
    """A model, a batch and a rate of dropout."""

    model: str
    batch: int
    dropout: float

    @property
    def title(self) -> str:
        """For tables and plots."""
        return f"{self.model}, batch {self.batch}, dropout {self.dropout:g}"

    def case(self) -> Case:
        """Weights and batch, drawn from a fixed seed."""
        rate = self.dropout
        model = create_model(self.model, dropout=rate, attention_dropout=rate)
        weights = {name: array.copy() for name, array in model.state_dict().items()}
        config, rng = model.config, numpy.random.default_rng(0)
        shape = (self.batch, config.in_channels, config.image_size, config.image_size)
        labels = rng.integers(0, config.num_classes, self.batch)
        return Case(config.to_dict(), weights, rng.standard_normal(shape, numpy.float32), labels)


SETTINGS = [
    Setting("vit_cifar_patch4_32", 64, 0.0),
    Setting("vit_cifar_patch4_32", 64, 0.1),
    Setting("vit_cifar_patch4_32", 256, 0.0),
    Setting("vit_cifar_patch4_32", 256, 0.1),
    Setting("vit_tiny_patch16_224", 8, 0.0),
]
QUICK = [Setting("vit_cifar_patch4_32", 64, 0.0), Setting("vit_cifar_patch4_32", 64, 0.1)]


@dataclasses.dataclass
class Entry:
    """A contender in its process, and the kind of thing that it is."""

    kind: str
    remote: Remote


def enter(
    stack: contextlib.ExitStack,
    *,
    python312: str | None,
    compiled: bool,
    environment: dict[str, str],
) -> dict[str, Entry]:
    """Start every contender that is installed; the others are named, with the reason."""
    entries: dict[str, Entry] = {}
    cores = available_cores()

    def add(name: str, kind: str, factory: str, **options: Any) -> None:
        try:
            made = Remote(f"benchmarks.contenders.{factory}", environment=environment, **options)
            remote = stack.enter_context(made)
        except (OSError, RuntimeError) as error:
            print(f"skipped: {name}: {error}", flush=True)
        else:
            entries[name] = Entry(kind, remote)

    if available("torch"):
        modes = {
            "PyTorch eager": {"fused": False, "compiled": False},
            "PyTorch fused attention": {"fused": True, "compiled": False},
            "PyTorch compiled": {"fused": True, "compiled": True},  # written out, it is no faster
        }
        for name, mode in modes.items():
            if compiled or not mode["compiled"]:
                add(name, TORCH, "torch_step:TorchStep", threads=cores, **mode)
        pruned = {"fused": True, "compiled": False, "class_token_only": True}
        name = "PyTorch fused, class token only"
        add(name, PRUNED, "torch_step:TorchStep", threads=cores, **pruned)
    for workers in sorted({1, cores}):
        name = f"numpyvit, {workers} worker{'s' if workers > 1 else ''}"
        add(name, OURS, "numpyvit_step:NumpyvitStep", workers=workers)
    if python312:
        factory = "autocompyute_vit:AutoCompyuteStep"
        add("auto-compyute", LIBRARIES, factory, python=python312)
    else:
        print("skipped: auto-compyute: --python312 names no interpreter that has it", flush=True)
    if available("mygrad"):
        add("MyGrad", LIBRARIES, "mygrad_vit:MyGradStep")
    if available("autograd"):
        add("HIPS autograd", LIBRARIES, "hips_vit:HipsStep")
    return entries


def prepare(entries: dict[str, Entry], case: Case) -> dict[str, tuple[float, Arrays, Arrays]]:
    """Losses, gradients and new weights of everyone's first step on `case`.

    Who cannot take it is missing, and named with the reason.
    """
    taken = {}
    for name, entry in entries.items():
        try:
            entry.remote.ask("prepare", case)
            loss = entry.remote()
            taken[name] = loss, entry.remote.ask("gradients"), entry.remote.ask("weights")
        except RuntimeError as error:
            print(f"skipped: {name}: {error}", flush=True)
    return taken


def disagreement(
    start: Arrays, ours: tuple[float, Arrays, Arrays], other: tuple[float, Arrays, Arrays]
) -> dict[str, float]:
    """How far another's loss, gradients and updates are from ours, each relative.

    Gradients: the worst parameter, relative L2; one that ought to be zero counts by the largest
    gradient. Updates: where a gradient is clearly not zero, for AdamW's first step is its sign.
    """
    largest = max(float(numpy.linalg.norm(gradient)) for gradient in ours[1].values())
    apart, changed, total = [], 0.0, 0.0
    for name, gradient in ours[1].items():
        if other[1][name].dtype != gradient.dtype or other[1][name].shape != gradient.shape:
            raise ValueError(f"{name}: {other[1][name].dtype} {other[1][name].shape}")
        scale = max(float(numpy.linalg.norm(gradient)), 1e-3 * largest)
        apart.append(float(numpy.linalg.norm(other[1][name] - gradient)) / scale)
        clear = numpy.abs(gradient) > 1e-6
        changed += float(((other[2][name] - ours[2][name])[clear] ** 2).sum())
        total += float(((ours[2][name] - start[name])[clear] ** 2).sum())
    return {
        "loss": abs(other[0] - ours[0]) / abs(ours[0]),
        "gradients": float(numpy.max(apart)),  # NaN where any is
        "updates": (changed / total) ** 0.5,
    }


def check(start: Arrays, taken: dict[str, tuple[float, Arrays, Arrays]]) -> dict[str, Any]:
    """Compare everyone with numpyvit on one worker; RuntimeError where they do not agree."""
    reference = next(name for name in taken if name.startswith(OURS))
    found = {}
    for name, results in taken.items():
        found[name] = disagreement(start, taken[reference], results)
        # auto-compyute's GELU goes back with constants of five digits.
        limits = {"loss": 1e-5, "gradients": 1e-3, "updates": 1e-3}
        # NaN agrees with nothing.
        if not all(found[name][key] <= limit for key, limit in limits.items()):
            raise RuntimeError(f"[training_step] {name} does not agree: {found[name]}")
    return found


def fastest(seconds: dict[str, list[float]], kinds: dict[str, str], kind: str) -> str:
    """The contender of a kind with the least median; "" without any."""
    medians = {name: statistics.median(s) for name, s in seconds.items() if kinds[name] == kind}
    return min(medians, key=medians.__getitem__, default="")


def summary(title: str, rows: list[Row], kinds: dict[str, str]) -> Row:
    """Our fastest against the fastest of each kind, and against one worker."""
    best: dict[str, Row] = {}
    for row in rows:
        kind = kinds[row["contender"]]
        if kind not in best or row["median_s"] < best[kind]["median_s"]:
            best[kind] = row
    ours = [row["median_s"] for row in rows if kinds[row["contender"]] == OURS]

    def ratio(kind: str) -> float | None:
        return best[OURS]["median_s"] / best[kind]["median_s"] if kind in best else None

    def name(kind: str) -> str | None:
        return best[kind]["contender"] if kind in best else None

    return {
        "case": title,
        "fastest PyTorch mode": name(TORCH),
        "numpyvit / it": ratio(TORCH),
        "numpyvit / class token only": ratio(PRUNED),
        "fastest other NumPy library": name(LIBRARIES),
        "numpyvit / that": ratio(LIBRARIES),
        "speed-up by workers": ours[0] / ours[-1],
    }


def compete(
    entries: dict[str, Entry], setting: Setting, rounds: int
) -> tuple[list[Row], Row, dict[str, Any]]:
    """Rows, summary and agreement (empty with dropout) of one setting."""
    case = setting.case()
    kinds = {name: entry.kind for name, entry in entries.items()}
    chosen = {
        name: entry
        for name, entry in entries.items()
        if entry.kind != LIBRARIES or not setting.dropout
    }
    taken = prepare(chosen, case)
    agreement = {} if setting.dropout else check(case.weights, taken)
    seconds = race(
        {name: entries[name].remote for name in taken},
        rounds=rounds,
        fewer={name: SLOW_ROUNDS for name in taken if kinds[name] == LIBRARIES},
    )
    rows = rows_of(setting.title, seconds, fastest(seconds, kinds, TORCH))
    return rows, summary(setting.title, rows, kinds), agreement


def options_of(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    arguments = parser(__doc__ or "", rounds=15)
    arguments.add_argument(
        "--python312",
        metavar="PATH",
        default=os.environ.get("NUMPYVIT_PYTHON312"),
        help="interpreter that has auto-compyute (default: $NUMPYVIT_PYTHON312)",
    )
    arguments.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    arguments.add_argument(
        "--keep-freed-memory",
        action="store_true",
        help="have glibc keep what is freed, for all contenders alike; results are not saved",
    )
    return arguments.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Check, time, print, save, draw."""
    options = options_of(argv)
    rows: list[Row] = []
    ratios: list[Row] = []
    agreement: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        entries = enter(
            stack,
            python312=options.python312,
            compiled=not options.no_compile,
            environment=KEEP_FREED_MEMORY if options.keep_freed_memory else {},
        )
        for setting in QUICK if options.quick else SETTINGS:
            found, ratio, agreement[setting.title] = compete(entries, setting, options.rounds)
            print_rows(found)
            rows += found
            ratios.append(ratio)
    print_rows(ratios)
    if not options.keep_freed_memory:
        kinds = {name: entry.kind for name, entry in entries.items()}
        path = save(
            NAME,
            rows,
            options.out,
            threads=THREADS,
            ratios=ratios,
            agreement=agreement,
            kinds=kinds,
        )
        draw(rows, kinds, path.with_suffix(".png"))


def draw(rows: list[Row], kinds: dict[str, str], path: Path) -> None:
    """Bars by case: times relative to PyTorch's fastest usual mode, right of it if slower."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if row["ratio"] is not None]
    if not rows:
        return
    colours = {OURS: "#d62728", TORCH: "#7f7f7f", PRUNED: "#7f7f7f", LIBRARIES: "#1f77b4"}
    cases = list(dict.fromkeys(row["case"] for row in rows))
    figure, axes = pyplot.subplots(figsize=(9, 0.25 * len(rows) + 0.5 * len(cases) + 0.8))
    place, places = 0.0, []
    for case in cases:
        place += 1.5
        title = axes.text(0.205, place - 0.95, case, fontweight="bold", va="center")
        title.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
        for row in (row for row in rows if row["case"] == case):
            ratio, scale = row["ratio"], row["ratio"] / row["median_s"]
            spread = [row["p10_s"] * scale, row["p90_s"] * scale]
            axes.barh(place, ratio - 1, 0.8, left=1, color=colours[kinds[row["contender"]]])
            axes.plot(spread, [place, place], color="black", linewidth=1)
            text = f"{ratio:.2f}   {row['median_s'] * 1e3:.0f} ms"
            axes.text(1.04 * max(1, *spread), place, text, va="center", fontsize=8)
            places.append(place)
            place += 1
    ticks = [0.25, 0.5, 1, 2, 4, 8, 16]
    axes.set_xscale("log")
    axes.set_xlim(0.2, 3 * max(1, *(row["ratio"] for row in rows)))
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(places, [row["contender"] for row in rows], fontsize=8)
    axes.set_ylim(place, -0.3)
    axes.set_xlabel(
        "time of a step / that of PyTorch's fastest usual mode (line: 10th to 90th percentile)"
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
