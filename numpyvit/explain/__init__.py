"""What a model looks at, as arrays and as pictures."""

# Each file imports only from those above it, which is not the alphabet's order.
from __future__ import annotations

from numpyvit.explain.tokens import patch_grid, patch_map, tokens_read
from numpyvit.explain.observe import (
    Observed,
    evaluating,
    observe_attention,
    observe_gradients,
    observe_tokens,
)
from numpyvit.explain.attention import (
    attention_mass,
    class_attention,
    fuse_heads,
    resize_attention,
    without_padding,
)
from numpyvit.explain.rollout import gradient_rollout, rollout
from numpyvit.explain.relevance import gradcam, relevance, token_gradcam
from numpyvit.explain.methods import (
    GRADIENT_METHODS,
    METHODS,
    MapOptions,
    explain,
    possible_methods,
)
from numpyvit.explain.captions import map_caption, options_note, percent
from numpyvit.explain.measures import (
    HeadMeasures,
    PositionMaps,
    attention_distance,
    attention_entropy,
    measure_heads,
    model_positions,
    position_similarity,
)
from numpyvit.explain.filters import Filters, filter_images, model_filters, patch_filters
from numpyvit.explain.sheet import Sheet, displayable, overlay
from numpyvit.explain.draw import (
    Title,
    draw_attention,
    draw_overlays,
    draw_predictions,
    draw_samples,
    prediction_titles,
)
from numpyvit.explain.draw_maps import draw_heads, draw_methods
from numpyvit.explain.draw_reconstruction import draw_reconstruction
from numpyvit.explain.draw_model import draw_filters, draw_measures, draw_positions
from numpyvit.explain.report import draw_confusion, draw_curves

__all__ = [
    "GRADIENT_METHODS",
    "METHODS",
    "Filters",
    "HeadMeasures",
    "MapOptions",
    "Observed",
    "PositionMaps",
    "Sheet",
    "Title",
    "attention_distance",
    "attention_entropy",
    "attention_mass",
    "class_attention",
    "displayable",
    "draw_attention",
    "draw_confusion",
    "draw_curves",
    "draw_filters",
    "draw_heads",
    "draw_measures",
    "draw_methods",
    "draw_overlays",
    "draw_positions",
    "draw_predictions",
    "draw_reconstruction",
    "draw_samples",
    "evaluating",
    "explain",
    "filter_images",
    "fuse_heads",
    "gradcam",
    "gradient_rollout",
    "map_caption",
    "measure_heads",
    "model_filters",
    "model_positions",
    "observe_attention",
    "observe_gradients",
    "observe_tokens",
    "options_note",
    "overlay",
    "patch_filters",
    "patch_grid",
    "patch_map",
    "percent",
    "position_similarity",
    "possible_methods",
    "prediction_titles",
    "relevance",
    "resize_attention",
    "rollout",
    "token_gradcam",
    "tokens_read",
    "without_padding",
]
