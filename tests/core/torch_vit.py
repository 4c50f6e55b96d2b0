"""A Vision Transformer written out in PyTorch: the oracle of the whole model.

It is plain functions on a dict of tensors with timm's names, so that nothing of it can share a
mistake with numpyvit's modules.
"""

from __future__ import annotations

from typing import Any

import torch
from tolerances import as_numpy
from torch.nn.functional import conv2d, cross_entropy, gelu, layer_norm, linear

from numpyvit.models import ViTConfig

State = dict[str, torch.Tensor]


def leaves(state: dict[str, Any]) -> State:
    """A numpyvit `state_dict` as PyTorch leaves, copied."""
    return {
        name: torch.tensor(as_numpy(array), requires_grad=True) for name, array in state.items()
    }


def forward(state: State, images: torch.Tensor, config: ViTConfig) -> dict[str, Any]:
    """Logits, attention weights and hidden states; no dropout."""
    x = conv2d(
        images,
        state["patch_embed.proj.weight"],
        state["patch_embed.proj.bias"],
        stride=config.patch_size,
    )
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x], dim=1) + state["pos_embed"]
    hidden, attention = [x], []
    for number in range(config.depth):
        block = {
            name.removeprefix(f"blocks.{number}."): tensor
            for name, tensor in state.items()
            if name.startswith(f"blocks.{number}.")
        }
        mixed, weights = _attention(block, _norm(block, "norm1", x, config), config)
        x = x + mixed
        x = x + _mlp(block, _norm(block, "norm2", x, config), config)
        hidden.append(x)
        attention.append(weights)
    if config.final_norm:
        x = _norm(state, "norm", x, config)
    logits = linear(x[:, 0], state["head.weight"], state["head.bias"])
    return {"logits": logits, "attention": attention, "hidden_states": hidden}


def loss(
    state: State, images: torch.Tensor, labels: torch.Tensor, config: ViTConfig
) -> torch.Tensor:
    return cross_entropy(forward(state, images, config)["logits"], labels)


def _norm(state: State, name: str, x: torch.Tensor, config: ViTConfig) -> torch.Tensor:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return layer_norm(x, x.shape[-1:], weight, bias, config.norm_eps)


def _attention(
    block: State, x: torch.Tensor, config: ViTConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    b, n, d = x.shape
    qkv = linear(x, block["attn.qkv.weight"], block.get("attn.qkv.bias"))
    q, k, v = qkv.reshape(b, n, 3, config.num_heads, -1).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1)
    y = (weights @ v).transpose(1, 2).reshape(b, n, d)
    return linear(y, block["attn.proj.weight"], block["attn.proj.bias"]), weights


def _mlp(block: State, x: torch.Tensor, config: ViTConfig) -> torch.Tensor:
    x = linear(x, block["mlp.fc1.weight"], block["mlp.fc1.bias"])
    x = gelu(x, approximate="tanh" if config.activation == "gelu_tanh" else "none")
    return linear(x, block["mlp.fc2.weight"], block["mlp.fc2.bias"])
