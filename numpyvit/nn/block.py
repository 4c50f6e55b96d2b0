"""The transformer's block and its MLP."""

from __future__ import annotations

from numpy.random import Generator, default_rng

from numpyvit.nn.attention import Attention
from numpyvit.nn.basic import Dropout, DropPath, LayerNorm, Linear, activation
from numpyvit.nn.module import Module
from numpyvit.tensor import Tensor


class Mlp(Module):
    """Two linear layers with a nonlinearity between: (..., dim) -> (..., dim)."""

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        *,
        activation_name: str = "gelu",
        dropout: float = 0.0,
        rng: Generator | None = None,
    ) -> None:
        rng = rng or default_rng()
        activation(activation_name)  # complains about an unknown name now, not at the first call
        self.activation_name = activation_name
        self.fc1 = Linear(dim, hidden_dim, rng=rng)
        self.fc2 = Linear(hidden_dim, dim, rng=rng)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        return self.drop(self.fc2(activation(self.activation_name)(self.fc1(x))))

    def extra_repr(self) -> str:
        """The nonlinearity."""
        return self.activation_name


class Block(Module):
    """Attention, then an MLP, each normalised before and added to what came in (pre-norm)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_dim: int,
        *,
        qkv_bias: bool = True,
        activation_name: str = "gelu",
        norm_eps: float = 1e-6,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        rng: Generator | None = None,
    ) -> None:
        rng = rng or default_rng()
        self.norm1 = LayerNorm(dim, norm_eps)
        self.attn = Attention(
            dim,
            num_heads,
            qkv_bias=qkv_bias,
            attention_dropout=attention_dropout,
            dropout=dropout,
            rng=rng,
        )
        self.norm2 = LayerNorm(dim, norm_eps)
        self.mlp = Mlp(dim, mlp_dim, activation_name=activation_name, dropout=dropout, rng=rng)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, maps: list[Tensor] | None = None, keep: int | None = None
    ) -> Tensor:
        """(B, N, dim) -> (B, N, dim); attention weights are appended to `maps` if given.

        With `keep`, only the first `keep` tokens are computed: after the last block, those that
        the head reads.
        """
        attended = self.attn(self.norm1(x), maps, keep)
        x = (x if keep is None else x[:, :keep]) + self.drop_path(attended)
        return x + self.drop_path(self.mlp(self.norm2(x)))
