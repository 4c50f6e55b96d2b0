"""How tokens know their place: what is added to them, and what attention is told."""

from __future__ import annotations

from numpy.random import Generator

from numpyvit import functional
from numpyvit.nn import init
from numpyvit.nn.module import Module, Parameter
from numpyvit.tensor import Tensor


class Positions:
    """The base of all kinds, and itself none: tokens are a set.

    A kind holds no parameters: what it `start`s is the model's `pos_embed`, and what it puts
    `in_attention` belongs to each attention layer.
    """

    def start(self, rng: Generator) -> Parameter | None:
        """The learned positions (1, tokens, D) that the model keeps; None for none."""
        return None

    def add(self, in_front: list[Tensor], patches: Tensor, pos_embed: Parameter | None) -> Tensor:
        """Tokens `in_front` (B, ., D) and `patches` (B, P, D), joined and placed: (B, N, D)."""
        return functional.concat([*in_front, patches], axis=1)

    def in_attention(self, rng: Generator) -> Module | None:
        """What one attention layer gets for itself; None for nothing."""
        return None


class LearnedPositions(Positions):
    """A learned vector for each of all tokens (Dosovitskiy et al. 2021, section 3.1)."""

    def __init__(self, num_tokens: int, dim: int) -> None:
        self.shape = (1, num_tokens, dim)

    def start(self, rng: Generator) -> Parameter | None:
        """Truncated normal values, 0.02."""
        return Parameter(init.trunc_normal(self.shape, rng))

    def add(self, in_front: list[Tensor], patches: Tensor, pos_embed: Parameter | None) -> Tensor:
        """Joined, then added."""
        return super().add(in_front, patches, None) + pos_embed


class LearnedPatchPositions(LearnedPositions):
    """A learned vector for each patch, none for the tokens in front (DeiT III)."""

    def add(self, in_front: list[Tensor], patches: Tensor, pos_embed: Parameter | None) -> Tensor:
        """Added, then joined."""
        return Positions.add(self, in_front, patches + pos_embed, None)
