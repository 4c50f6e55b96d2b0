"""The step in PyTorch: eager or compiled, with attention written out or fused."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from benchmarks.contenders.contract import (
    BETAS,
    EPS,
    LEARNING_RATE,
    WEIGHT_DECAY,
    Arrays,
    Case,
    Contender,
)
from benchmarks.contenders.torch_vit import TorchViT
from numpyvit.models import ViTConfig


class TorchStep(Contender):
    """One mode of PyTorch, on `threads` threads."""

    def __init__(
        self, *, fused: bool, compiled: bool, threads: int, class_token_only: bool = False
    ) -> None:
        torch.set_num_threads(threads)
        self.options = {"fused": fused, "class_token_only": class_token_only}
        self.compiled = compiled

    def prepare(self, case: Case) -> None:
        self.model = TorchViT(ViTConfig(**case.config), **self.options)
        state = {name: torch.from_numpy(array.copy()) for name, array in case.weights.items()}
        self.model.load_state_dict(state)
        self.images, self.labels = torch.from_numpy(case.images), torch.from_numpy(case.labels)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=LEARNING_RATE,
            betas=BETAS,
            eps=EPS,
            weight_decay=WEIGHT_DECAY,
        )
        self.forward = self.model
        if self.compiled:
            torch._dynamo.reset()
            self.forward = torch.compile(self.model, dynamic=False)

    def __call__(self) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(self.forward(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def gradients(self) -> Arrays:
        return {name: p.grad.numpy().copy() for name, p in self.model.named_parameters()}

    def weights(self) -> Arrays:
        return {name: p.detach().numpy().copy() for name, p in self.model.named_parameters()}
