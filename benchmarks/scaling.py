"""Training images per second by workers, batch, depth, width and tokens.

    python -m benchmarks scaling

Steps of vit_cifar_patch4_32 without dropout, of which one size is changed at a time, with one
worker and with one a core, in turn. The speed-up from one worker to more is the ratio of medians of
steps at batch 256 that were taken in turn: 1, 2, 1, 2, ...
"""

from __future__ import annotations

import contextlib
import statistics
from pathlib import Path
from typing import Any

from benchmarks.side_by_side import parser, print_rows, race, rows_of, save
from benchmarks.step import TrainingStep
from numpyvit.models import ViTConfig, model_config
from numpyvit.train import WorkerPool, available_cores

NAME = "scaling"
BATCH = 128
BASE = model_config("vit_cifar_patch4_32", dropout=0.0, attention_dropout=0.0)
Row = dict[str, Any]


def panels(quick: bool) -> dict[str, list[tuple[int, ViTConfig, int]]]:
    """By name of the axis: its values, each with the configuration and the batch size."""
    batches = (32, 64) if quick else (32, 64, 128, 256, 512)
    depths = (1, 4) if quick else (1, 2, 4, 8, 12)
    widths = (24, 48) if quick else (24, 48, 96, 192)
    grids = ((8, 32), (4, 32)) if quick else ((8, 32), (4, 32), (4, 48), (2, 32))
    size = min(batches[-1], BATCH)
    tokens = [BASE.replace(patch_size=patch, image_size=image) for patch, image in grids]
    return {
        "batch": [(batch, BASE, batch) for batch in batches],
        "depth": [(depth, BASE.replace(depth=depth), size) for depth in depths],
        "width": [(width, BASE.replace(embed_dim=width), size) for width in widths],
        "tokens": [(config.num_tokens, config, size) for config in tokens],
    }


def worker_counts(cores: int) -> list[int]:
    """1, 2, 4, ... and the number of cores."""
    powers = [1 << power for power in range(cores.bit_length())]
    return sorted({count for count in powers if count <= cores} | {cores})


def measure(
    axis: str,
    value: int,
    config: ViTConfig,
    batch_size: int,
    pools: dict[int, WorkerPool],
    rounds: int,
) -> list[Row]:
    """A row a pool: times of a step, and images a second."""
    steps = {_name(count): TrainingStep(config, batch_size, pool) for count, pool in pools.items()}
    seconds = race(steps, rounds=rounds, warm_up=1)
    rows = rows_of(f"{axis} {value}", seconds, _name(1))
    return [
        row
        | {
            "images_per_second": batch_size / row["median_s"],
            "axis": axis,
            "value": value,
            "workers": count,
        }
        for row, count in zip(rows, pools, strict=True)
    ]


def _name(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


def speed_up(seconds: dict[str, list[float]], workers: int) -> float:
    """How many times faster than one worker."""
    return statistics.median(seconds[_name(1)]) / statistics.median(seconds[_name(workers)])


def draw(rows: list[Row], path: Path) -> None:
    """A panel for every axis; workers first."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import LogLocator

    axes_names = list(dict.fromkeys(row["axis"] for row in rows))
    figure, panels = pyplot.subplots(2, 3, figsize=(10, 6.4))
    panels[1, 2].axis("off")
    for axes, name in zip(panels.flat, axes_names, strict=False):
        chosen = [row for row in rows if row["axis"] == name]
        if name == "workers":
            found = {row["value"]: row["images_per_second"] for row in chosen}
            axes.plot(found.keys(), found.values(), "o-", color="tab:blue")
            ideal = [count * found[1] for count in found]
            axes.plot(found.keys(), ideal, "--", color="grey", label="ideal")
        else:
            for workers, style in zip((1, available_cores()), ("s--", "o-"), strict=True):
                found = {
                    r["value"]: r["images_per_second"] for r in chosen if r["workers"] == workers
                }
                axes.plot(found.keys(), found.values(), style, label=_name(workers))
            axes.set_xscale("log", base=2)
        axes.set_xticks(list(found), [str(value) for value in found])
        axes.minorticks_off()
        if name in ("workers", "batch"):
            axes.set_ylim(bottom=0)
        else:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:.0f}")
            axes.yaxis.set_minor_formatter("")
        axes.set_xlabel(name)
        axes.set_ylabel("training images per second")
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=140)
    pyplot.close(figure)
    print(f"written: {path}")


def main(argv: list[str] | None = None) -> None:
    """Measure, print, save."""
    options = parser(__doc__ or "", rounds=5).parse_args(argv)
    counts, batch_size = worker_counts(available_cores()), 64 if options.quick else 256
    with contextlib.ExitStack() as stack:
        pools = {count: stack.enter_context(WorkerPool(count)) for count in counts}
        steps = {_name(n): TrainingStep(BASE, batch_size, pool) for n, pool in pools.items()}
        seconds = race(steps, rounds=3 * options.rounds)
        rows = [
            row
            | {
                "images_per_second": batch_size / row["median_s"],
                "axis": "workers",
                "value": count,
                "workers": count,
            }
            for row, count in zip(rows_of("workers", seconds, _name(1)), counts, strict=True)
        ]
        ends = {count: pools[count] for count in (1, counts[-1])}
        for axis, values in panels(options.quick).items():
            for value, config, size in values:
                rows += measure(axis, value, config, size, ends, options.rounds)
    gains = {str(count): speed_up(seconds, count) for count in counts[1:]}
    hidden = ("axis", "value", "workers")
    print_rows([{k: v for k, v in row.items() if k not in hidden} for row in rows])
    for count, gain in gains.items():
        print(f"speed-up from 1 to {count} workers: {gain:.2f}")
    save(NAME, rows, options.out, speed_up_from_one_worker=gains)
    draw(rows, options.out / f"{NAME}.png")
