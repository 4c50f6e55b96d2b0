"""One AdamW step of vit_cifar_patch4_32: numpyvit beside PyTorch, interleaved in one process.

    python benchmarks/training_step.py --batch-size 256 --dropout 0.1

Both sides start from the same weights and see the same batch; without dropout their losses are
compared before anything is timed.
"""

from __future__ import annotations

import argparse
import contextlib

import numpy
import torch
from side_by_side import Contenders, race, save, table
from torch.nn import functional as F
from torch_vit import TorchViT

from numpyvit.models import VisionTransformer, create_model
from numpyvit.optim import AdamW
from numpyvit.train import WorkerPool, available_cores, set_gradients

Batch = tuple[numpy.ndarray, numpy.ndarray]


class NumpyStep:
    """A step on an open pool of threads."""

    def __init__(self, model: VisionTransformer, batch: Batch, pool: WorkerPool) -> None:
        self.model, self.batch, self.pool = model, batch, pool
        self.optimizer = AdamW(model.parameters(), lr=1e-3)
        self.step = 0

    def __call__(self) -> float:
        result = set_gradients(self.model, *self.batch, self.pool, seed=(0, self.step))
        self.optimizer.step()
        self.step += 1
        return result.loss


class TorchStep:
    """The same in PyTorch."""

    def __init__(self, model: VisionTransformer, batch: Batch, *, fused: bool) -> None:
        self.model = TorchViT(model.config, fused=fused)
        state = {name: torch.from_numpy(a.copy()) for name, a in model.state_dict().items()}
        self.model.load_state_dict(state)
        self.images, self.labels = (torch.from_numpy(array) for array in batch)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)

    def __call__(self) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.model(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss.item()


def contenders(batch_size: int, dropout: float, stack: contextlib.ExitStack) -> Contenders:
    """Every way to take the step, by name; their pools close with `stack`.

    An open pool holds NumPy's BLAS to one thread. PyTorch's own threads are not touched by it.
    """
    rng = numpy.random.default_rng(0)
    images = rng.standard_normal((batch_size, 3, 32, 32), numpy.float32)
    batch = images, rng.integers(0, 10, batch_size)

    def model() -> VisionTransformer:
        return create_model(
            "vit_cifar_patch4_32", dropout=dropout, attention_dropout=dropout
        ).train()

    cores = available_cores()
    steps: Contenders = {
        "PyTorch eager": TorchStep(model(), batch, fused=False),
        "PyTorch fused attention": TorchStep(model(), batch, fused=True),
    }
    for workers in sorted({1, cores}):
        pool = stack.enter_context(WorkerPool(workers))
        steps[f"numpyvit, {workers} worker(s)"] = NumpyStep(model(), batch, pool)
    return steps


def main() -> None:
    """Check, time, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(available_cores())
    with contextlib.ExitStack() as stack:
        steps = contenders(options.batch_size, options.dropout, stack)
        if not options.dropout:
            losses = [step() for step in steps.values()]
            numpy.testing.assert_allclose(losses, losses[0], rtol=1e-5)
        seconds = race(steps, rounds=options.rounds)
    title = f"training step, batch {options.batch_size}, dropout {options.dropout:g}"
    rows = table(title, seconds, "PyTorch eager")
    name = f"training_step_{options.batch_size}_{options.dropout:g}"
    save(name, rows, torch=torch.__version__)


if __name__ == "__main__":
    main()
