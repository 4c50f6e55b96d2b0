"""The step in auto-compyute: its modules, its fused attention, its AdamW.

https://github.com/dakofler/auto_compyute needs Python 3.12, so this file must not import numpyvit.
"""

from __future__ import annotations

import auto_compyute as ac
import numpy
from auto_compyute import nn

from benchmarks.contenders.contract import (
    BETAS,
    EPS,
    LEARNING_RATE,
    WEIGHT_DECAY,
    Arrays,
    Case,
    Contender,
)


class Block(nn.Module):
    """Pre-norm block."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        d = config["embed_dim"]
        self.norm1 = nn.Layernorm(d, config["norm_eps"])
        self.attn = nn.MultiHeadSelfAttention(
            d, config["num_heads"], dropout=config["attention_dropout"], attn_bias=True
        )
        self.norm2 = nn.Layernorm(d, config["norm_eps"])
        width = int(d * config["mlp_ratio"])
        self.mlp = nn.Sequential(nn.Linear(d, width), nn.GELU(), nn.Linear(width, d))
        self.drop = nn.Dropout(config["dropout"])

    def forward(self, x: ac.Tensor) -> ac.Tensor:
        x = x + self.drop(self.attn(self.norm1(x)))
        return x + self.drop(self.mlp(self.norm2(x)))


class AutoCompyuteViT(nn.Module):
    """Takes patches (B, N, C * P * P): a linear layer on them is faster than its convolution."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        d, side = config["embed_dim"], config["image_size"] // config["patch_size"]
        self.cls_token = nn.Parameter(ac.zeros(1, 1, d))
        self.pos_embed = nn.Parameter(ac.zeros(1, side * side + 1, d))
        self.patch_embed = nn.Linear(config["in_channels"] * config["patch_size"] ** 2, d)
        self.drop = nn.Dropout(config["dropout"])
        self.blocks = nn.Modulelist(Block(config) for _ in range(config["depth"]))
        self.head = nn.Linear(d, config["num_classes"])

    def forward(self, patches: ac.Tensor) -> ac.Tensor:
        b, d = len(patches), self.cls_token.shape[-1]
        x = ac.concat(self.cls_token.expand(b, 1, d), self.patch_embed(patches), dim=1)
        x = self.drop(x + self.pos_embed)
        for block in self.blocks:
            x = block(x)
        return self.head(x[:, 0])

    def named(self) -> dict[str, nn.Parameter]:
        """Its parameters under the names of the case's weights."""
        found = {"cls_token": self.cls_token, "pos_embed": self.pos_embed}
        layers = {"patch_embed.proj": self.patch_embed, "head": self.head}
        for i, block in enumerate(self.blocks):
            layers |= {
                f"blocks.{i}.norm1": block.norm1,
                f"blocks.{i}.attn.qkv": block.attn.qkv,
                f"blocks.{i}.attn.proj": block.attn.out,
                f"blocks.{i}.norm2": block.norm2,
                f"blocks.{i}.mlp.fc1": block.mlp._modules["0"],
                f"blocks.{i}.mlp.fc2": block.mlp._modules["2"],
            }
        for name, layer in layers.items():
            found |= {f"{name}.weight": layer.w, f"{name}.bias": layer.b}
        return found


class AutoCompyuteStep(Contender):
    """Only for models whose GELU is the tanh form and that end without a norm: it has no erf."""

    def prepare(self, case: Case) -> None:
        if not case.tanh or case.config["final_norm"]:
            raise ValueError("it has no GELU of the erf form")
        self.model = AutoCompyuteViT(case.config)
        self.shapes = {name: array.shape for name, array in case.weights.items()}
        self.parameters = self.model.named()
        for name, parameter in self.parameters.items():
            parameter.data = case.weights[name].reshape(parameter.shape).copy()
        self.model.train()
        self.optimizer = nn.optimizers.AdamW(
            self.model.parameters(), LEARNING_RATE, *BETAS, EPS, WEIGHT_DECAY
        )
        self.patches, self.labels = ac.tensor(case.patches()), ac.tensor(case.labels)

    def __call__(self) -> float:
        self.optimizer.reset_param_grads()
        loss = nn.functional.cross_entropy_loss(self.model(self.patches), self.labels)
        value = loss.item()
        loss.backward()
        self.optimizer.update_params()
        return value

    def gradients(self) -> Arrays:
        return {name: self._shaped(name, p.grad) for name, p in self.parameters.items()}

    def weights(self) -> Arrays:
        return {name: self._shaped(name, p.data) for name, p in self.parameters.items()}

    def _shaped(self, name: str, array: numpy.ndarray) -> numpy.ndarray:
        return array.reshape(self.shapes[name]).copy()
