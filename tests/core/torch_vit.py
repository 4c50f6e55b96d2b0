"""A Vision Transformer written out in PyTorch: the oracle of the whole model.

It is plain functions on a dict of tensors with timm's names, so that nothing of it can share a
mistake with numpyvit's modules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tolerances import as_numpy
from torch.nn.functional import (
    conv2d,
    cross_entropy,
    gelu,
    layer_norm,
    linear,
    relu,
    rms_norm,
    silu,
)

from numpyvit.models import ViTConfig

State = dict[str, torch.Tensor]

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": gelu,
    "gelu_tanh": lambda x: gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * (1.702 * x).sigmoid(),
    "relu": relu,
    "silu": silu,
}


def leaves(state: dict[str, Any]) -> State:
    """A numpyvit `state_dict` as PyTorch leaves, copied."""
    return {
        name: torch.tensor(as_numpy(array), requires_grad=True) for name, array in state.items()
    }


def forward(state: State, images: torch.Tensor, config: ViTConfig) -> dict[str, Any]:
    """Logits, attention weights and hidden states; no dropout."""
    x = _embedding(state, images, config)
    hidden, attention = [x], []
    for number in range(config.depth):
        x, weights = block(_inside(state, f"blocks.{number}."), x, config)
        hidden.append(x)
        attention += weights
    if config.final_norm:
        x = _norm(state, "norm", x, config)
    return {"logits": _logits(state, x, config), "attention": attention, "hidden_states": hidden}


def block(
    state: State,
    x: torch.Tensor,
    config: ViTConfig,
    drop: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Tokens after one block, by its kind's equation, and its attention's weights.

    `drop` is what becomes of each branch before it is added.
    """
    maps: list[torch.Tensor] = []

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return _norm(state, name, x, config)

    def attend(x: torch.Tensor, within: str = "") -> torch.Tensor:
        y, weights = _attention(_inside(state, within), x, config)
        maps.append(weights)
        return y

    def mix(x: torch.Tensor, within: str = "") -> torch.Tensor:
        return _mlp(_inside(state, within), x, config)

    def scale(x: torch.Tensor, name: str) -> torch.Tensor:
        return drop(x * state.get(f"{name}.gamma", 1))

    if config.block == "pre_norm":
        x = x + scale(attend(norm(x, "norm1")), "ls1")
        x = x + scale(mix(norm(x, "norm2")), "ls2")
    elif config.block == "post_norm":
        x = norm(x + scale(attend(x), "ls1"), "norm1")
        x = norm(x + scale(mix(x), "ls2"), "norm2")
    elif config.block == "res_post_norm":
        x = x + drop(norm(attend(x), "norm1"))
        x = x + drop(norm(mix(x), "norm2"))
    elif config.block == "parallel":
        y = norm(x, "norm")
        x = x + scale(attend(y) + mix(y), "ls")
    else:
        for kind, compute in (("attns", attend), ("ffns", mix)):
            places = [f"{kind}.{number}." for number in range(2)]
            a, b = (scale(compute(norm(x, f"{p}norm"), p), f"{p}ls") for p in places)
            x = x + a + b
    return x, maps


def _inside(state: State, prefix: str) -> State:
    """What is under `prefix`, without it."""
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}


def _embedding(state: State, images: torch.Tensor, config: ViTConfig) -> torch.Tensor:
    weight, bias = state["patch_embed.proj.weight"], state.get("patch_embed.proj.bias")
    x = conv2d(images, weight, bias, stride=config.patch_size).flatten(2).transpose(1, 2)
    if config.positions == "patches":
        x = x + state["pos_embed"]
    if config.positions.startswith("sincos"):
        x = x + torch.stack([_waves(*place, config) for place in _places(config)]).to(x.dtype)
    names = [name for name in ("cls_token", "dist_token", "reg_token") if name in state]
    x = torch.cat([*(state[name].expand(len(x), -1, -1) for name in names), x], dim=1)
    if config.positions == "all":
        x = x + state["pos_embed"]
    return _norm(state, "norm_pre", x, config) if config.pre_norm else x


def _places(config: ViTConfig) -> list[tuple[int, int]]:
    """Row and column of each patch."""
    return [(row, column) for row in range(config.grid[0]) for column in range(config.grid[1])]


def _waves(row: int, column: int, config: ViTConfig) -> torch.Tensor:
    n = config.embed_dim // 4
    steps = n - 1 if config.positions == "sincos" else n
    rates = torch.tensor([10000 ** (-i / steps) for i in range(n)], dtype=torch.float64)
    parts = [wave(place * rates) for place in (column, row) for wave in (torch.sin, torch.cos)]
    return torch.cat(parts)


def _relative_bias(table: torch.Tensor, config: ViTConfig) -> torch.Tensor:
    """(H, N, N), one pair of tokens after the other."""
    places: list[Any] = [None] * config.num_prefix_tokens + _places(config)
    h, w = config.grid
    last = (2 * h - 1) * (2 * w - 1)

    def entry(query: Any, key: Any) -> torch.Tensor:
        if query is None:
            return table[last + 2 if key is None else last]
        if key is None:
            return table[last + 1]
        down, right = query[0] - key[0], query[1] - key[1]
        return table[(down + h - 1) * (2 * w - 1) + right + w - 1]

    rows = [torch.stack([entry(query, key) for key in places]) for query in places]
    return torch.stack(rows).permute(2, 0, 1)


def _turned(x: torch.Tensor, config: ViTConfig) -> torch.Tensor:
    """Queries or keys (B, H, N, K), the patches' turned pair by pair."""
    k, first = x.shape[-1], config.num_prefix_tokens
    columns = []
    for pair in range(k // 2):
        rate = 100 ** (-(pair % (k // 4)) / (k // 4))
        places = [column if pair < k // 4 else row for row, column in _places(config)]
        angle = torch.tensor([0.0] * first + places, dtype=x.dtype) * rate
        a, b = x[..., 2 * pair], x[..., 2 * pair + 1]
        columns += [a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()]
    return torch.stack(columns, -1)


def _logits(state: State, x: torch.Tensor, config: ViTConfig) -> torch.Tensor:
    patches = x[:, config.num_prefix_tokens :].mean(1)
    pooled = {
        "token": lambda: x[:, 0],
        "max": lambda: x[:, config.num_prefix_tokens :].amax(1),
        "score": lambda: _score_pool(state, x[:, config.num_prefix_tokens :]),
        "avg": lambda: patches,
        "token_avg": lambda: torch.cat([x[:, 0], patches], dim=-1),
        "map": lambda: _attention_pool(state, x, config),
    }[config.pooling]()
    if config.head_norm:
        pooled = _norm(state, "fc_norm", pooled, config)
    if config.pre_logits:
        pooled = linear(pooled, state["pre_logits.fc.weight"], state["pre_logits.fc.bias"]).tanh()
    if not config.num_classes:
        return pooled
    logits = linear(pooled, state["head.weight"], state["head.bias"])
    if config.distillation_head:
        logits = (logits + linear(x[:, 1], state["head_dist.weight"], state["head_dist.bias"])) / 2
    return logits


def _score_pool(state: State, patches: torch.Tensor) -> torch.Tensor:
    scores = patches @ state["attn_pool.score.weight"][0]
    return torch.einsum("bn,bnd->bd", scores.softmax(dim=1), patches)


def _attention_pool(state: State, x: torch.Tensor, config: ViTConfig) -> torch.Tensor:
    pool = _inside(state, "attn_pool.")
    b, _, d = x.shape
    q = linear(pool["latent"].expand(b, 1, d), pool["q.weight"], pool["q.bias"])
    k, v = linear(x, pool["kv.weight"], pool["kv.bias"]).chunk(2, dim=-1)
    q, k, v = (
        part.reshape(b, -1, config.num_heads, d // config.num_heads).transpose(1, 2)
        for part in (q, k, v)
    )
    weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(dim=-1)
    y = linear((weights @ v).reshape(b, d), pool["proj.weight"], pool["proj.bias"])
    return y + _mlp(
        pool,
        _norm(pool, "norm", y, config),
        config.replace(mlp="mlp"),
    )


def loss(
    state: State, images: torch.Tensor, labels: torch.Tensor, config: ViTConfig
) -> torch.Tensor:
    return cross_entropy(forward(state, images, config)["logits"], labels)


def _norm(state: State, name: str, x: torch.Tensor, config: ViTConfig) -> torch.Tensor:
    weight = state[f"{name}.weight"]
    if config.norm == "rms":
        return rms_norm(x, x.shape[-1:], weight, config.norm_eps)
    return layer_norm(x, x.shape[-1:], weight, state[f"{name}.bias"], config.norm_eps)


def _attention(
    block: State, x: torch.Tensor, config: ViTConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    b, n, d = x.shape
    qkv = linear(x, block["attn.qkv.weight"], block.get("attn.qkv.bias"))
    q, k, v = qkv.reshape(b, n, 3, config.num_heads, -1).permute(2, 0, 3, 1, 4)
    if config.qk_norm:
        q, k = _norm(block, "attn.q_norm", q, config), _norm(block, "attn.k_norm", k, config)
    if config.positions == "rotary":
        q, k = _turned(q, config), _turned(k, config)
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    if config.positions == "relative":
        scores = scores + _relative_bias(block["attn.rel_pos.relative_position_bias_table"], config)
    weights = scores.softmax(dim=-1)
    y = (weights @ v).transpose(1, 2).reshape(b, n, d)
    return linear(y, block["attn.proj.weight"], block["attn.proj.bias"]), weights


def _mlp(block: State, x: torch.Tensor, config: ViTConfig) -> torch.Tensor:
    x = linear(x, block["mlp.fc1.weight"], block["mlp.fc1.bias"])
    activation = ACTIVATIONS[config.activation]
    if config.mlp == "swiglu":
        gate, value = x.chunk(2, dim=-1)
        x = activation(gate) * value
    else:
        x = activation(x)
    return linear(x, block["mlp.fc2.weight"], block["mlp.fc2.bias"])
