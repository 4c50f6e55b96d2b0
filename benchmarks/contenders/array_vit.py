"""The ViT for libraries that give NumPy's functions gradients: written once, of such functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from benchmarks.contenders.contract import BETAS, EPS, LEARNING_RATE, WEIGHT_DECAY, Arrays, Case

Array = Any  # the library's own


class ArrayViT:
    """The mean loss of a batch, from arrays that the library follows.

    `xp` has NumPy's functions; `softmax(x)` is over the last axis; `erf` is asked for where the
    model's GELU is not the tanh form.
    """

    def __init__(
        self, case: Case, xp: Any, softmax: Callable[[Array], Array], erf: Callable[[Array], Array]
    ) -> None:
        self.xp, self.softmax, self.erf = xp, softmax, erf
        self.config, self.tanh, self.patches = case.config, case.tanh, case.patches()
        self.target = numpy.eye(case.config["num_classes"], dtype=numpy.float32)[case.labels]
        self.rng = numpy.random.default_rng(0)

    def loss(self, p: dict[str, Array]) -> Array:
        """Cross-entropy; `p` maps names to the parameters."""
        logits = self.logits(p)
        shifted = logits - logits.max(axis=-1, keepdims=True)
        log_sum = self.xp.log(self.xp.exp(shifted).sum(axis=-1, keepdims=True))
        return ((log_sum - shifted) * self.target).sum() / len(self.target)

    def logits(self, p: dict[str, Array]) -> Array:
        """Class scores (B, classes)."""
        b, d = len(self.patches), self.config["embed_dim"]
        weight = p["patch_embed.proj.weight"].reshape(d, -1)
        x = self.linear(self.patches, weight, p["patch_embed.proj.bias"])
        token = p["cls_token"] + numpy.zeros((b, 1, d), numpy.float32)
        x = self.dropout(self.xp.concatenate([token, x], axis=1) + p["pos_embed"])
        for i in range(self.config["depth"]):
            q = {key.split(".", 2)[2]: v for key, v in p.items() if key.startswith(f"blocks.{i}.")}
            x = x + self.dropout(self.attention(self.norm(x, q, "norm1."), q))
            x = x + self.dropout(self.mlp(self.norm(x, q, "norm2."), q))
        x = x[:, 0]
        if self.config["final_norm"]:
            x = self.norm(x, p, "norm.")
        return self.linear(x, p["head.weight"], p["head.bias"])

    def linear(self, x: Array, weight: Array, bias: Array) -> Array:
        """One flat product: the weight's gradient is then one product too."""
        y = self.xp.matmul(x.reshape(-1, x.shape[-1]), weight.T) + bias
        return y.reshape(*x.shape[:-1], weight.shape[0])

    def norm(self, x: Array, p: dict[str, Array], prefix: str) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        scale = 1 / self.xp.sqrt(variance + self.config["norm_eps"])
        return centred * scale * p[prefix + "weight"] + p[prefix + "bias"]

    def attention(self, x: Array, p: dict[str, Array]) -> Array:
        b, n, d = x.shape
        weight = p["attn.qkv.weight"].reshape(3, d, d)
        bias = p["attn.qkv.bias"].reshape(3, d)
        # Three projections: cutting up the result of one is slow to go back through.
        q, k, v = (self.heads(self.linear(x, weight[i], bias[i])) for i in range(3))
        q = q * q.shape[-1] ** -0.5
        weights = self.softmax(self.xp.matmul(q, self.xp.swapaxes(k, -1, -2)))
        y = self.xp.matmul(self.dropout(weights, "attention_dropout"), v)
        y = self.xp.swapaxes(y, 1, 2).reshape(b, n, d)
        return self.linear(y, p["attn.proj.weight"], p["attn.proj.bias"])

    def heads(self, x: Array) -> Array:
        b, n, d = x.shape
        count = self.config["num_heads"]
        return self.xp.swapaxes(x.reshape(b, n, count, d // count), 1, 2)  # b n (h k) -> b h n k

    def mlp(self, x: Array, p: dict[str, Array]) -> Array:
        x = self.gelu(self.linear(x, p["mlp.fc1.weight"], p["mlp.fc1.bias"]))
        return self.linear(x, p["mlp.fc2.weight"], p["mlp.fc2.bias"])

    def gelu(self, x: Array) -> Array:
        if not self.tanh:
            return 0.5 * x * (1 + self.erf(x * 0.5**0.5))
        scale = math.sqrt(2 / math.pi)
        inner = x * (scale + 0.044715 * scale * (x * x))  # x**3 is slow in NumPy
        return 0.5 * x * (1 + self.xp.tanh(inner))

    def dropout(self, x: Array, kind: str = "dropout") -> Array:
        p = self.config[kind]
        if not p:
            return x
        keep = self.rng.random(x.shape, numpy.float32) >= p
        return x * (keep * numpy.float32(1 / (1 - p)))


class PlainAdamW:
    """AdamW on plain arrays, in place, for libraries that come without."""

    def __init__(self, weights: Arrays) -> None:
        self.step_count = 0
        self.first = {name: numpy.zeros_like(array) for name, array in weights.items()}
        self.second = {name: numpy.zeros_like(array) for name, array in weights.items()}

    def step(self, weights: Arrays, gradients: Arrays) -> None:
        """Update `weights` in place."""
        self.step_count += 1
        first_scale = 1 - BETAS[0] ** self.step_count
        second_scale = 1 - BETAS[1] ** self.step_count
        for name, weight in weights.items():
            gradient, m, v = gradients[name], self.first[name], self.second[name]
            m *= BETAS[0]
            m += (1 - BETAS[0]) * gradient
            v *= BETAS[1]
            v += (1 - BETAS[1]) * gradient * gradient
            weight *= 1 - LEARNING_RATE * WEIGHT_DECAY
            weight -= LEARNING_RATE / first_scale * m / (numpy.sqrt(v / second_scale) + EPS)
