"""Exchange one component of the tiny ViT at a time, and write the table of what that does.

    python tools/write_components.py --data-dir CIFAR_10              # run all that is left
    python tools/write_components.py --data-dir CIFAR_10 --only base,pooling-avg --seeds 0,1
    python tools/write_components.py --data-dir CIFAR_10 --time       # step times, side by side

Every accuracy comes from a run of `numpyvit train` that this starts: 15 epochs of the default
recipe on CIFAR-10, on the test images after the last epoch. Results are kept in
docs/components.json, with seed and commit, and what is there is not run again;
docs/components.md is written from them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import training_runs
from write_results import replace_between

from numpyvit.cli.train_options import add_options, configuration
from numpyvit.data import Subset, load_cifar10
from numpyvit.models import count_multiply_adds, load_model
from numpyvit.train import RunFolder, Trainer

ROOT = training_runs.ROOT
sys.path.append(str(ROOT))
from benchmarks.side_by_side import race  # noqa: E402 (found by the line above)

PAGE, RESULTS = ROOT / "docs" / "components.md", ROOT / "docs" / "components.json"
BASE = "base"
EPOCHS = "15"


@dataclasses.dataclass(frozen=True)
class Case:
    """A row of the table: its name, what it changes, and the options of its run.

    `before` are the options of a run that must be finished first, its folder is `{before}`.
    """

    name: str
    title: str
    options: tuple[str, ...] = ()
    before: tuple[str, ...] = ()


def changed(name: str, title: str, *settings: str) -> Case:
    """A row whose model differs by some fields of its configuration."""
    return Case(name, title, tuple(word for each in settings for word in ("--set", each)))


NO_TOKEN = "class_token=false"
DISTILLED = ("--set", "distillation_token=true", "--set", "distillation_head=true")
# The 100-epoch weights that come with the package: 82.7% where the tiny ViT has about 78.
TEACHER = str(ROOT / "numpyvit" / "models" / "pretrained" / "vit_cifar_patch4_32.npz")

CASES = (
    Case(BASE, "the tiny ViT as it is"),
    changed("pooling-avg", "pooling: mean of the patches, no class token", "pooling=avg", NO_TOKEN),
    changed("pooling-max", "pooling: maximum over the patches", "pooling=max", NO_TOKEN),
    changed("pooling-token-avg", "pooling: class token and mean, joined", "pooling=token_avg"),
    changed("pooling-score", "pooling: a learned score a patch", "pooling=score", NO_TOKEN),
    changed("pooling-map", "pooling: attention of a learned query", "pooling=map", NO_TOKEN),
    changed("registers", "tokens: 4 registers", "num_registers=4"),
    changed("positions-none", "positions: none", "positions=none"),
    changed("positions-sincos", "positions: fixed sines and cosines", "positions=sincos"),
    changed("positions-relative", "positions: relative bias", "positions=relative"),
    changed("positions-rotary", "positions: rotary", "positions=rotary"),
    changed(
        "mlp-swiglu",
        "MLP: SwiGLU, of the same size",
        *("mlp=swiglu", "activation=silu", "mlp_ratio=2.667"),
    ),
    changed("stem-overlapping", "stem: overlapping patches", "stem=overlapping"),
    changed("stem-convolutions", "stem: convolutions", "stem=convolutions"),
    changed("stem-hybrid", "stem: a small CNN", "stem=hybrid"),
    changed("block-post-norm", "block: post-norm", "block=post_norm"),
    changed("block-parallel", "block: attention beside the MLP", "block=parallel"),
    changed("norm-rms", "norm: RMSNorm", "norm=rms"),
    changed("layer-scale", "LayerScale from 0.1", "layer_scale=0.1"),
    Case(
        "distilled-hard",
        "distilled: a teacher's answers, two heads",
        ("--teacher", TEACHER, *DISTILLED),
    ),
    Case(
        "distilled-soft",
        "distilled: a teacher's probabilities, one head",
        ("--teacher", TEACHER, "--distillation", "soft"),
    ),
    Case(
        "mae",
        "MAE pre-training, 15 epochs, then 15 as above",
        ("--weights", "{before}"),
        ("--model", "mae_vit_cifar_patch4_32"),
    ),
    Case("swin", "Swin, of about the same size", ("--model", "swin_cifar_patch2_32")),
)


def train(case: Case, seed: int, work: Path, data: list[str]) -> Path:
    """Finish the runs of a row; the folder of the last."""
    folder = work / f"{case.name}-{seed}"
    words = [*data, "--epochs", EPOCHS, "--seed", str(seed)]
    before = folder.with_name(f"{folder.name}-before")
    if case.before:
        training_runs.finish(before, [*words, *case.before])
    options = [option.format(before=before) for option in case.options]
    training_runs.finish(folder, [*words, "--recipe", "default", *options])
    return folder


def result(folder: Path) -> dict[str, Any]:
    """What the table needs of a finished run."""
    run = RunFolder(folder)
    last = run.rows()[-1]
    model = load_model(run.last).model
    return {
        "test_accuracy": last["val_accuracy"],
        "test_loss": last["val_loss"],
        "train_accuracy": last["train_accuracy"],
        "epochs": last["epoch"],
        "parameters": model.num_parameters(),
        "multiply_adds": count_multiply_adds(model.config),
        "commit": commit(),
    }


def commit() -> str:
    """The commit that is checked out."""
    words = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def step_times(cases: list[Case], data_dir: str, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of a training step, medians, all rows in turn; and ratios to the base."""
    data = Subset(load_cifar10("train", data_dir=data_dir), range(640))
    options: Any = argparse.ArgumentParser()
    add_options(options)
    steps = {}
    with tempfile.TemporaryDirectory() as work:
        for case in cases:
            if case.before:  # its last run takes the steps of another row
                continue
            words = ["--data", "cifar10", "--recipe", "default", *case.options]
            config = configuration(options.parse_args(words))
            trainer = Trainer(config, RunFolder(Path(work) / case.name), data, data)
            trainer.pool.__enter__()
            batch = next(iter(trainer.loader.epoch(0)))
            steps[case.name] = lambda trainer=trainer, batch=batch: trainer._train_step(*batch)
        seconds = race(steps, rounds=rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        name: {"seconds": value, "ratio": value / medians[BASE]} for name, value in medians.items()
    }


def table(results: dict[str, Any]) -> str:
    """The rows that have a result, and the commands behind them."""
    lines = [
        "| what is exchanged | parameters | multiply-adds | step | seeds | test accuracy | "
        "against the tiny ViT |",
        "|---|---|---|---|---|---|---|",
    ]
    base = accuracies(results, BASE)
    for case in CASES:
        found = results["runs"].get(case.name, {})
        if not found:
            continue
        some, own = next(iter(found.values())), accuracies(results, case.name)
        shared = sorted(set(own) & set(base))
        gain = statistics.mean(own[seed] - base[seed] for seed in shared) if shared else None
        ratio = results["steps"].get(case.name, {}).get("ratio")
        lines.append(
            f"| {case.title} | {some['parameters']:,} | {some['multiply_adds'] / 1e6:.1f} M | "
            f"{'' if ratio is None else f'{ratio:.2f}'} | {len(own)} | "
            f"**{statistics.mean(own.values()):.2%}** | "
            f"{'' if gain is None or case.name == BASE else f'{100 * gain:+.2f}'} |"
        )
    commands = [
        shlex.join(["numpyvit", "train", "--data", "cifar10", "--epochs", EPOCHS, *case.options])
        for case in CASES
        if case.name in results["runs"]
    ]
    return "\n".join([*lines, "", "The commands, `--seed 0` and on:", "```", *commands, "```"])


def accuracies(results: dict[str, Any], name: str) -> dict[str, float]:
    """Test accuracy by seed."""
    return {seed: run["test_accuracy"] for seed, run in results["runs"].get(name, {}).items()}


def write(results: dict[str, Any]) -> None:
    """Keep the results, and put the table into its page."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(replace_between(PAGE.read_text(), "components", table(results)))


def main() -> None:
    """Run what is left to run, or time the steps; write the page after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True, help="where CIFAR-10 lies")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "components")
    parser.add_argument("--only", help="names of rows, with commas between; all without it")
    parser.add_argument("--seeds", default="0", help="with commas between (default 0)")
    parser.add_argument("--workers", help="processes of each run")
    parser.add_argument("--time", action="store_true", help="time the steps instead")
    parser.add_argument("--rounds", type=int, default=30, help="of --time")
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else [case.name for case in CASES]
    cases = [case for case in CASES if case.name in wanted]
    if unknown := set(wanted) - {case.name for case in CASES}:
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}")
    if options.time:
        results = read()
        results["steps"] |= step_times(cases, options.data_dir, options.rounds)
        write(results)
        return
    data = ["--data", "cifar10", "--data-dir", options.data_dir]
    data += ["--workers", options.workers] if options.workers else []
    for seed in map(int, options.seeds.split(",")):
        for case in cases:
            if str(seed) in read()["runs"].get(case.name, {}):
                continue
            found = result(train(case, seed, options.work, data))
            results = read()  # another one of these may have written meanwhile
            results["runs"].setdefault(case.name, {})[str(seed)] = found
            write(results)


def read() -> dict[str, Any]:
    """The results so far."""
    if not RESULTS.exists():
        return {"runs": {}, "steps": {}}
    return json.loads(RESULTS.read_text())


if __name__ == "__main__":
    main()
