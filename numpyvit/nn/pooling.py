"""From the tokens of an image to the one vector that the head reads."""

from __future__ import annotations

from numpy.random import Generator, default_rng

from numpyvit import functional
from numpyvit.nn import init
from numpyvit.nn.attention import check_heads
from numpyvit.nn.basic import LayerNorm, Linear, Norm
from numpyvit.nn.block import Mlp
from numpyvit.nn.module import Module, Parameter
from numpyvit.tensor import Tensor


class ClassTokenPool(Module):
    """The class token (Dosovitskiy et al. 2021): (B, N, D) -> (B, D)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """The first token."""
        return tokens[:, 0]


class MeanPool(Module):
    """The mean of the patches, without the tokens in front: (B, N, D) -> (B, D)."""

    def __init__(self, num_prefix_tokens: int = 1) -> None:
        self.num_prefix_tokens = num_prefix_tokens

    def forward(self, tokens: Tensor) -> Tensor:
        """The mean over the patches."""
        return tokens[:, self.num_prefix_tokens :].mean(1)

    def extra_repr(self) -> str:
        """How many tokens are left out."""
        return f"num_prefix_tokens={self.num_prefix_tokens}"


class ClassAndMeanPool(MeanPool):
    """Class token and mean of the patches, joined (DINOv2's linear head): (B, N, D) -> (B, 2D)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """The first token, then the mean over the patches."""
        return functional.concat([tokens[:, 0], super().forward(tokens)], axis=-1)


class MaxPool(MeanPool):
    """The largest value of each channel over the patches: (B, N, D) -> (B, D)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """The maximum over the patches."""
        return tokens[:, self.num_prefix_tokens :].max(1)


class ScorePool(MeanPool):
    """A mean of the patches, weighted by the softmax of their scores: (B, N, D) -> (B, D).

    One learned score a token, `score.weight` (1, D) times the token: the SeqPool of CCT (Hassani et
    al. 2021). A bias would add the same to all scores, so there is none.
    """

    def __init__(
        self, dim: int, num_prefix_tokens: int = 1, *, rng: Generator | None = None
    ) -> None:
        super().__init__(num_prefix_tokens)
        self.score = Linear(dim, 1, bias=False, rng=rng)

    def forward(self, tokens: Tensor) -> Tensor:
        """The weighted mean over the patches."""
        patches = tokens[:, self.num_prefix_tokens :]
        weights = functional.softmax(self.score(patches).transpose(1, 2))  # b 1 n
        return (weights @ patches)[:, 0]


class AttentionPool(Module):
    """Multi-head attention of a learned query to the patches, then an MLP: (B, N, D) -> (B, D).

    The MAP head of Zhai et al. 2022 (Scaling Vision Transformers), under timm's names: `latent`
    (1, 1, D) is the query, `kv.weight` (2D, D) holds keys, then values.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_dim: int,
        *,
        activation_name: str = "gelu",
        norm: Norm = LayerNorm,
        num_prefix_tokens: int = 0,
        rng: Generator | None = None,
    ) -> None:
        check_heads(dim, num_heads)
        rng = rng or default_rng()
        self.num_heads = num_heads
        self.num_prefix_tokens = num_prefix_tokens  # left out, as in MeanPool
        self.latent = Parameter(init.trunc_normal((1, 1, dim), rng, dim**-0.5))
        self.q = Linear(dim, dim, rng=rng)
        self.kv = Linear(dim, 2 * dim, rng=rng)
        self.proj = Linear(dim, dim, rng=rng)
        self.norm = norm(dim)
        self.mlp = Mlp(dim, mlp_dim, activation_name=activation_name, rng=rng)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, D)."""
        tokens = tokens[:, self.num_prefix_tokens :]
        b, n, d = tokens.shape
        q = self.q(self.latent).reshape(1, 1, self.num_heads, -1).transpose(1, 2)
        q = q.expand(b, *q.shape[1:])  # b h 1 k
        kv = self.kv(tokens).reshape(b, n, 2, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, kv[0], kv[1])  # b h 1 k
        x = self.proj(y.reshape(b, d))  # b h 1 k -> b (h k)
        return x + self.mlp(self.norm(x))

    def extra_repr(self) -> str:
        """The number of heads."""
        return f"num_heads={self.num_heads}"
