"""The larger models for CIFAR's images: their sizes beside the published ones."""

from __future__ import annotations

import numpy as np
import pytest

from numpyvit.models import count_multiply_adds, count_parameters, create_model, model_config
from numpyvit.tensor import no_grad

SIZES = {"vit_cifar_w96_d6_patch4_32": (96, 6, 6), "vit_cifar_w192_d9_patch4_32": (192, 9, 12)}


@pytest.mark.parametrize(("name", "sizes"), SIZES.items())
def test_parameters_are_those_of_its_parts(name, sizes):
    width, depth, heads = sizes
    config = model_config(name)
    assert (config.embed_dim, config.depth, config.num_heads) == sizes
    assert width // heads == 16
    attention = 3 * width * width + width * width + width  # no bias of queries, keys, values
    mlp = 2 * width * 2 * width + 2 * width + width
    blocks = depth * (attention + mlp + 4 * width)
    embedding = 3 * 4 * 4 * width + width + width + 65 * width
    total = embedding + blocks + 2 * width + 10 * width + 10
    assert count_parameters(config) == create_model(name).num_parameters() == total


def test_at_tiny_imagenets_size_the_larger_has_the_published_numbers():
    # Lee et al. 2021, table 2: 2.8 million parameters and 189.8 million operations.
    config = model_config(
        "vit_cifar_w192_d9_patch4_32", image_size=64, patch_size=8, num_classes=200
    )
    assert round(count_parameters(config) / 1e6, 1) == 2.8
    assert abs(count_multiply_adds(config) / 189.8e6 - 1) < 0.01


@pytest.mark.parametrize("name", SIZES)
def test_it_classifies_images(name, rng):
    model = create_model(name).eval()
    with no_grad():
        assert model(rng.standard_normal((2, 3, 32, 32)).astype(np.float32)).shape == (2, 10)
