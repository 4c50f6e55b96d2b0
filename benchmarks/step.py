"""One training step of numpyvit on random images."""

from __future__ import annotations

import numpy

from numpyvit.models import VisionTransformer, ViTConfig
from numpyvit.optim import AdamW
from numpyvit.train import WorkerPool, set_gradients


class TrainingStep:
    """Forward, backward, AdamW, on an open pool; the model's weights are always the same."""

    def __init__(
        self,
        config: ViTConfig,
        batch_size: int,
        pool: WorkerPool,
        *,
        device: str = "cpu",
        micro_batch: int | None = None,
    ) -> None:
        rng = numpy.random.default_rng(0)
        shape = (batch_size, config.in_channels, config.image_size, config.image_size)
        self.images = rng.standard_normal(shape, numpy.float32)
        self.labels = rng.integers(0, config.num_classes, batch_size)
        self.model = VisionTransformer(config, rng=rng).train().to(device=device)
        self.optimizer = AdamW(self.model.parameters(), lr=1e-3)
        self.pool, self.micro_batch, self.count = pool, micro_batch, 0

    def __call__(self) -> float:
        """Take the step; its mean loss."""
        loss = self.forward_and_back()
        self.optimizer.step()
        return loss

    def forward_and_back(self) -> float:
        """The step without the update."""
        result = set_gradients(
            self.model,
            self.images,
            self.labels,
            self.pool,
            seed=(0, self.count),
            micro_batch=self.micro_batch,
        )
        self.count += 1
        return result.loss
