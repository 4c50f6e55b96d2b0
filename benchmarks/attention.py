"""The attention core, forward and backward: numpyvit beside PyTorch, interleaved in one process.

    python benchmarks/attention.py --tokens 65 --heads 1024 --width 12

Heads of all images are one axis. The outputs are compared before anything is timed.
"""

from __future__ import annotations

import argparse

import numpy
import torch
from side_by_side import race, save, table
from torch.nn import functional as F

from numpyvit import ops
from numpyvit.train import available_cores


def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention from its equation."""
    return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v


def main() -> None:
    """Check, time, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=1024, help="heads times images")
    parser.add_argument("--tokens", type=int, default=65)
    parser.add_argument("--width", type=int, default=12, help="of a head")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(available_cores())
    rng = numpy.random.default_rng(0)
    shape = (options.heads, options.tokens, options.width)
    q, k, v, dy = (rng.standard_normal(shape, numpy.float32) for _ in range(4))
    leaves = [torch.from_numpy(array).requires_grad_() for array in (q, k, v)]
    cotangent = torch.from_numpy(dy)

    def ours() -> numpy.ndarray:
        y, pullback = ops.attention(q, k, v)
        pullback(dy)
        return y

    def theirs(attend) -> numpy.ndarray:  # type: ignore[no-untyped-def]
        y = attend(*leaves)
        torch.autograd.grad(y, leaves, cotangent)
        return y.detach().numpy()

    contenders = {
        "PyTorch written out": lambda: theirs(written_out),
        "PyTorch fused": lambda: theirs(F.scaled_dot_product_attention),
        "numpyvit": ours,
    }
    outputs = [run() for run in contenders.values()]
    for output in outputs:
        numpy.testing.assert_allclose(output, outputs[0], rtol=1e-3, atol=1e-5)
    seconds = race(contenders, rounds=options.rounds)
    title = "attention, heads x tokens x width = " + " x ".join(map(str, shape))
    rows = table(title, seconds, "PyTorch fused")
    save(f"attention_{options.tokens}", rows, torch=torch.__version__)


if __name__ == "__main__":
    main()
