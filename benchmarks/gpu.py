"""Training step and attention core on a GPU: CuPy beside PyTorch, and NumPy on the host.

    python -m benchmarks gpu

Eager PyTorch and numpyvit share the card, in float32 without TF32; the step copies its batch from
the host in both. The clock is read once the card has finished. On the card a step is one
micro-batch, as in the trainer. First losses, outputs and gradients are compared before anything is
timed. Without CuPy or without a GPU this says so and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

from benchmarks.side_by_side import available, parser, print_rows, race, rows_of, save
from benchmarks.step import TrainingStep
from numpyvit import ops
from numpyvit.backend import to_device, to_numpy
from numpyvit.models import ViTConfig, model_config
from numpyvit.train import WorkerPool, available_cores

NAME = "gpu"
REFERENCE, OURS, HOST = "PyTorch eager", "numpyvit on CuPy", "numpyvit on the host"
SIZES = [(1024, 65, 12), (96, 197, 64), (24, 785, 64)]  # heads times images, tokens, head width
APART = 1e-3  # relative to the largest value: how far results may lie apart

Results = list[numpy.ndarray]
Call = Callable[[], Results]


def missing() -> str | None:
    """Why there is nothing to measure; None where there is."""
    try:
        to_device(numpy.zeros(1, numpy.float32), "cuda")
    except (ImportError, RuntimeError) as error:
        return str(error)
    return None


def synchronised(call: Call, wait: Callable[[], object]) -> Call:
    """`call`, then `wait` for the card to finish."""

    def run() -> Results:
        result = call()
        wait()
        return result

    return run


def cupy_wait() -> None:
    """Wait for all that CuPy has asked of the card."""
    import cupy

    cupy.cuda.Device().synchronize()


def torch_on(device: str) -> Any:
    """PyTorch without TF32, if it is installed and has the device; else None, after a line."""
    if not available("torch"):
        return None
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        print("skipped: PyTorch: this build finds no GPU", flush=True)
        return None
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return torch


def torch_step(torch: Any, step: TrainingStep, device: str) -> Call:
    """A step of eager PyTorch from the weights of `step`, on its batch."""
    from benchmarks.contenders.torch_vit import TorchViT

    model = TorchViT(step.model.config, fused=True)
    weights = step.model.state_dict()
    state = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
    model.load_state_dict(state)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images, labels = torch.from_numpy(step.images), torch.from_numpy(step.labels)

    def run() -> Results:
        optimizer.zero_grad(set_to_none=True)
        logits = model(images.to(device))
        loss = torch.nn.functional.cross_entropy(logits, labels.to(device))
        loss.backward()
        optimizer.step()
        return [numpy.array(loss.item())]

    return run


def training(
    config: ViTConfig, batch: int, device: str, pools: list[WorkerPool]
) -> dict[str, Call]:
    """Steps by contender; `pools` are for the card, one worker, and for the host."""
    steps = {
        OURS: TrainingStep(config, batch, pools[0], device=device, micro_batch=batch),
        HOST: TrainingStep(config, batch, pools[1]),
    }
    calls: dict[str, Call] = {
        name: lambda step=step: [numpy.array(step())] for name, step in steps.items()
    }
    wait: Callable[[], object] = cupy_wait if device == "cuda" else int
    calls[OURS] = synchronised(calls[OURS], wait)
    if torch := torch_on(device):
        call = torch_step(torch, TrainingStep(config, batch, pools[1]), device)
        wait = torch.cuda.synchronize if device == "cuda" else int
        calls = {REFERENCE: synchronised(call, wait), **calls}
    return calls


def attention(shape: tuple[int, int, int], device: str) -> dict[str, Call]:
    """Attention, forward and backward, by contender: output and gradients, on their device."""
    rng = numpy.random.default_rng(0)
    drawn = [rng.standard_normal(shape, numpy.float32) for _ in range(4)]

    def ours(arrays: list[Any]) -> Call:
        def run() -> Results:
            y, pullback = ops.attention(*arrays[:3])
            return [y, *pullback(arrays[3], (True,) * 3)]

        return run

    wait: Callable[[], object] = cupy_wait if device == "cuda" else int
    moved = [to_device(array, device) for array in drawn]
    calls = {OURS: synchronised(ours(moved), wait), HOST: ours(drawn)}
    if torch := torch_on(device):
        *leaves, dy = (torch.from_numpy(array[None]).to(device) for array in drawn)
        leaves = [leaf.requires_grad_() for leaf in leaves]

        def theirs() -> Results:
            y = torch.nn.functional.scaled_dot_product_attention(*leaves)
            return [y.detach()[0], *(dx[0] for dx in torch.autograd.grad(y, leaves, dy))]

        wait = torch.cuda.synchronize if device == "cuda" else int
        calls = {REFERENCE: synchronised(theirs, wait), **calls}
    return calls


def check(case: str, calls: dict[str, Call]) -> None:
    """Raise ValueError where a contender's first results are not the host's."""
    expected = calls[HOST]()
    for name, call in calls.items():
        if name == HOST:
            continue
        for found, wanted in zip(call(), expected, strict=True):
            array = found.cpu().numpy() if hasattr(found, "cpu") else to_numpy(found)
            apart, size = float(abs(array - wanted).max()), float(abs(wanted).max())
            if not apart <= APART * size:
                raise ValueError(f"[gpu] {case}: {name} is {apart:g} away from the host's {size:g}")


def measure(case: str, calls: dict[str, Call], rounds: int) -> list[dict[str, Any]]:
    """Check, then race."""
    check(case, calls)
    return rows_of(case, race(calls, rounds=rounds, warm_up=3), REFERENCE)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """A group of bars a case, logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = list(dict.fromkeys(row["case"] for row in rows))
    shades = {REFERENCE: "tab:orange", OURS: "tab:blue", HOST: "silver"}
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.9 * len(cases)))
    for row in rows:
        place = cases.index(row["case"]) + 0.27 * (list(shades).index(row["contender"]) - 1)
        axes.barh(place, 1e3 * row["median_s"], 0.25, color=shades[row["contender"]])
        axes.text(
            1e3 * row["median_s"], place, f" {1e3 * row['median_s']:.3g}", va="center", fontsize=8
        )
    axes.set_xscale("log")
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=shade) for shade in shades.values()]
    axes.legend(handles, shades, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=140)
    pyplot.close(figure)
    print(f"written: {path}")


def main(argv: list[str] | None = None) -> None:
    """Measure, print, save."""
    options = parser(__doc__ or "", rounds=15).parse_args(argv)
    if reason := missing():
        print(f"skipped: gpu: {reason}")
        return
    rows = []
    with WorkerPool(1) as one, WorkerPool(available_cores()) as many:
        for dropout in (0.0, 0.1):
            config = model_config("vit_cifar_patch4_32", dropout=dropout, attention_dropout=dropout)
            case = f"training step, batch {64 if options.quick else 256}, dropout {dropout:g}"
            calls = training(config, 64 if options.quick else 256, "cuda", [one, many])
            if dropout:  # every contender draws other bits: there is nothing to compare
                rows += rows_of(case, race(calls, rounds=options.rounds, warm_up=3), REFERENCE)
            else:
                rows += measure(case, calls, options.rounds)
    for shape in SIZES[:1] if options.quick else SIZES:
        case = "attention {} x {} x {}".format(*shape)
        rows += measure(case, attention(shape, "cuda"), options.rounds)
    print_rows(rows)
    save(NAME, rows, options.out, card=card())
    draw(rows, options.out / f"{NAME}.png")


def card() -> str:
    """The GPU's name."""
    import cupy

    return cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
