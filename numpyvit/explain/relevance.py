"""Where the evidence for a class lies: attention weighted by the gradient of its logit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numpyvit.explain.rollout import positive_evidence
from numpyvit.explain.tokens import Floats, Grid, check_attention, patch_grid, patch_map


def relevance(attention: Sequence[Floats] | Floats, gradients: Sequence[Floats] | Floats) -> Floats:
    """How relevant each input token is to each output token for one class: (B, N, N).

    From weights A and gradients dA (B, H, N, N) of each block, first block first: R starts as I,
    and each block adds E R, with E the mean over heads of max(A * dA, 0). This is the method of
    Chefer et al. 2021 (ICCV, "Generic attention-model explainability"), equations 5 and 6. Rows are
    not scaled: their sums tell how much evidence there is.
    """
    total: Floats | None = None
    for weights, slopes in zip(attention, gradients, strict=True):
        evidence = positive_evidence(weights, slopes)
        if total is None:
            total = evidence + np.eye(evidence.shape[-1], dtype=evidence.dtype)
        else:
            total = total + evidence @ total
    if total is None:
        raise ValueError("[relevance] expected the attention of at least one block, got none")
    return total


def gradcam(
    attention: Floats,
    gradients: Floats,
    shares: Floats,
    num_prefix_tokens: int,
    grid: Grid | None = None,
) -> Floats:
    """GradCAM on the attention of one block: (B, H, N, N) twice -> (B, rows, columns).

    A head counts by the mean gradient of the weights that the answering tokens (`shares`, see
    `patch_map`) give to patches; the maps of the heads are added so, and what is negative is cut
    off (Selvaraju et al. 2017, equations 1 and 2, with heads for channels). A map may be 0
    throughout: where the mean gradient of every head is negative.
    """
    check_attention("gradcam", attention)
    check_attention("gradcam", gradients)
    slopes = patch_map(gradients, shares, num_prefix_tokens, grid).mean((-2, -1), keepdims=True)
    maps = patch_map(attention, shares, num_prefix_tokens, grid)  # b h rows columns
    return np.maximum((slopes * maps).sum(1), 0)


def token_gradcam(tokens: Floats, gradients: Floats) -> Floats:
    """GradCAM on the tokens of a square grid: (B, N, D) twice -> (B, rows, columns).

    A channel counts by its mean gradient over the tokens; their weighted sum is the map, what is
    negative is cut off (Selvaraju et al. 2017, equations 1 and 2). It needs no attention.
    """
    maps = (gradients.mean(1, keepdims=True) * tokens).sum(-1)
    return np.maximum(maps, 0).reshape(-1, *patch_grid(tokens.shape[1]))
