"""What every family of models shares: a configuration that is checked once, and a module."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import numpy
from numpy.random import Generator

from numpyvit.backend import Array, suggest
from numpyvit.nn import Identity, Linear, Module, Positions, init
from numpyvit.tensor import Tensor

_KINDS: dict[str, tuple[str, Any]] = {
    "int": ("a whole number", numbers.Integral),
    "Size": ("a whole number, or height and width,", numbers.Integral),
    "float": ("a finite number", numbers.Real),
    "bool": ("True or False", bool),
    "str": ("a text", str),
    "tuple[int, ...]": ("whole numbers, one a stage,", numbers.Integral),
    "tuple[float, ...]": ("finite numbers, one a channel,", numbers.Real),
    "dict[str, Any]": ("fields", dict),
}
# The first parts of the names of all parameters before the blocks.
_BEFORE_BLOCKS = ("cls_token", "dist_token", "reg_token", "pos_embed", "patch_embed", "norm_pre")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The base of all configurations: frozen fields, and the ways to and from JSON."""

    # What other layers ask of every configuration: a family with a choice makes a field of it.
    stem, mlp, pooling = "patches", "mlp", "avg"
    class_token = distillation_head = False

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens in front of the patches."""
        return 0

    @property
    def num_blocks(self) -> int:
        """Blocks of all parts."""
        sizes: Any = self
        return int(sizes.depth)

    @property
    def widest(self) -> int:
        """Numbers in the largest array that training makes of one image, but for attention's."""
        sizes: Any = self
        return sizes.num_tokens * max(sizes.mlp_dim, 3 * sizes.embed_dim)

    def replace(self, **overrides: Any) -> Self:
        """A copy with some fields changed; ValueError that suggests a name for an unknown one."""
        names = [field.name for field in dataclasses.fields(self)]
        for name in overrides:
            if name not in names:
                raise ValueError(
                    f"[{type(self).__name__}] unknown option {name!r}; {suggest(name, names)}"
                )
        return dataclasses.replace(self, **overrides)

    def for_classes(self, num_classes: int, **changes: Any) -> Self:
        """The same model with heads for other classes, to be fine-tuned; with other `changes`."""
        return self.replace(num_classes=num_classes, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them; `from_dict` is the way back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """What `to_dict` gave; TypeError or ValueError for anything else."""
        return cls(**fields)

    def _check_shares(self, names: Iterable[str]) -> None:
        for name in names:
            if not 0 <= (value := getattr(self, name)) < 1:
                raise ValueError(f"[{type(self).__name__}] expected 0 <= {name} < 1, got {value}")

    def _check_not_negative(self, names: Iterable[str]) -> None:
        for name in names:
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"[{type(self).__name__}] expected {name} >= 0, got {value}")

    def _check_most(self, most: Mapping[str, int]) -> None:
        for name, limit in most.items():
            value = getattr(self, name)
            if (max(value) if isinstance(value, tuple) else value) > limit:
                raise ValueError(
                    f"[{type(self).__name__}] expected {name} <= {limit}, got {value!s:.20}"
                )

    def _check_names(self, choices: Mapping[str, Iterable[str]]) -> None:
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise ValueError(
                    f"[{type(self).__name__}] unknown {name} {value!r}; {suggest(value, known)}"
                )


def shortest(size: Any) -> Any:
    """A size as one number where it is square; lists, as JSON has them, become tuples."""
    size = tuple(size) if isinstance(size, list) else size
    square = isinstance(size, tuple) and len(size) == 2 and size[0] == size[1]
    return size[0] if square else size


def check_kinds(record: Any, *classes: type) -> None:
    """Refuse fields of a dataclass that are not of the kinds that their annotations name.

    `classes` are those of the annotations that are no plain kinds. NumPy's numbers become Python's.
    Raises ValueError.
    """
    # By the annotation: bool is a kind of int, and JSON does not tell 4 from 4.0 reliably.
    kinds = _KINDS | {kind.__name__: (f"a {kind.__name__}", kind) for kind in classes}
    for field in dataclasses.fields(record):
        annotation, _, optional = str(field.type).partition(" | ")
        meaning, kind = kinds[annotation]
        value = _plain(getattr(record, field.name))
        object.__setattr__(record, field.name, value)
        values = _values(value, annotation)
        if (value is not None or not optional) and not (
            values and all(_is(each, kind) for each in values)
        ):
            raise ValueError(
                f"[{type(record).__name__}] expected {meaning} as {field.name}, got {value!r:.80}"
            )


def _plain(value: Any) -> Any:
    """Python's own number for one of NumPy, which JSON cannot hold."""
    if isinstance(value, tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, numpy.generic) else value


def _values(value: Any, annotation: str) -> tuple[Any, ...]:
    """What is to be of the annotation's kind, one by one; nothing where it is no tuple."""
    if annotation.startswith("tuple"):
        return value if isinstance(value, tuple) else ()
    is_pair = annotation == "Size" and isinstance(value, tuple) and len(value) == 2
    return value if is_pair else (value,)


def _is(value: Any, kind: Any) -> bool:
    if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
        return False
    try:
        return kind is not numbers.Real or math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


class ViTOutput(NamedTuple):
    """What a forward pass with intermediates gives back.

    `attention` holds the weights (B, H, N, N) of every block, `hidden_states` the tokens (B, N, D)
    before the first block and after each; both are empty where not asked for.
    """

    logits: Tensor
    attention: list[Tensor]
    hidden_states: list[Tensor]


class ImageModel(Module):
    """Images to logits: what training, explaining and saving ask of a model of any family.

    A family gives `forward_features`, `forward_pooled` and `forward_head`; `blocks`, in order;
    `patch_embed`, whose `proj` sees the pixels; and `head`.
    """

    config: Any
    blocks: Any
    patch_embed: Any
    positions: Positions = Positions()
    pos_embed: Any = None  # learned positions, a Parameter
    pos_drop: Any
    head: Module
    head_dist: Module = Identity()
    head_names: ClassVar[tuple[str, ...]] = ("head.", "head_dist.")
    # Whether a block's weights are (B, H, N, N), between all tokens: what maps of images are of.
    attends_globally: ClassVar[bool] = True

    def forward_features(
        self,
        images: Tensor | Array,
        maps: list[Tensor] | None = None,
        hidden_states: list[Tensor] | None = None,
        keep: int | None = None,
    ) -> Tensor:
        """(B, C, H, W) -> tokens (B, N, D) after the final norm.

        Attention weights and the tokens between blocks are appended to the lists, if given. With
        `keep` no more than that many of the leading tokens come out.
        """
        raise NotImplementedError

    def forward_pooled(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, num_features): what the head reads."""
        raise NotImplementedError

    def forward_head(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> logits (B, num_classes)."""
        return self.head(self.forward_pooled(tokens))

    def forward_heads(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, D) -> logits to learn labels with, and a teacher's answers: mostly the same."""
        logits = self.forward_head(tokens)
        return logits, logits

    def forward(
        self,
        images: Tensor | Array,
        *,
        return_attention: bool = False,
        return_hidden_states: bool = False,
    ) -> Any:
        """(B, C, H, W) -> logits (B, num_classes), or a ViTOutput when intermediates are asked for.

        What is not asked for is not computed.
        """
        if not (return_attention or return_hidden_states):
            return self.forward_head(self.forward_features(images, keep=self.tokens_read))
        maps: list[Tensor] | None = [] if return_attention else None
        hidden_states: list[Tensor] | None = [] if return_hidden_states else None
        tokens = self.forward_features(images, maps, hidden_states)
        return ViTOutput(self.forward_head(tokens), maps or [], hidden_states or [])

    def backbone(self) -> ImageModel:
        """What sees whole images, and can be given a head for them: itself, or a part."""
        return self

    def left_out(self) -> str:
        """What `backbone` leaves out, in words; nothing if that is the model itself."""
        return ""

    @property
    def tokens_read(self) -> int | None:
        """How many of the leading tokens the head reads; None for all."""
        return None

    def layer_of(self, name: str) -> int:
        """The layer of the parameter called `name`, for layer-wise learning rates and freezing.

        Layer 0 is what comes before the blocks, block i is layer i + 1, and what follows them is
        layer depth + 1.
        """
        first, _, rest = name.partition(".")
        if first == "blocks":
            return int(rest.partition(".")[0]) + 1
        return 0 if first in _BEFORE_BLOCKS else len(self.blocks) + 1

    @property
    def dtype(self) -> Any:
        """The float type that the model computes in."""
        return self.patch_embed.proj.weight.dtype

    @property
    def device(self) -> str:
        """Where the parameters are: "cpu" or "cuda"."""
        return self.patch_embed.proj.weight.device

    def empty_as(self, dtype: Any) -> None:
        """Parameters of a float type that are zeros without memory: what is loaded replaces them.

        See `init.undrawn`.
        """
        for parameter in self.parameters():
            if parameter.dtype != dtype:
                parameter.data = numpy.broadcast_to(numpy.zeros((), dtype), parameter.shape)
                parameter.requires_grad = parameter.requires_grad  # the leaf learns its new dtype

    def _start(self, rng: Generator) -> None:
        """Starting values of the models in timm: weights truncated normal 0.02, biases 0."""
        for _, module in self.named_modules():
            if isinstance(module, Linear):
                module.weight.data = init.trunc_normal(module.weight.shape, rng)
                if module.bias is not None:
                    module.bias.data = init.zeros(module.bias.shape)

    def _as_input(self, images: Tensor | Array) -> Tensor:
        images = images if isinstance(images, Tensor) else Tensor(images)
        if images.dtype != self.dtype:
            raise TypeError(
                f"[{type(self).__name__}] expected images of dtype {self.dtype}, got "
                f"{images.dtype}; normalise them, or convert with .astype() or model.to(dtype=...)"
            )
        return images
