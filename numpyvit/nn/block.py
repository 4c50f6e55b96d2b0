"""MLPs, and the transformer's blocks: in which order they normalise, compute and add."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.random import Generator, default_rng

from numpyvit.nn.basic import (
    Dropout,
    DropPath,
    Identity,
    LayerNorm,
    LayerScale,
    Linear,
    Norm,
    activation,
)
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


class SwiGLU(Module):
    """A gated MLP (Shazeer 2020): `fc2(silu(a) * b)`, `a, b = fc1(x)`: (..., dim) -> (..., dim).

    The two linear layers that give a and b are one, `fc1.weight` (2 * hidden_dim, dim), a first.
    With another `activation_name` it is another of that paper's: "gelu" makes it a GEGLU, "relu" a
    ReGLU. It has as many weights as an `Mlp` whose hidden width is 3/2 of its own: DINOv2 takes 2/3
    of an Mlp's width, rounded up to a multiple of 8.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        *,
        activation_name: str = "silu",
        dropout: float = 0.0,
        rng: Generator | None = None,
    ) -> None:
        rng = rng or default_rng()
        activation(activation_name)
        self.activation_name = activation_name
        self.hidden_dim = hidden_dim
        self.fc1 = Linear(dim, 2 * hidden_dim, rng=rng)
        self.fc2 = Linear(hidden_dim, dim, rng=rng)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., dim)."""
        both = self.fc1(x)
        gate, value = both[..., : self.hidden_dim], both[..., self.hidden_dim :]
        return self.drop(self.fc2(activation(self.activation_name)(gate) * value))

    def extra_repr(self) -> str:
        """The gate's nonlinearity."""
        return self.activation_name


class Block(Module):
    """Attention, then an MLP, each normalised before and added to what came in (pre-norm).

    `attn` and `mlp` are any modules that keep the width: `Attention` and `Mlp` as a rule.
    `layer_scale` above 0 scales both branches by a learned vector that starts with this value.
    All blocks are called alike.
    """

    def __init__(
        self,
        dim: int,
        attn: Module,
        mlp: Module,
        *,
        norm: Norm = LayerNorm,
        layer_scale: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        self.norm1 = norm(dim)
        self.attn = attn
        self.ls1 = _scale(dim, layer_scale)
        self.norm2 = norm(dim)
        self.mlp = mlp
        self.ls2 = _scale(dim, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, maps: list[Tensor] | None = None, keep: int | None = None
    ) -> Tensor:
        """(B, N, dim) -> (B, N, dim); attention weights are appended to `maps` if given.

        With `keep`, only the first `keep` tokens are computed: after the last block, those that
        the head reads.
        """
        attended = self.ls1(self.attn(self.norm1(x), maps, keep))
        x = _first(x, keep) + self.drop_path(attended)
        return x + self.drop_path(self.ls2(self.mlp(self.norm2(x))))


class PostNormBlock(Block):
    """Both sums normalised: `x = norm(x + branch(x))` (Vaswani et al. 2017, section 3.1)."""

    def forward(
        self, x: Tensor, maps: list[Tensor] | None = None, keep: int | None = None
    ) -> Tensor:
        """(B, N, dim) -> (B, N, dim); see Block."""
        attended = self.ls1(self.attn(x, maps, keep))
        x = self.norm1(_first(x, keep) + self.drop_path(attended))
        return self.norm2(x + self.drop_path(self.ls2(self.mlp(x))))


class ResPostBlock(Block):
    """Both branches normalised last: `x = x + norm(branch(x))` (Liu et al. 2022, Swin V2, 3.2).

    The norms' weights scale the branches, so they start as `layer_scale`, and there is no other.
    """

    def __init__(
        self,
        dim: int,
        attn: Module,
        mlp: Module,
        *,
        norm: Norm = LayerNorm,
        layer_scale: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(dim, attn, mlp, norm=norm, drop_path=drop_path)
        for each in (self.norm1, self.norm2):
            if layer_scale:
                each.weight.data *= layer_scale

    def forward(
        self, x: Tensor, maps: list[Tensor] | None = None, keep: int | None = None
    ) -> Tensor:
        """(B, N, dim) -> (B, N, dim); see Block."""
        x = _first(x, keep) + self.drop_path(self.norm1(self.attn(x, maps, keep)))
        return x + self.drop_path(self.norm2(self.mlp(x)))


class ParallelBlock(Module):
    """Attention beside an MLP: `x + attn(norm(x)) + mlp(norm(x))` (Dehghani et al. 2023, eq. 1).

    ViT-22B's. The layers are separate, so any `attn` and `mlp` fit: what timm's
    ParallelScalingBlock keeps as one `in_proj` is `mlp.fc1` above `attn.qkv`.
    """

    def __init__(
        self,
        dim: int,
        attn: Module,
        mlp: Module,
        *,
        norm: Norm = LayerNorm,
        layer_scale: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        self.norm = norm(dim)
        self.attn = attn
        self.mlp = mlp
        self.ls = _scale(dim, layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, maps: list[Tensor] | None = None, keep: int | None = None
    ) -> Tensor:
        """(B, N, dim) -> (B, N, dim); see Block."""
        y = self.norm(x)
        both = self.attn(y, maps, keep) + self.mlp(_first(y, keep))
        return _first(x, keep) + self.drop_path(self.ls(both))


class ParallelThingsBlock(Module):
    """Attentions side by side, then MLPs side by side (Touvron et al. 2022, "Three things").

    `x = x + sum of attn(norm(x))`, then the same of the MLPs; each branch has its own norm, and all
    attentions append to `maps`.
    """

    def __init__(
        self,
        dim: int,
        attns: Sequence[Module],
        mlps: Sequence[Module],
        *,
        norm: Norm = LayerNorm,
        layer_scale: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        def branch(name: str, layer: Module) -> dict[str, Module]:
            return {"norm": norm(dim), name: layer, "ls": _scale(dim, layer_scale)}

        self.attns = [branch("attn", attn) for attn in attns]
        self.ffns = [branch("mlp", mlp) for mlp in mlps]
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, maps: list[Tensor] | None = None, keep: int | None = None
    ) -> Tensor:
        """(B, N, dim) -> (B, N, dim); see Block."""
        attended = [b["ls"](b["attn"](b["norm"](x), maps, keep)) for b in self.attns]
        x = sum(map(self.drop_path, attended), _first(x, keep))
        mixed = [b["ls"](b["mlp"](b["norm"](x))) for b in self.ffns]
        return sum(map(self.drop_path, mixed), x)


def _scale(dim: int, start: float) -> Module:
    return LayerScale(dim, start) if start else Identity()


def _first(x: Tensor, count: int | None) -> Tensor:
    return x if count is None else x[:, :count]
