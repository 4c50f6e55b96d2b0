"""What every contender of the training step is: prepared for a case, then called step by step."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy

Arrays = dict[str, numpy.ndarray]

LEARNING_RATE, BETAS, EPS, WEIGHT_DECAY = 1e-3, (0.9, 0.999), 1e-8, 1e-2  # PyTorch's defaults


@dataclasses.dataclass(frozen=True)
class Case:
    """A model's configuration, its starting weights, and the batch that it is trained on.

    `config` has the fields of ViTConfig, `weights` and the arrays that contenders return have the
    names and shapes of its state_dict; images (B, C, H, W) float32, labels (B,) int64.
    """

    config: dict[str, Any]
    weights: Arrays
    images: numpy.ndarray
    labels: numpy.ndarray

    @property
    def tanh(self) -> bool:
        """Whether GELU is the tanh form."""
        return self.config["activation"] == "gelu_tanh"

    def patches(self) -> numpy.ndarray:
        """The images cut up for a linear layer in place of the convolution, (B, N, C * P * P)."""
        b, c, side, _ = self.images.shape
        p = self.config["patch_size"]
        grid = self.images.reshape(b, c, side // p, p, side // p, p)
        # b c h p w q -> b (h w) (c p q)
        return numpy.ascontiguousarray(grid.transpose(0, 2, 4, 1, 3, 5)).reshape(b, -1, c * p * p)


class Contender:
    """One way to take a step: forward, backward, AdamW. Dropout is on where the case has any."""

    def prepare(self, case: Case) -> None:
        """Build the model anew; what is built or compiled here or in the first call is untimed."""
        raise NotImplementedError

    def __call__(self) -> float:
        """Take a step; the batch's mean loss before it."""
        raise NotImplementedError

    def gradients(self) -> Arrays:
        """Those of the last step."""
        raise NotImplementedError

    def weights(self) -> Arrays:
        """The weights as they are now."""
        raise NotImplementedError
