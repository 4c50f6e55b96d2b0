"""The SwinConfig of weights: from their shapes, the file's config, and what their family does."""

from __future__ import annotations

import math
import re
from typing import Any

from numpyvit.models import SwinConfig
from numpyvit.weights.dialects.architecture import ACTIVATIONS, Architecture
from numpyvit.weights.dialects.stated import is_number, refuse_unknown_options, stated_image_size
from numpyvit.weights.dialects.swin import SWIN_HUGGING_FACE, SWIN_TORCHVISION
from numpyvit.weights.text import shown

_BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.")
_TABLE = "attn.relative_position_bias_table"
_MASK = "layers.0.blocks.1.attn_mask"  # Microsoft's files have it
_PAD_FIRST = (SWIN_TORCHVISION.title, SWIN_HUGGING_FACE.title)
_POOLINGS = (None, "avg", "")


class SwinArchitecture(Architecture):
    """As its base; what `overrides` say counts only where the file leaves it open."""

    config_class = SwinConfig

    def _find(self) -> None:
        refuse_unknown_options(self.file)
        self._find_stages()
        self._find_windows()
        self._find_blocks()
        self._find_head()
        self._contradict()

    def _find_stages(self) -> None:
        width, channels, side, other = self._shape("patch_embed.proj.weight", 4)
        if side != other:
            raise self._wrong("square patches", f"patches of {side} x {other} pixels")
        numbers: dict[int, set[int]] = {}
        for match in filter(None, map(_BLOCK.match, self.entries)):
            numbers.setdefault(int(match[1]), set()).add(int(match[2]))
        stages = [numbers.get(stage, set()) for stage in range(len(numbers))]
        if not stages or any(blocks != set(range(len(blocks))) or not blocks for blocks in stages):
            raise self._wrong("stages and blocks numbered from 0", "gaps between them")
        self.fields |= {
            "patch_size": side,
            "in_channels": channels,
            "embed_dim": width,
            "depths": tuple(map(len, stages)),
        }

    def _find_windows(self) -> None:
        """Heads and windows, by the tables of relative positions; and the size of images."""
        depths = self.fields["depths"]
        tables = [self._shape(f"layers.{s}.blocks.0.{_TABLE}", 2) for s in range(len(depths))]
        heads = tuple(count for _, count in tables)
        sizes = [(math.isqrt(rows) + 1) // 2 for rows, _ in tables]
        window, pads_first = max(sizes), self.family.title in _PAD_FIRST
        pixels, reason = self._image_size(sizes)
        grid = pixels // self.fields["patch_size"]
        # A window that is larger than the grid of a stage shrinks, where it is not padded.
        if sizes != [window if pads_first else min(window, grid >> s) for s in range(len(sizes))]:
            raise self._wrong("windows of one size", f"{', '.join(map(str, sizes))} tokens a side")
        self.fields |= {
            "num_heads": heads,
            "window_size": window,
            "padding": "before_shift" if pads_first else "after_shift",
            "image_size": pixels,
        }
        width = self.fields["embed_dim"]
        self._say("stages", f"{depths} blocks, {heads} heads, width {width}: from shapes and names")
        self._say("windows", f"{window} x {window} tokens: from the bias tables")
        self._say("images", f"{pixels} x {pixels} pixels: {reason}")

    def _image_size(self, sizes: list[int]) -> tuple[int, str]:
        """The pixels of a side that the file's own images have; and why."""
        patch = self.fields["patch_size"]
        stated, key = stated_image_size(self.file)
        if stated:
            return stated, f"{key} in the config"
        masks = [array.shape for name, array in self.file.arrays.items() if name.endswith(_MASK)]
        if masks and len(masks[0]) == 3:
            grid = math.isqrt(masks[0][0]) * math.isqrt(masks[0][1])
            return grid * patch, "the mask of the first shifted windows"
        if sizes[-1] < max(sizes):
            return (sizes[-1] << len(sizes) - 1) * patch, "the last stage is one smaller window"
        asked = self.overrides.get("image_size")
        if isinstance(asked, int) and asked > 0:
            return asked, "as asked for"
        return 8 * sizes[0] * patch, "8 windows a side, as in published models"

    def _find_blocks(self) -> None:
        hidden = self._shape("layers.0.blocks.0.mlp.fc1.weight", 2)[0]
        activation = self.config.get("hidden_act") or self.model_args.get("act_layer") or "gelu"
        if not isinstance(activation, str) or activation not in ACTIVATIONS:
            known = f"activation out of {', '.join(ACTIVATIONS)}"
            self._refuse_stated(known, activation, "activation")
        stated: Any = self.config.get("layer_norm_eps")
        is_possible = is_number(stated) and 0 < stated < 1
        if stated is not None and not is_possible:
            self._refuse_stated("layer_norm_eps between 0 and 1", stated, "norm_eps")
        self.fields |= {
            "mlp_ratio": hidden / self.fields["embed_dim"],
            "qkv_bias": self._has("layers.0.blocks.0.attn.qkv.bias"),
            "activation": ACTIVATIONS.get(str(activation), "gelu"),
            "norm_eps": float(stated) if is_possible else self.family.norm_eps,
        }
        self._say("MLP", f"of {hidden} in the first stage, {self.fields['activation']}")

    def _find_head(self) -> None:
        pooling = self.model_args.get("global_pool")
        if pooling not in _POOLINGS:
            raise self._wrong("a model that pools by the mean", f"global_pool {shown(pooling)}")
        has_head = self._has("head.fc.weight")
        self.fields["num_classes"] = self._shape("head.fc.weight", 2)[0] if has_head else 0

    def _contradict(self) -> None:
        """Add a problem for each size that a config gives otherwise than the arrays."""
        found = {**self.fields, "num_channels": self.fields["in_channels"]}
        for key in ("patch_size", "num_channels", "embed_dim", "depths", "num_heads"):
            for config in (self.config, self.model_args):
                stated, actual = config.get(key), found[key]
                if stated is None or (key == "patch_size" and stated == [actual, actual]):
                    continue
                if (tuple(stated) if isinstance(stated, list) else stated) != actual:
                    self.problems.append(
                        f"{key}: {shown(stated)} in the config, {actual} in the arrays"
                    )
