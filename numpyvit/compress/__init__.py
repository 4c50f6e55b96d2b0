"""Trained models made smaller or faster: fewer tokens, nearer ones, fewer heads, fewer weights."""

from __future__ import annotations

from numpyvit.compress.sharing import share
from numpyvit.compress.locality import attend_locally
from numpyvit.compress.tokens import ShortenedTransformer, merge_tokens, prune_tokens
from numpyvit.compress.heads import gate_heads, head_importance, least_important, prune_heads
from numpyvit.compress.magnitude import apply_masks, magnitude_masks, sparsity

__all__ = [
    "ShortenedTransformer",
    "apply_masks",
    "attend_locally",
    "gate_heads",
    "head_importance",
    "least_important",
    "magnitude_masks",
    "merge_tokens",
    "prune_heads",
    "prune_tokens",
    "share",
    "sparsity",
]
