"""What the patch embedding looks for: the principal components of its filters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from numpyvit.backend import Array, to_numpy
from numpyvit.explain.tokens import Floats
from numpyvit.models import ImageModel


class Filters(NamedTuple):
    """Components (K, C, P, P) of length 1, at right angles; the share of variance that each has."""

    components: Floats
    explained: Floats


def patch_filters(weight: Array, count: int = 28) -> Filters:
    """The first `count` principal components of filters (D, C, P, P), or as many as there are.

    From the singular values of the filters less their mean (Dosovitskiy et al. 2021, figure 7,
    left). The sign, which is arbitrary, is such that the largest value of each is positive. Raises
    ValueError for other shapes and a count below 1.
    """
    filters = to_numpy(weight)
    if filters.ndim != 4 or filters.size == 0:
        raise ValueError(
            f"[patch_filters] expected filters (D, C, P, P), got shape {filters.shape}"
        )
    if count < 1:
        raise ValueError(f"[patch_filters] expected at least 1 component, got {count}")
    flat = filters.reshape(len(filters), -1).astype(np.float64)
    _, lengths, components = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    components, power = components[:count], lengths**2
    largest = np.abs(components).argmax(1, keepdims=True)
    components = components * np.sign(np.take_along_axis(components, largest, 1))
    explained = power[:count] / max(power.sum(), np.finfo(np.float64).tiny)
    shaped = components.reshape(-1, *filters.shape[1:])
    return Filters(shaped.astype(filters.dtype), explained.astype(filters.dtype))


def model_filters(model: ImageModel, count: int = 28) -> Filters:
    """`patch_filters` of the convolution of a model that sees the pixels."""
    return patch_filters(model.patch_embed.pixel_filters.weight.data, count)


def filter_images(components: Floats) -> Floats:
    """Each filter (K, C, P, P) stretched from its least value, 0, to its greatest, 1."""
    low = components.min((1, 2, 3), keepdims=True)
    span = components.max((1, 2, 3), keepdims=True) - low
    return (components - low) / np.where(span > 0, span, 1)
