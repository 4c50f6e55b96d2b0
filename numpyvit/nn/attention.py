"""Self-attention, twice: with one fused projection, and head by head as one would explain it."""

from __future__ import annotations

from typing import Self

from numpy.random import Generator, default_rng

from numpyvit import functional
from numpyvit.nn.basic import Dropout, Identity, Linear, Norm, check_positive
from numpyvit.nn.module import Module
from numpyvit.nn.positions import AttentionPositions
from numpyvit.nn.randomness import current_generator
from numpyvit.tensor import Tensor


class Attention(Module):
    """Multi-head self-attention (Vaswani et al. 2017): (B, N, dim) -> (B, N, dim).

    `qkv.weight` (3*dim, dim) holds the rows of all query heads, then of all key heads, then of all
    value heads; `proj` mixes the heads' outputs. With `qk_norm`, a kind of norm, the queries and
    keys of every head are normalised (Dehghani et al. 2023, ViT-22B), each in a head's width.
    `positions` tells it where tokens lie; timm's name for it is `rel_pos`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        qkv_bias: bool = True,
        qk_norm: Norm | None = None,
        positions: AttentionPositions | None = None,
        attention_dropout: float = 0.0,
        dropout: float = 0.0,
        rng: Generator | None = None,
    ) -> None:
        check_heads(dim, num_heads)
        rng = rng or default_rng()
        self.num_heads = num_heads
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias, rng=rng)
        self.qk_norm = qk_norm is not None
        self.q_norm = qk_norm(dim // num_heads) if qk_norm else Identity()
        self.k_norm = qk_norm(dim // num_heads) if qk_norm else Identity()
        self.rel_pos = positions or AttentionPositions()
        self.attention_drop = Dropout(attention_dropout)
        self.proj = Linear(dim, dim, rng=rng)
        self.proj_drop = Dropout(dropout)

    def forward(
        self, x: Tensor, maps: list[Tensor] | None = None, keep: int | None = None
    ) -> Tensor:
        """(B, N, dim) -> (B, N, dim); the weights (B, H, N, N) are appended to `maps` if given.

        With `keep`, only the first `keep` tokens attend (to all) and are returned.
        """
        y = self.attend(self.qkv(x), self.rel_pos.bias(), maps, keep)
        return self.proj_drop(self.proj(y))

    def attend(
        self,
        qkv: Tensor,
        bias: Tensor | None,
        maps: list[Tensor] | None = None,
        keep: int | None = None,
    ) -> Tensor:
        """What the heads make of `qkv` (B, N, 3*dim), before `proj`: (B, N, dim).

        `bias`, broadcast to (B, H, N, N), is added to the scaled scores.
        """
        p = self.attention_drop.p if self.training else 0.0
        rng = current_generator() if p else None
        if maps is None and not self.qk_norm:
            return functional.packed_attention(
                self.rel_pos.turn(qkv, 2 * self.num_heads),  # those of queries and of keys
                None if bias is None else bias[..., :keep, :],
                num_heads=self.num_heads,
                dropout=p,
                rng=rng,
                num_queries=keep,
            )
        return self._by_heads(qkv, bias, maps, p, rng)[:, :keep]

    def _by_heads(
        self,
        qkv: Tensor,
        bias: Tensor | None,
        maps: list[Tensor] | None,
        p: float,
        rng: Generator | None,
    ) -> Tensor:
        """The same step by step, so that there are weights to look at and heads to normalise."""
        b, n, width = qkv.shape
        heads = qkv.reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # 3 b h n k
        q = self.rel_pos.turn(self.q_norm(heads[0]), 1)
        k = self.rel_pos.turn(self.k_norm(heads[1]), 1)
        v = heads[2]
        if maps is None:
            y = functional.scaled_dot_product_attention(q, k, v, bias, dropout_p=p, rng=rng)
        else:
            y, weights = functional.scaled_dot_product_attention(
                q, k, v, bias, dropout_p=p, rng=rng, return_weights=True
            )
            maps.append(weights)
        return y.transpose(1, 2).reshape(b, n, width // 3)  # b h n k -> b n (h k)

    def extra_repr(self) -> str:
        """The number of heads."""
        return f"num_heads={self.num_heads}"


class AttentionHead(Module):
    """One head, equation by equation: (B, N, dim) -> (B, N, head_dim)."""

    def __init__(
        self, dim: int, head_dim: int, *, bias: bool = True, rng: Generator | None = None
    ) -> None:
        rng = rng or default_rng()
        self.query = Linear(dim, head_dim, bias=bias, rng=rng)
        self.key = Linear(dim, head_dim, bias=bias, rng=rng)
        self.value = Linear(dim, head_dim, bias=bias, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        """`softmax(q k^T / sqrt(head_dim)) v`."""
        q, k, v = self.query(x), self.key(x), self.value(x)
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        return functional.softmax(scores) @ v


class HeadwiseAttention(Module):
    """`Attention` for reading: every head is a module of its own. The same function, slower."""

    def __init__(
        self, dim: int, num_heads: int, *, qkv_bias: bool = True, rng: Generator | None = None
    ) -> None:
        check_heads(dim, num_heads)
        rng = rng or default_rng()
        self.heads = [
            AttentionHead(dim, dim // num_heads, bias=qkv_bias, rng=rng) for _ in range(num_heads)
        ]
        self.proj = Linear(dim, dim, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, dim) -> (B, N, dim)."""
        return self.proj(functional.concat([head(x) for head in self.heads], axis=-1))

    @classmethod
    def from_fused(cls, fused: Attention) -> Self:
        """The head-by-head form of `fused`, with copies of its weights.

        ValueError where queries and keys are normalised or know of positions: this form does not.
        """
        if fused.qk_norm or type(fused.rel_pos) is not AttentionPositions:
            raise ValueError(
                "[HeadwiseAttention] expected attention without QK-norm and positions of its own, "
                f"got {type(fused.rel_pos).__name__} and qk_norm={fused.qk_norm}"
            )
        dim = fused.proj.weight.shape[0]
        split = cls(dim, fused.num_heads, qkv_bias=fused.qkv.bias is not None)
        state = {f"proj.{name}": array for name, array in fused.proj.state_dict().items()}
        for name, parameter in fused.qkv.named_parameters():
            # (3 h k) ... -> 3 h k ...
            rows = parameter.data.reshape(3, fused.num_heads, -1, *parameter.shape[1:])
            for part, role in enumerate(("query", "key", "value")):
                for head in range(fused.num_heads):
                    state[f"heads.{head}.{role}.{name}"] = rows[part, head]
        split.to(fused.proj.weight.dtype).load_state_dict(state)
        return split


def check_heads(dim: int, num_heads: int) -> None:
    """Raise ValueError where `num_heads` does not divide `dim`."""
    check_positive("Attention", dim=dim, num_heads=num_heads)
    if dim % num_heads:
        raise ValueError(
            f"[Attention] expected a width that {num_heads} heads divide, got {dim}; "
            f"take {dim - dim % num_heads} or {dim + num_heads - dim % num_heads}"
        )
