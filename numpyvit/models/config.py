"""What a Vision Transformer is made to: one frozen record, checked once."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from numpyvit.models.base import ModelConfig, check_kinds, shortest
from numpyvit.nn import activation, check_heads, check_positive
from numpyvit.nn.patch import Pair, Size, as_pair
from numpyvit.nn.positions import wave_count
from numpyvit.nn.stems import halvings

# The names of the rows of the tables in `components.py`.
CHOICES: dict[str, tuple[str, ...]] = {
    "stem": ("patches", "overlapping", "convolutions", "hybrid"),
    "positions": ("all", "patches", "none", "sincos", "sincos_mae", "relative", "rotary"),
    "block": ("pre_norm", "post_norm", "res_post_norm", "parallel", "parallel_things"),
    "norm": ("layer", "rms"),
    "mlp": ("mlp", "swiglu"),
    "pooling": ("token", "avg", "token_avg", "max", "score", "map"),
}
# Far beyond any model that was ever made: more is a mistake, or a file that is made to harm.
MOST: dict[str, int] = {
    "image_size": 16384,
    "in_channels": 4096,
    "num_classes": 1 << 24,
    "embed_dim": 1 << 16,
    "depth": 1000,
    "mlp_ratio": 1 << 10,
    "num_registers": 4096,
    "pre_logits": 1 << 16,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig(ModelConfig):
    """The sizes and choices of a VisionTransformer (Dosovitskiy et al. 2021, table 1).

    `stem`, `positions`, `block`, `norm`, `mlp` and `pooling` name rows of the tables in
    `components.py`, where the choices are described. Tokens come in the order class token,
    distillation token, registers, patches. `final_norm` normalises all tokens after the last block,
    `head_norm` what was pooled, `pre_norm` the tokens before the first block. `layer_scale` is the
    value that its vectors start with, 0 for none; `pre_logits` the width of a layer with tanh
    before the head, 0 for none. With `num_classes` 0 there is no head, and the pooled features come
    out. `mlp_ratio` times the width is the MLP's hidden width; with mlp="swiglu" the `activation`
    is "silu", whatever is given.

    `image_size` and `patch_size` are one number or (height, width), and what reads them should ask
    for `image_shape` and `patch_shape`. With `pad` zeros at the bottom and on the right make an
    image a multiple of the patch.

    Raises ValueError for values of another kind, sizes that are not positive, a patch that does not
    divide the image (without `pad`), heads that do not divide the width, probabilities outside
    [0, 1), unknown names, sizes beyond MOST, and for what does not go together, such as pooling a
    class token that is not there, or positions of waves and a width that has no room for them.
    """

    image_size: Size = 224
    patch_size: Size = 16
    in_channels: int = 3
    num_classes: int = 1000
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    qk_norm: bool = False
    stem: str = "patches"
    block: str = "pre_norm"
    norm: str = "layer"
    mlp: str = "mlp"
    activation: str = "gelu"
    norm_eps: float = 1e-6
    class_token: bool = True
    distillation_token: bool = False
    num_registers: int = 0
    positions: str = "all"
    patch_bias: bool = True
    pad: bool = False
    pre_norm: bool = False
    layer_scale: float = 0.0
    final_norm: bool = True
    pooling: str = "token"
    head_norm: bool = False
    pre_logits: int = 0
    distillation_head: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size"):
            object.__setattr__(self, name, shortest(getattr(self, name)))
        check_kinds(self)
        check_positive(
            "ViTConfig",
            image_size=min(self.image_shape),
            patch_size=min(self.patch_shape),
            in_channels=self.in_channels,
            depth=self.depth,
            mlp_ratio=self.mlp_ratio,
            norm_eps=self.norm_eps,
        )
        self._check_most(MOST)
        check_heads(self.embed_dim, self.num_heads)
        activation(self.activation)
        if self.mlp == "swiglu":  # it says itself what its gate is
            object.__setattr__(self, "activation", "silu")
        check_positive("ViTConfig", mlp_dim=self.mlp_dim)
        self._check_patches()
        self._check_shares(("dropout", "attention_dropout", "drop_path"))
        self._check_not_negative(("num_classes", "num_registers", "layer_scale", "pre_logits"))
        self._check_names(CHOICES)
        self._check_widths()
        self._check_tokens()

    def _check_patches(self) -> None:
        sides = zip(self.image_shape, self.patch_shape, strict=True)
        if not self.pad and any(image % patch for image, patch in sides):
            raise ValueError(
                f"[ViTConfig] expected an image_size that is a multiple of patch_size "
                f"{self.patch_size}, got {self.image_size}; pad=True fills images up with zeros"
            )
        if not self.patch_bias and self.stem != "patches":
            raise ValueError(
                f"[ViTConfig] expected patch_bias=True with stem={self.stem!r}, got False"
            )
        if self.stem in ("convolutions", "hybrid"):
            halvings("ViTConfig", self.patch_shape)

    def _check_widths(self) -> None:
        if self.positions == "rotary":
            head = self.embed_dim // self.num_heads
            wave_count("ViTConfig", "a head width (embed_dim / num_heads)", head)
        elif self.positions in ("sincos", "sincos_mae"):
            form = "big_vision" if self.positions == "sincos" else "mae"
            wave_count("ViTConfig", "an embed_dim", self.embed_dim, form)

    def _check_tokens(self) -> None:
        needs = {
            f"pooling={self.pooling!r}": (self.pooling in ("token", "token_avg"), "pooling='avg'"),
            "distillation_token=True": (self.distillation_token, "distillation_token=False"),
        }
        for option, (needs_it, instead) in needs.items():
            if needs_it and not self.class_token:
                raise ValueError(
                    f"[ViTConfig] expected class_token=True with {option}, got False; take "
                    f"{instead} without a class token"
                )
        if self.distillation_head and not self.distillation_token:
            raise ValueError(
                "[ViTConfig] expected distillation_token=True with distillation_head=True, got "
                "False"
            )
        if self.distillation_head and not self.num_classes and self.num_features != self.embed_dim:
            raise ValueError(
                "[ViTConfig] expected classes for the two heads, or features of one width for "
                f"their mean, got {self.num_features} and {self.embed_dim}; take "
                "distillation_head=False"
            )

    @property
    def image_shape(self) -> Pair:
        """Height and width of an image."""
        return as_pair(self.image_size)

    @property
    def patch_shape(self) -> Pair:
        """Height and width of a patch."""
        return as_pair(self.patch_size)

    @property
    def grid(self) -> Pair:
        """Rows and columns of patches in an image, one begun included."""
        (height, width), (p, q) = self.image_shape, self.patch_shape
        return -(-height // p), -(-width // q)

    @property
    def num_patches(self) -> int:
        """Patches in an image."""
        return self.grid[0] * self.grid[1]

    @property
    def num_tokens(self) -> int:
        """Tokens in the sequence: those in front and the patches."""
        return self.num_prefix_tokens + self.num_patches

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens in front of the patches: class token, distillation token, registers."""
        return self.class_token + self.distillation_token + self.num_registers

    @property
    def num_positions(self) -> int:
        """Tokens that have a learned position."""
        return {"all": self.num_tokens, "patches": self.num_patches}.get(self.positions, 0)

    @property
    def pooled_dim(self) -> int:
        """Width of what pooling gives."""
        return self.embed_dim * (2 if self.pooling == "token_avg" else 1)

    @property
    def num_features(self) -> int:
        """Numbers that the head reads."""
        return self.pre_logits or self.pooled_dim

    @property
    def mlp_dim(self) -> int:
        """Width of the MLP's hidden layer."""
        return round(self.embed_dim * self.mlp_ratio)

    @property
    def patch_values(self) -> int:
        """Numbers in one patch."""
        return self.in_channels * self.patch_shape[0] * self.patch_shape[1]

    def for_classes(self, num_classes: int, **changes: Any) -> Self:
        """The same model with heads for other classes; no hidden layer stands in front of them."""
        return self.replace(num_classes=num_classes, pre_logits=0, **changes)
