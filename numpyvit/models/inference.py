"""Logits for many images, when no gradient is wanted."""

from __future__ import annotations

import numpy

from numpyvit.backend import Array, array_module, device_of
from numpyvit.models.base import ImageModel
from numpyvit.tensor import no_grad
from numpyvit.threads import most_threads, run_tiles


def predict(model: ImageModel, images: Array) -> Array:
    """Logits (B, num_classes) of `images` (B, C, H, W), with no tape kept.

    Each core takes its share of the images: one thread of BLAS each, and no waiting where an op
    runs on one core. Call `model.eval()` first, or dropout is at work. Raises ValueError without
    images.
    """
    if len(images) == 0:
        raise ValueError("[predict] expected at least 1 image, got 0")
    count = min(most_threads(), len(images)) if device_of(images) == "cpu" else 1
    shares = numpy.array_split(images, count) if count > 1 else [images]
    logits: list[Array] = [None] * count

    def share(index: int) -> None:
        with no_grad():
            logits[index] = model(shares[index]).data

    run_tiles(share, count)
    return array_module(images).concatenate(logits)
