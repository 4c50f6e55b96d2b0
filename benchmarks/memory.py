"""Peak memory of a training step beyond what the imports take: numpyvit beside PyTorch.

    python -m benchmarks memory

Every contender takes two steps of vit_cifar_patch4_32, forward, backward and AdamW, in a fresh
process for each batch. Counted is the peak of resident memory (VmHWM) less what was resident once
all that it uses had been imported, and a step of a tiny model taken, as some libraries import more
at the first one. So weights, the batch, gradients, AdamW's moments and everything that libraries
allocate for larger work are in it.

Worker processes are counted in full: the figure is the sum of the peaks of all processes less the
sum of what each held after its imports, before its first task. Processes need not peak at the same
moment and share pages, so the sum is at least what the machine must have. What the workers' own
imports take is in a column of its own, and in "in all", which is imports and peak together.
PyTorch's imports contain numpyvit, which draws the weights for both. First losses are compared
where there is no dropout.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.memory_probe import supported
from benchmarks.side_by_side import Remote, available, parser, print_rows, save
from benchmarks.training_step import THREADS, Setting
from numpyvit.train import available_cores

NAME = "memory"
MODEL = "vit_cifar_patch4_32"
REFERENCE = "PyTorch eager"
LOSS = 1e-4  # relative: how far first losses may lie apart

Row = dict[str, Any]


def contenders() -> dict[str, dict[str, Any]]:
    """Factory and options of each, by name."""
    cores = available_cores()
    found: dict[str, dict[str, Any]] = {}
    if available("torch"):
        for name, fused in ((REFERENCE, False), ("PyTorch fused attention", True)):
            options = {"fused": fused, "compiled": False, "threads": cores}
            found[name] = {"contender": "torch_step:TorchStep", **options}
    for workers in sorted({1, cores}):
        name = "numpyvit, 1 worker" if workers == 1 else f"numpyvit, {workers} workers"
        found[name] = {"contender": "numpyvit_step:NumpyvitStep", "workers": workers}
    return found


def probe(contender: str, **options: Any) -> Any:
    """A Probe, made in the other process."""
    from benchmarks.memory_probe import Probe

    return Probe(contender, **options)


def measure(options: dict[str, Any], setting: Setting, rounds: int) -> Row:
    """Medians of `rounds` fresh processes."""
    found = []
    for _ in range(rounds):
        with Remote("benchmarks.memory:probe", **options) as remote:
            found.append(remote.ask("measure", setting))
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def rows_of_setting(setting: Setting, rounds: int) -> list[Row]:
    """A row a contender, with the ratio to PyTorch eager."""
    found = {name: measure(options, setting, rounds) for name, options in contenders().items()}
    losses = {name: one.pop("loss") for name, one in found.items()}
    first, *others = losses.values()
    agree = all(abs(loss - first) <= LOSS * abs(first) for loss in others)  # NaN does not
    if not (setting.dropout or agree):
        raise ValueError(f"[memory] expected equal first losses, got {losses}")
    key = "beyond_imports_bytes"
    base = found[REFERENCE][key] if REFERENCE in found else None
    return [
        {
            "case": f"batch {setting.batch}, dropout {setting.dropout:g}",
            "contender": name,
            **one,
            "in_all_bytes": sum(one.values()),
            "ratio": None if base is None else one[key] / base,
            "batch": setting.batch,
            "dropout": setting.dropout,
        }
        for name, one in found.items()
    ]


def draw(rows: list[Row], path: Path) -> None:
    """Memory beyond imports against the batch, both logarithmic; a panel for each dropout."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    dropouts = sorted({row["dropout"] for row in rows})
    size = (5 * len(dropouts), 4)
    figure, panels = pyplot.subplots(1, len(dropouts), figsize=size, sharey=True, squeeze=False)
    for axes, dropout in zip(panels[0], dropouts, strict=True):
        chosen = [row for row in rows if row["dropout"] == dropout]
        for name in dict.fromkeys(row["contender"] for row in chosen):
            points = {
                row["batch"]: row["beyond_imports_bytes"] / 1e6
                for row in chosen
                if row["contender"] == name
            }
            style = "o-" if name.startswith("numpyvit") else "s--"
            axes.plot(points.keys(), points.values(), style, label=name)
            for batch, value in points.items():
                axes.annotate(
                    f"{value:.0f}",
                    (batch, value),
                    (0, 4 if "eager" in name else -11),
                    fontsize=7,
                    textcoords="offset points",
                    ha="center",
                )
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.margins(y=0.1)
        axes.set_xticks(list(points), [str(batch) for batch in points])
        axes.set_xlabel("batch")
        axes.set_title(f"training step of {MODEL}, dropout {dropout:g}", fontsize=9)
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("peak memory beyond imports, MB")
    panels[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=140)
    pyplot.close(figure)
    print(f"written: {path}")


def main(argv: list[str] | None = None) -> None:
    """Measure, print, save."""
    options = parser(__doc__ or "", rounds=3).parse_args(argv)
    if not supported():
        print("skipped: memory: this system has no /proc/self/clear_refs (Linux has)")
        return
    batches = (64,) if options.quick else (64, 256, 1024)
    rows = []
    for dropout in (0.0, 0.1):
        for batch in batches:
            rows += rows_of_setting(Setting(MODEL, batch, dropout), options.rounds)
    hidden = ("batch", "dropout")
    print_rows([{k: v for k, v in row.items() if k not in hidden} for row in rows])
    save(NAME, rows, options.out, threads=THREADS)
    draw(rows, options.out / f"{NAME}.png")
