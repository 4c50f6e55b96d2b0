"""The step in numpyvit, on a pool of workers."""

from __future__ import annotations

import contextlib
import weakref

from benchmarks.contenders.contract import Arrays, Case, Contender
from numpyvit.models import VisionTransformer, ViTConfig
from numpyvit.optim import AdamW
from numpyvit.train import WorkerPool, set_gradients


class NumpyvitStep(Contender):
    """As the trainer does it."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.stack = contextlib.ExitStack()
        weakref.finalize(self, self.stack.close)

    def prepare(self, case: Case) -> None:
        self.stack.close()
        self.case, self.step = case, 0
        self.model = VisionTransformer(ViTConfig(**case.config)).train()
        self.model.load_state_dict(case.weights)
        self.optimizer = AdamW(self.model.parameters())
        self.pool = self.stack.enter_context(WorkerPool(self.workers))

    def __call__(self) -> float:
        images, labels = self.case.images, self.case.labels
        result = set_gradients(self.model, images, labels, self.pool, seed=(0, self.step))
        self.optimizer.step()
        self.step += 1
        return result.loss

    def gradients(self) -> Arrays:
        return {name: p.grad.copy() for name, p in self.model.named_parameters()}

    def weights(self) -> Arrays:
        return {name: array.copy() for name, array in self.model.state_dict().items()}
