"""A linear probe: the head of a model, trained on features that were computed once."""

from __future__ import annotations

from typing import Any

import numpy

from numpyvit import functional
from numpyvit.backend import to_device, to_numpy
from numpyvit.data import Dataset
from numpyvit.explain import evaluating
from numpyvit.models import ImageModel
from numpyvit.nn import Module
from numpyvit.tensor import Tensor, no_grad


class Probe(Module):
    """The head of `model`, and nothing else of it: features (B, F) -> logits (B, num_classes).

    The parameters are the model's own, so what trains the probe trains the model's head. Features
    are what `head_inputs` gives.
    """

    def __init__(self, model: ImageModel) -> None:
        self.config, self.dtype, self.device = model.config, model.dtype, model.device
        self.head, self.head_dist = model.head, model.head_dist

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, num_classes); of two heads, each on its part, the mean."""
        if not self.config.distillation_head:
            return self.head(features)
        width = self.config.num_features
        second = self.head_dist(features[:, width:])
        return (self.head(features[:, :width]) + second) * 0.5


Learner = ImageModel | Probe  # what a step trains


def head_inputs(model: ImageModel, images: numpy.ndarray) -> numpy.ndarray:
    """What the head reads of images (B, C, H, W), without dropout: (B, F).

    F is the width of the pooled features; where there is a second head, the distillation token
    stands behind them.
    """
    with evaluating(model), no_grad():
        batch = to_device(images.astype(model.dtype, copy=False), model.device)
        tokens = model.forward_features(batch, keep=model.tokens_read)
        features = model.forward_pooled(tokens)
        if model.config.distillation_head:
            features = functional.concat([features, tokens[:, 1]], axis=1)
    return to_numpy(features.data)


class FeatureData(Dataset):
    """Features (N, F) in the place of pictures, with the labels of the `dataset` they are of."""

    def __init__(self, dataset: Dataset, features: numpy.ndarray) -> None:
        if len(features) != len(dataset):
            raise ValueError(
                f"[FeatureData] expected features of {len(dataset)} pictures, got {len(features)}"
            )
        self.labels, self.class_names = dataset.labels, dataset.class_names
        self.features = features

    def images(self, indices: Any) -> Any:
        """The features at `indices` (B,): (B, F)."""
        return self.features[numpy.asarray(indices, numpy.int64)]
