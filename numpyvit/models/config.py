"""What a Vision Transformer is made to: one frozen record, checked once."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any

from numpyvit.backend import suggest
from numpyvit.nn import activation, check_heads, check_positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """The sizes and choices of a VisionTransformer (Dosovitskiy et al. 2021, table 1).

    Raises ValueError for values of another kind, sizes that are not positive, a patch that does not
    divide the image, heads that do not divide the width, probabilities outside [0, 1) and unknown
    activations.
    """

    image_size: int = 224
    patch_size: int = 16
    in_channels: int = 3
    num_classes: int = 1000
    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    activation: str = "gelu"
    norm_eps: float = 1e-6
    final_norm: bool = True
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        self._check_types()
        check_positive(
            "ViTConfig",
            image_size=self.image_size,
            patch_size=self.patch_size,
            in_channels=self.in_channels,
            num_classes=self.num_classes,
            depth=self.depth,
            mlp_ratio=self.mlp_ratio,
            norm_eps=self.norm_eps,
        )
        check_heads(self.embed_dim, self.num_heads)
        activation(self.activation)
        if self.image_size % self.patch_size:
            raise ValueError(
                f"[ViTConfig] expected an image_size that is a multiple of patch_size "
                f"{self.patch_size}, got {self.image_size}"
            )
        for name in ("dropout", "attention_dropout", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"[ViTConfig] expected 0 <= {name} < 1, got {getattr(self, name)}")

    def _check_types(self) -> None:
        # By the annotation: bool is a kind of int, and JSON does not tell 4 from 4.0 reliably.
        kinds: dict[str, tuple[str, Any]] = {
            "int": ("a whole number", numbers.Integral),
            "float": ("a finite number", numbers.Real),
            "bool": ("True or False", bool),
            "str": ("a name", str),
        }
        for field in dataclasses.fields(self):
            meaning, kind = kinds[str(field.type)]
            value = getattr(self, field.name)
            fits = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
            if not fits or (kind is numbers.Real and not math.isfinite(value)):
                raise ValueError(f"[ViTConfig] expected {meaning} as {field.name}, got {value!r}")

    @property
    def num_patches(self) -> int:
        """Patches in an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def num_tokens(self) -> int:
        """Tokens in the sequence: the class token and the patches."""
        return 1 + self.num_patches

    @property
    def mlp_dim(self) -> int:
        """Width of the MLP's hidden layer."""
        return int(self.embed_dim * self.mlp_ratio)

    @property
    def patch_values(self) -> int:
        """Numbers in one patch."""
        return self.in_channels * self.patch_size**2

    def replace(self, **overrides: Any) -> ViTConfig:
        """A copy with some fields changed; ValueError that suggests a name for an unknown one."""
        names = [field.name for field in dataclasses.fields(self)]
        for name in overrides:
            if name not in names:
                raise ValueError(f"[ViTConfig] unknown option {name!r}; {suggest(name, names)}")
        return dataclasses.replace(self, **overrides)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them; `ViTConfig(**config.to_dict())` is the way back."""
        return dataclasses.asdict(self)
