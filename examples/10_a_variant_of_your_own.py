"""A new variant is a class, a row in a table and a name: pooling by a power mean, start to end."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from shared import options

from numpyvit import Tensor, create_model, functional
from numpyvit.check import gradcheck
from numpyvit.data import make_shapes
from numpyvit.models import INITIALIZATIONS, components, config
from numpyvit.nn import Module, Parameter
from numpyvit.optim import AdamW

STEPS, BATCH = 100, 32
SMOOTH = 20  # steps that are averaged: one batch's loss jumps


class PowerMeanPool(Module):
    """`mean(relu(x)^p)^(1/p)` over the patches, p learned (Radenovic et al. 2019, eq. 3).

    Between the mean (p = 1) and the maximum (p to infinity): (B, N, D) -> (B, D).
    """

    def __init__(self, num_prefix_tokens: int = 1) -> None:
        self.num_prefix_tokens = num_prefix_tokens
        self.p = Parameter(np.full(1, 3.0, np.float32))

    def forward(self, tokens: Tensor) -> Tensor:
        patches = functional.relu(tokens[:, self.num_prefix_tokens :]) + 1e-6
        mean_power = (patches.log() * self.p).exp().mean(1)
        return (mean_power.log() / self.p).exp()


# In the package these are a line each in models/components.py and models/config.py.
components.POOLINGS["power"] = lambda sizes, rng: PowerMeanPool(sizes.num_prefix_tokens)
config.CHOICES["pooling"] += ("power",)


def main() -> None:
    chosen = options(__file__)
    # Is its gradient right? In float64, against finite differences, in a random direction.
    pool = PowerMeanPool().to("float64")
    gradcheck(lambda tokens: pool(tokens), [np.random.default_rng(0).uniform(0.1, 2, (2, 5, 3))])
    print("gradient of the pooling: right")

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    images, labels = make_shapes(STEPS * BATCH)
    pixels = images.astype(np.float32) / 127.5 - 1
    for pooling in ("token", "avg", "power"):
        losses = np.convolve(train(pooling, pixels, labels), np.ones(SMOOTH) / SMOOTH, "valid")
        axes.plot(np.arange(SMOOTH, STEPS + 1), losses, label=f'pooling="{pooling}"')
        print(f"{pooling:>6}: loss {losses[0]:.2f} -> {losses[-1]:.2f}")
    axes.set(title=f"shapes: loss, mean of {SMOOTH} steps", xlabel="step")
    axes.legend(frameon=False)
    figure.savefig(chosen.picture)
    print(f"saved {chosen.picture}")


def train(pooling: str, pixels: np.ndarray, labels: np.ndarray) -> list[float]:
    """The losses of the first steps of a small ViT with this pooling."""
    sizes = {"patch_size": 8, "depth": 2, "dropout": 0.0}
    model = create_model("vit_cifar_patch4_32", pooling=pooling, **sizes)
    INITIALIZATIONS["structured"](model, np.random.default_rng(0))
    optimizer, losses = AdamW(model.parameters(), lr=2e-3), []
    for start in range(0, len(pixels), BATCH):
        part = slice(start, start + BATCH)
        loss = functional.cross_entropy(model(pixels[part]), labels[part])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


if __name__ == "__main__":
    main()
