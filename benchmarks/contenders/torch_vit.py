"""The tiny ViT as one would write it in PyTorch today, under the same parameter names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from numpyvit.models import ViTConfig


class Attention(nn.Module):
    """Self-attention, written out or through PyTorch's fused kernel."""

    def __init__(self, config: ViTConfig, fused: bool) -> None:
        super().__init__()
        self.num_heads, self.p, self.fused = config.num_heads, config.attention_dropout, fused
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(*self.heads(self.qkv(x), 3))

    def forward_first(self, x: Tensor) -> Tensor:
        """The first token's row of `forward`, (B, 1, D): one query, keys and values of all."""
        d = x.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(x[:, :1], weight[:d], bias[:d])
        kv = F.linear(x, weight[d:], bias[d:])
        return self.attend(*self.heads(q, 1), *self.heads(kv, 2))

    def heads(self, x: Tensor, parts: int) -> Tensor:
        """(B, N, parts * D) -> (parts, B, heads, N, width)."""
        b, n, _ = x.shape
        return x.reshape(b, n, parts, self.num_heads, -1).permute(2, 0, 3, 1, 4)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One row a query, (B, queries, D)."""
        p = self.p if self.training else 0.0
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=p)
        else:
            weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
            y = F.dropout(weights, p, self.training) @ v
        return self.proj(y.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with GELU between."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.embed_dim, config.mlp_dim)
        self.fc2 = nn.Linear(config.mlp_dim, config.embed_dim)
        self.form = "tanh" if config.activation == "gelu_tanh" else "none"

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate=self.form))


class Block(nn.Module):
    """Pre-norm block."""

    def __init__(self, config: ViTConfig, fused: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, config.norm_eps)
        self.attn = Attention(config, fused)
        self.norm2 = nn.LayerNorm(config.embed_dim, config.norm_eps)
        self.mlp = Mlp(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.attn(self.norm1(x)))
        return x + self.drop(self.mlp(self.norm2(x)))

    def forward_first(self, x: Tensor) -> Tensor:
        """The first token of `forward`, (B, 1, D), without computing the others."""
        x = x[:, :1] + self.drop(self.attn.forward_first(self.norm1(x)))
        return x + self.drop(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Patch projection as a strided convolution."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        p = config.patch_size
        self.proj = nn.Conv2d(config.in_channels, config.embed_dim, p, stride=p)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class TorchViT(nn.Module):
    """Takes the state_dict of a numpyvit VisionTransformer of the same configuration.

    With `class_token_only` the last block computes the class token alone, as numpyvit does: the
    head reads no other.
    """

    def __init__(self, config: ViTConfig, *, fused: bool, class_token_only: bool = False) -> None:
        super().__init__()
        self.class_token_only = class_token_only
        d = config.embed_dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, d))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.num_tokens, d))
        self.patch_embed = PatchEmbed(config)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, fused) for _ in range(config.depth))
        self.norm = nn.LayerNorm(d, config.norm_eps) if config.final_norm else nn.Identity()
        self.head = nn.Linear(d, config.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        x = self.drop(x + self.pos_embed)
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x)
        x = last.forward_first(x) if self.class_token_only else last(x)
        return self.head(self.norm(x)[:, 0])
