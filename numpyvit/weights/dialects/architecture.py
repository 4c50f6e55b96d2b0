"""The ViTConfig of weights: from their shapes, the file's config, and what their family does."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Mapping
from typing import Any

from numpyvit.models import ModelConfig, ViTConfig
from numpyvit.weights.container import WeightFile
from numpyvit.weights.dialects.families import Family
from numpyvit.weights.dialects.naming import names_of
from numpyvit.weights.dialects.rules import MOST_BLOCKS, Entry
from numpyvit.weights.dialects.stated import (
    INPUT_SIZE,
    contradictions,
    is_number,
    mapping,
    refuse_unknown_options,
    stated_image_size,
)
from numpyvit.weights.stored import WeightFileError
from numpyvit.weights.text import shown

# Widths whose heads are not 64 wide: of published models, and 48 of the tutorial's.
HEADS_OF_WIDTH = {48: 4, 1152: 16, 1280: 16, 1408: 16, 1664: 16}
# Of timm's names: those whose models the widths give wrong.
_HEADS_OF_NAME = (
    (r"giantopt_patch16_siglip|base_patch16_gap_224", 16),
    (r"^test_vit2?\b(?!3|4)", 2),
    (r"^test_vit[34]", 3),
)
_ACTIVATION_OF_NAME = (
    (r"quickgelu", "quick_gelu"),
    (r"(base_patch32|giantopt_patch16|so400m_patch16)_siglip", "gelu_tanh"),
    (r"large_patch16_siglip_(gap_)?512", "gelu_tanh"),
)
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",  # its constants are rounded to ten digits
    "gelu_new": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "quickgelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
_MOST_PROBLEMS = 10
_POOLINGS = ("token", "avg", "max", "map")
_BRANCHES = ("", "attns.0.", "ffns.0.")  # of a block: where several are side by side, the first
_BLOCKS = {"blocks.0.attns.0.norm.weight": "parallel_things", "blocks.0.norm.weight": "parallel"}


class Architecture:
    """Fields of a `config_class` with the reason for each, worked out one after the other.

    `fields` are those of the file's own size. `first_positions` are the rows of the position
    embedding that belong to no patch; they may be fewer than the tokens in front, and then the
    class token's is to be added to it (`is_folded`). Where the config says otherwise than the
    arrays, `problems` gets a line.
    """

    config_class: type[ModelConfig] = ViTConfig

    def __init__(
        self,
        file: WeightFile,
        family: Family,
        entries: Mapping[str, Entry],
        overrides: Mapping[str, Any],
        problems: list[str] | None = None,
    ) -> None:
        self.file, self.family, self.entries = file, family, entries
        self.overrides, self.problems = overrides, [] if problems is None else problems
        self.config: dict[str, Any] = file.config or {}
        self.model_args = mapping(self.config.get("model_args"))
        self.fields: dict[str, Any] = {}
        self.report: list[tuple[str, str]] = []
        self.first_positions = 0
        self.is_folded = False
        self._find()

    def _find(self) -> None:
        refuse_unknown_options(self.file)
        self._find_sizes()
        self._refuse_without_biases()
        self._find_tokens()
        self._find_positions()
        self._find_heads()
        self._find_mlp()
        self._find_norms()
        self._find_head()
        self._warn_of_other_blocks()
        self.problems += contradictions(self.config, self.fields, "num_classes" in self.overrides)

    def _say(self, topic: str, text: str) -> None:
        self.report.append((topic, text))

    def _shape(self, name: str, axes: int) -> tuple[int, ...]:
        if name not in self.entries:
            raise self._wrong(f"{name}, which every Vision Transformer has", "none")
        shape = self.entries[name].shape
        if len(shape) != axes or 0 in shape:
            raise self._wrong(f"{axes} axes in {name}", f"shape {shape}")
        return shape

    def _in_blocks(self, name: str) -> tuple[int, ...] | None:
        """The shape that most blocks have of an array; None where no block has one."""
        full = [f"blocks.{i}.{b}{name}" for i in range(self.fields["depth"]) for b in _BRANCHES]
        shapes = collections.Counter(self.entries[n].shape for n in full if n in self.entries)
        return shapes.most_common(1)[0][0] if shapes else None

    def _wrong(self, expected: str, got: str) -> WeightFileError:
        lines = "".join(f"\n  {problem}" for problem in self.problems[:_MOST_PROBLEMS])
        others = f"\nof its arrays, these are not known:{lines}" if lines else ""
        return WeightFileError(
            f"[load_pretrained] expected {expected} in {self.file.path}, got {got}; give a file of "
            f"a whole Vision Transformer{others}"
        )

    def _refuse_stated(self, expected: str, got: Any, option: str) -> None:
        """WeightFileError for what a config says, unless the caller says it otherwise."""
        if option not in self.overrides:
            raise WeightFileError(
                f"[load_pretrained] expected {expected} in the config of {self.file.path}, got "
                f"{shown(got)}; say another {option}=..."
            )

    def _has(self, name: str) -> bool:
        return name in self.entries

    def _find_sizes(self) -> None:
        width, channels, side, other = self._shape("patch_embed.proj.weight", 4)
        if side != other:
            raise self._wrong("square patches", f"patches of {side} x {other} pixels")
        numbers = {
            int(match[1])
            for match in map(re.compile(r"blocks\.(\d+)\.").match, self.entries)
            if match is not None
        }
        if not numbers or len(numbers) > MOST_BLOCKS:
            raise self._wrong(f"1 to {MOST_BLOCKS} blocks", f"{len(numbers)}")
        if lacking := sorted(set(range(len(numbers))) - numbers):
            raise self._wrong(
                f"blocks 0 to {max(numbers)}", f"none of number {', '.join(map(str, lacking[:8]))}"
            )
        self.fields |= {
            "embed_dim": width,
            "depth": len(numbers),
            "patch_size": side,
            "in_channels": channels,
            "patch_bias": self._has("patch_embed.proj.bias"),
        }
        self._say("width, depth", f"{width}, {len(numbers)} blocks: from shapes and names")

    def _refuse_without_biases(self) -> None:
        """One sentence in place of a list of all biases that are missing."""
        if all(self._lacks_bias(layer) for layer in ("attn.proj", "mlp.fc1", "mlp.fc2")):
            raise WeightFileError(
                f"[load_pretrained] expected a ViT whose blocks have biases in {self.file.path}, "
                "got linear layers (proj_bias=False) without any; it is not supported"
            )

    def _lacks_bias(self, layer: str) -> bool:
        weight, bias = (self._in_blocks(f"{layer}.{name}") for name in ("weight", "bias"))
        return weight is not None and bias is None

    def _find_tokens(self) -> None:
        registers = self._shape("reg_token", 3)[1] if self._has("reg_token") else 0
        self.fields |= {
            "class_token": self._has("cls_token"),
            "distillation_token": self._has("dist_token"),
            "num_registers": registers,
        }
        tokens = ["class token"] * self._has("cls_token")
        tokens += ["distillation token"] * self._has("dist_token")
        tokens += [f"{registers} registers"] * bool(registers)
        self._say("tokens", f"{', '.join([*tokens, 'patches'])}: from names")

    def _find_positions(self) -> None:
        """How many pixels an image has, and which tokens have a position."""
        patch = self.fields["patch_size"]
        stated, key = stated_image_size(self.file)
        if not self._has("pos_embed"):
            asked = self.overrides.get("image_size")
            side = asked if isinstance(asked, int) and asked > 0 else stated or 224
            self.fields |= {"image_size": side, "positions": "patches"}
            self._say(
                "images", f"{side} x {side} pixels: the usual size, the file has no positions"
            )
            return
        count = self._shape("pos_embed", 3)[1]
        leading = self.fields["class_token"] + self.fields["distillation_token"]
        registers = self.fields["num_registers"]
        # DINOv2 puts its registers in after the positions; timm has none for all in front then.
        order = [leading + registers, 0] if not registers else [0, leading, leading + registers]
        fitting = [first for first in dict.fromkeys(order) if _is_square(count - first)]
        if stated:
            wanted = [first for first in fitting if count - first == (stated // patch) ** 2]
            if fitting and not wanted:
                self._contradict_size(stated, key, count)
            fitting = wanted or fitting
        if not fitting:
            raise self._wrong(
                f"positions of a square of patches and of up to {leading + registers} other tokens",
                f"{count} positions",
            )
        self.first_positions = fitting[0]
        self.is_folded = 0 < fitting[0] < leading + registers
        grid = math.isqrt(count - fitting[0])
        every = fitting[0] == leading + registers and fitting[0] > 0
        self.fields |= {
            "image_size": grid * patch,
            "positions": "all" if every else "patches",
        }
        text = f"{grid * patch} x {grid * patch} pixels in {grid} x {grid} patches of {patch}"
        if stated and stated % patch and stated // patch == grid:
            text += f" (of the {stated} in {key}, {stated % patch} are left over: pictures shrink)"
        self._say("images", f"{text}: from {count} positions")

    def _contradict_size(self, stated: int, key: str, count: int) -> None:
        """Add a problem; but timm itself resizes positions to its `input_size`, as it loads."""
        text = f"{key}: {str(stated)[:20]} in the config, but the arrays have {count} positions"
        if key == INPUT_SIZE:
            self._say("warning", f"{text}, which is another size; theirs is taken")
        else:
            self.problems.append(text)

    def _find_heads(self) -> None:
        width = self.fields["embed_dim"]
        self.fields |= {
            "qkv_bias": self._in_blocks("attn.qkv.bias") is not None,
            "qk_norm": self._in_blocks("attn.q_norm.weight") is not None,
        }
        heads, reason = self._heads(width)
        if "num_heads" in self.overrides:
            # A guess that can be is kept, so that an override that cannot be is not the file's.
            asked = self.overrides["num_heads"]
            fits = heads is not None and heads > 0 and width % heads == 0
            self.fields["num_heads"] = heads if fits else asked
            self._say("heads", f"{asked}: as asked for")
            return
        if heads is None:
            raise WeightFileError(
                f"[load_pretrained] expected a file that says how many heads its attention has, "
                f"got {self.file.path}, which does not, of a width ({width}) that is no published "
                "model's; say it with num_heads=..."
            )
        self.fields["num_heads"] = heads
        self._say("heads", f"{heads}: {reason}")

    def _heads(self, width: int) -> tuple[int | None, str]:
        """The number of heads and what it is from; it is in the file of some dialects only."""
        for key, stated in (
            ("num_attention_heads", self.config.get("num_attention_heads")),
            ("num_heads", self.model_args.get("num_heads")),
        ):
            if isinstance(stated, int) and not isinstance(stated, bool):
                return stated, f"{key} in the config"
        weight = self.entries.get("blocks.0.attn.qkv.weight")
        if weight is not None:
            shape = weight.pieces[0].stored_shape
            if len(shape) == 3:
                return shape[1], f"the query kernel's shape {shape}"
            if len(weight.pieces) > 3:
                return len(weight.pieces) // 3, "one matrix a head"
        norm = self._in_blocks("attn.q_norm.weight")
        if norm is not None and len(norm) == 1 and norm[0] > 0:
            return width // norm[0], f"width {width} / q_norm's {norm[0]}"
        for name, where in names_of(self.file):
            for pattern, heads in _HEADS_OF_NAME:
                if re.search(pattern, name):
                    return heads, f"{name} ({where})"
        if width in HEADS_OF_WIDTH:
            whose = "the tutorial's CIFAR model" if width == 48 else "published models"
            return HEADS_OF_WIDTH[width], f"{whose} of width {width}"
        if width % 64 == 0:
            return width // 64, f"width {width} / 64, as in most models"
        return None, ""

    def _find_mlp(self) -> None:
        first, second = (self._in_blocks(f"mlp.fc{number}.weight") for number in (1, 2))
        if first is None or second is None or not len(first) == len(second) == 2 or 0 in second:
            raise self._wrong("two matrices in each block's MLP", f"shapes {first} and {second}")
        hidden = second[1]
        gated = first[0] == 2 * hidden
        layer_scale = any(self._in_blocks(f"{name}.gamma") for name in ("ls1", "ls"))
        stated = self.config.get("hidden_act") or self.model_args.get("act_layer")
        activation, reason = self.family.activation, f"{self.family.title}{self.family.but}"
        for name, where in names_of(self.file):
            for pattern, kind in _ACTIVATION_OF_NAME:
                if re.search(pattern, name):
                    activation, reason = kind, where
        if gated:
            activation, reason = "silu", "gated, by its shapes"
        elif isinstance(stated, str) and stated in ACTIVATIONS:
            activation, reason = ACTIVATIONS[stated], "the config"
        elif stated is not None:
            known = f"activation out of {', '.join(ACTIVATIONS)}"
            self._refuse_stated(known, stated, "activation")
        self.fields |= {
            "mlp_ratio": hidden / self.fields["embed_dim"],
            "mlp": "swiglu" if gated else "mlp",
            "activation": activation,
            "layer_scale": 1e-5 if layer_scale else 0.0,
        }
        kind = "SwiGLU" if gated else "MLP"
        scale = ", layer scale" * layer_scale
        self._say("MLP", f"{kind} of {hidden}, {activation}{scale}: {reason}")

    def _find_norms(self) -> None:
        eps, reason = self.family.norm_eps, self.family.title
        stated: Any = self.config.get("layer_norm_eps")
        if is_number(stated) and 0 < stated < 1:
            eps, reason = float(stated), "the config"
        elif stated is not None:
            self._refuse_stated("layer_norm_eps between 0 and 1", stated, "norm_eps")
        elif self.model_args.get("norm_layer") is not None:
            eps, reason = 1e-6, "norm_layer in the config"  # timm's own class
        if any(name.startswith("beit3_") for name, _ in names_of(self.file)):
            eps, reason = 1e-5, "BEiT-3"
        is_rms = self._lacks_bias("norm1") or self._lacks_bias("norm")
        self.fields |= {
            # Norms after sums or branches are named like those before.
            "block": next((kind for name, kind in _BLOCKS.items() if self._has(name)), "pre_norm"),
            "norm": "rms" if is_rms else "layer",
            "norm_eps": eps,
            "pre_norm": self._has("norm_pre.weight"),
            "final_norm": self._has("norm.weight") or self._must_have_norm(),
            "head_norm": self._has("fc_norm.weight"),
        }
        self._say("norms", f"{'RMSNorm, ' * is_rms}epsilon {eps:g}: {reason}")

    def _must_have_norm(self) -> bool:
        """Whether a file without a last norm has lost it."""
        if self._has("fc_norm.weight") or self.model_args.get("final_norm") is False:
            return False
        if not self.family.final_norm and self._has("head.weight"):
            self._say("warning", "no norm before the head: few models are so, perhaps it is lost")
        return self.family.final_norm

    def _find_head(self) -> None:
        """What is pooled and how many classes there are."""
        width = self.fields["embed_dim"]
        classes, read = self._shape("head.weight", 2) if self._has("head.weight") else (0, width)
        before = self._shape("pre_logits.fc.weight", 2) if self._has("pre_logits.fc.weight") else ()
        pooling, reason = self._pooling(before[1] if before else read)
        self.fields |= {
            "num_classes": classes,
            "pooling": pooling,
            "pre_logits": before[0] if before else 0,
            "distillation_head": self._has("head_dist.weight"),
        }
        self._say("pooling", f"{pooling}: {reason}")

    def _pooling(self, read: int) -> tuple[str, str]:
        """`read` is the width of what comes after it."""
        stated = self.model_args.get("global_pool")
        stated = self.config.get("global_pool") if stated is None else stated
        if stated is not None and stated not in _POOLINGS:
            if stated != "" or self._has("head.weight"):  # timm gives all tokens without a head
                self._refuse_stated(f"global_pool out of {', '.join(_POOLINGS)}", stated, "pooling")
            stated = None
        if self._has("attn_pool.latent"):
            if stated not in (None, "map"):
                self.problems.append(f"global_pool: {stated} in the config, map in the arrays")
            return "map", "attn_pool"
        if self._has("attn_pool.score.weight"):
            return "score", "attn_pool"
        if read == 2 * self.fields["embed_dim"]:
            return "token_avg", "the head reads twice the width"
        if stated is not None:
            return str(stated), "the config"
        if self._has("fc_norm.weight"):
            return "avg", "fc_norm"
        if not self.fields["class_token"]:
            return "avg", "no class token"
        return "token", "class token and no fc_norm"

    def _warn_of_other_blocks(self) -> None:
        """No array tells ResPost models of timm from others: only what they leave out is rare."""
        said = self.fields
        rare = said["head_norm"] and not (said["class_token"] or said["qkv_bias"])
        known = mapping(self.config.get("pretrained_cfg")) or said["layer_scale"]
        if rare and not known:
            text = "timm's models with rpn in their names have such arrays too; if this is one, say"
            self._say("warning", f"{text} block='res_post_norm', or the answers are wrong")


def _is_square(count: int) -> bool:
    return count > 0 and math.isqrt(count) ** 2 == count
