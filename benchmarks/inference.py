"""Inference with ViT-B/16 and ViT-Ti/16, one image and eight: numpyvit beside PyTorch.

    python -m benchmarks inference

Latency and throughput, float32. Every contender lives in a process of its own, all with the same
random weights and images, and their logits are compared before anything is timed. PyTorch takes its
fused attention under `torch.inference_mode`; numpyvit runs `numpyvit.models.predict`, on all cores.
In the last block numpyvit computes the class token alone, the usual PyTorch model every token; a
further row is PyTorch, eager, with the same saving written by hand.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy

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
from numpyvit.models import VisionTransformer, ViTConfig, create_model, predict
from numpyvit.train import available_cores

NAME = "inference"
OURS, EAGER, COMPILED = "numpyvit", "PyTorch eager", "PyTorch compiled"
PRUNED = "PyTorch, class token only"
TOLERANCE = 1e-4  # of logits, relative to the largest
CASES = [
    ("vit_base_patch16_224", 1),
    ("vit_base_patch16_224", 8),
    ("vit_tiny_patch16_224", 1),
    ("vit_tiny_patch16_224", 8),
]
QUICK = [("vit_tiny_patch16_224", 1), ("vit_tiny_patch16_224", 8)]


@dataclasses.dataclass(frozen=True)
class Case:
    """A model's configuration and weights, and images (B, C, H, W) for it, float32."""

    config: dict[str, Any]
    weights: dict[str, numpy.ndarray]
    images: numpy.ndarray

    @classmethod
    def of(cls, config: ViTConfig, model: VisionTransformer, batch: int) -> Case:
        """The weights of `model`, and random images."""
        shape = (batch, config.in_channels, config.image_size, config.image_size)
        images = numpy.random.default_rng(batch).standard_normal(shape, numpy.float32)
        return cls(config.to_dict(), model.state_dict(), images)


class NumpyvitInference:
    """A call is a forward pass; it returns the logits."""

    def prepare(self, case: Case) -> None:
        """Build the model with the case's weights."""
        self.model = VisionTransformer(ViTConfig(**case.config)).eval()
        self.model.load_state_dict(case.weights)
        self.images = case.images

    def __call__(self) -> numpy.ndarray:
        """(B, num_classes)."""
        return predict(self.model, self.images)


class TorchInference:
    """The same in PyTorch, eager or compiled; all tokens or the class token of the last block."""

    def __init__(self, *, compiled: bool, threads: int, class_token_only: bool = False) -> None:
        import torch

        torch.set_num_threads(threads)
        self.compiled, self.class_token_only = compiled, class_token_only

    def prepare(self, case: Case) -> None:
        """Build the model with the case's weights; compile it, where asked to, by a first call."""
        import torch

        from benchmarks.contenders.torch_vit import TorchViT

        config = ViTConfig(**case.config)
        model = TorchViT(config, fused=True, class_token_only=self.class_token_only).eval()
        model.load_state_dict({name: torch.from_numpy(a) for name, a in case.weights.items()})
        self.model = torch.compile(model, dynamic=False) if self.compiled else model
        self.images = torch.from_numpy(case.images)
        self()

    def __call__(self) -> numpy.ndarray:
        """(B, num_classes)."""
        import torch

        with torch.inference_mode():
            return self.model(self.images).numpy()


def enter(stack: contextlib.ExitStack, compiled: bool) -> dict[str, Remote]:
    """Start every contender that is installed."""
    entries = {}
    if available("torch"):
        threads, factory = available_cores(), f"benchmarks.{NAME}:TorchInference"
        for name in [EAGER, COMPILED, PRUNED] if compiled else [EAGER, PRUNED]:
            mode = {"compiled": name == COMPILED, "class_token_only": name == PRUNED}
            entries[name] = stack.enter_context(Remote(factory, threads=threads, **mode))
    entries[OURS] = stack.enter_context(Remote(f"benchmarks.{NAME}:NumpyvitInference"))
    return entries


def prepare(entries: Mapping[str, Any], case: Case) -> dict[str, numpy.ndarray]:
    """Everyone's logits; who cannot compute them is missing, and named with the reason."""
    logits = {}
    for name, remote in entries.items():
        try:
            remote.ask("prepare", case)
            logits[name] = remote()
        except RuntimeError as error:
            print(f"skipped: {name}: {error}", flush=True)
    return logits


def check(logits: Mapping[str, numpy.ndarray]) -> dict[str, float]:
    """How far everyone's logits are from ours, relative; RuntimeError beyond the tolerance."""
    ours, found = logits[OURS], {}
    for name, values in logits.items():
        found[name] = float(numpy.abs(values - ours).max() / numpy.abs(ours).max())
        if not found[name] <= TOLERANCE:
            raise RuntimeError(f"[{NAME}] the logits of {name} are {found[name]:.1e} from ours")
    return found


def main(argv: list[str] | None = None) -> None:
    """Check, time, print, save, draw."""
    arguments = parser(__doc__ or "", rounds=15)
    arguments.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = arguments.parse_args(argv)
    rows: list[Row] = []
    agreement = {}
    models: dict[str, VisionTransformer] = {}
    with contextlib.ExitStack() as stack:
        entries = enter(stack, compiled=not (options.no_compile or options.quick))
        for name, batch in QUICK if options.quick else CASES:
            if name not in models:
                models = {name: create_model(name)}
            title = f"{name}, batch {batch}"
            logits = prepare(entries, Case.of(models[name].config, models[name], batch))
            agreement[title] = check(logits)
            contenders = {name: entries[name] for name in logits}
            found = rows_of(title, race(contenders, rounds=options.rounds), EAGER)
            for row in found:
                row["images a second"] = batch / row["median_s"]
            print_rows(found)
            rows += found
    path = save(
        NAME, rows, options.out, threads=f"each contender {available_cores()}", agreement=agreement
    )
    draw(rows, path.with_suffix(".png"))


def draw(rows: list[Row], path: Path) -> None:
    """Images a second, a panel a model: groups of bars by batch, each with its milliseconds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    colours = {OURS: "#d62728", EAGER: "#7f7f7f", COMPILED: "#bdbdbd", PRUNED: "#a0a0a0"}
    cases = list(dict.fromkeys(row["case"] for row in rows))
    models = list(dict.fromkeys(case.partition(",")[0] for case in cases))
    figure, panels = pyplot.subplots(1, len(models), figsize=(5 * len(models), 3.4), squeeze=False)
    for axes, model in zip(panels[0], models, strict=True):
        groups = [case for case in cases if case.startswith(model)]
        for group, case in enumerate(groups):
            bars = [row for row in rows if row["case"] == case]
            for position, row in enumerate(bars):
                place = group + (position - (len(bars) - 1) / 2) * 0.22
                speed, name = row["images a second"], row["contender"]
                axes.bar(place, speed, 0.2, color=colours[name], label=name if not group else "")
                text = f"{row['median_s'] * 1e3:.0f} ms"
                axes.text(place, speed, text, ha="center", va="bottom", fontsize=8)
        axes.set_xticks(range(len(groups)), [case.partition(", ")[2] for case in groups])
        axes.set_title(model, fontsize=10)
        axes.margins(y=0.12)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("images a second")
    panels[0][0].legend(frameon=False, fontsize=8, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
