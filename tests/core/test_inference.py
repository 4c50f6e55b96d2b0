"""Logits for many images: the same as the model's, on any number of threads, without a tape."""

from __future__ import annotations

import numpy as np
import pytest
from tolerances import assert_close

from numpyvit.models import VisionTransformer, ViTConfig, predict
from numpyvit.tensor import tape
from numpyvit.threads import limit_threads


@pytest.fixture
def model():
    config = ViTConfig(
        image_size=8, patch_size=4, num_classes=5, embed_dim=16, depth=2, num_heads=2
    )
    return VisionTransformer(config, rng=np.random.default_rng(0)).eval()


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_prediction_is_the_models_logits_whoever_computes_them(
    model, count, threads, rng, monkeypatch
):
    monkeypatch.setattr("numpyvit.threads.available_cores", lambda: 16)
    images = rng.standard_normal((count, 3, 8, 8), np.float32)
    with limit_threads(threads):
        logits = predict(model, images)
    assert logits.shape == (count, 5)
    assert_close(logits, model(images).data)


def test_a_prediction_leaves_no_tape(model, monkeypatch):
    def refuse(*args):
        raise AssertionError("a node was made")

    images = np.zeros((4, 3, 8, 8), np.float32)
    monkeypatch.setattr(tape.Node, "__init__", refuse)
    predict(model, images)


def test_no_images_are_one_clear_error(model):
    with pytest.raises(ValueError, match="at least 1 image"):
        predict(model, np.zeros((0, 3, 8, 8), np.float32))


def test_an_error_in_a_share_is_raised(model):
    with pytest.raises(TypeError, match="dtype"):
        predict(model, np.zeros((4, 3, 8, 8)))
