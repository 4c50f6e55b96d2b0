"""What a model looks at, as arrays and as pictures."""

# Each file imports only from those above it, which is not the alphabet's order.
from __future__ import annotations

from numpyvit.explain.attention import (
    class_attention,
    evaluating,
    fuse_heads,
    patch_grid,
    position_similarity,
    resize_attention,
)
from numpyvit.explain.sheet import Sheet, displayable, overlay
from numpyvit.explain.draw import (
    draw_attention,
    draw_positions,
    draw_predictions,
    draw_samples,
)
from numpyvit.explain.report import draw_confusion, draw_curves

__all__ = [
    "Sheet",
    "class_attention",
    "displayable",
    "draw_attention",
    "draw_confusion",
    "draw_curves",
    "draw_positions",
    "draw_predictions",
    "draw_samples",
    "evaluating",
    "fuse_heads",
    "overlay",
    "patch_grid",
    "position_similarity",
    "resize_attention",
]
