"""Maps of a model whose attention stays inside windows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tolerances import GRADCHECK, assert_same_bits, relative_l2

from numpyvit import Tensor, explain, functional
from numpyvit.explain import (
    METHODS,
    MapOptions,
    class_attention,
    measure_heads,
    possible_methods,
    token_gradcam,
)
from numpyvit.models import SwinConfig, SwinTransformer, VisionTransformer, ViTConfig

SMALL = SwinConfig(
    image_size=16,
    patch_size=2,
    num_classes=5,
    embed_dim=8,
    depths=(2, 2),
    num_heads=(2, 4),
    window_size=2,
)


def model_of(**changes: Any) -> SwinTransformer:
    model = SwinTransformer(SMALL.replace(**changes), rng=np.random.default_rng(0))
    rng = np.random.default_rng(1)
    for parameter in model.parameters():
        parameter.data = parameter.data + 0.5 * rng.standard_normal(parameter.shape)
    return model.to("float64").eval()


def images(count: int = 3) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((count, 3, 16, 16))


@pytest.mark.parametrize("window", [2, 3])  # of 3, some places are empty
@pytest.mark.parametrize(("block", "side"), [(0, 8), (1, 8), (2, 4), (3, 4), (-1, 4)])
def test_gradcam_is_the_slope_of_the_logit_along_each_channel(
    window: int, block: int, side: int
) -> None:
    model, options = model_of(window_size=window), MapOptions(block=block, target=2)
    maps = explain.explain(model, images(), "gradcam", options)
    assert maps.shape == (3, side, side)
    tokens = model(images(), return_hidden_states=True).hidden_states[1:][block]
    expected = np.zeros((3, side * side))
    for channel, slope in enumerate(slopes_of_channels(model, block).T):
        expected += slope[:, None] / side**2 * tokens.numpy()[..., channel]
    assert maps.any()
    assert relative_l2(maps.reshape(3, -1), np.maximum(expected, 0)) <= GRADCHECK


def slopes_of_channels(model: SwinTransformer, block: int) -> np.ndarray:
    """How the logit of class 2 grows with a channel of all tokens after a block: (B, channels)."""
    first = model.blocks[block]
    forward, step = first.forward, 1e-5
    width = first.norm1.weight.shape[0]

    def moved(channel: int, by: float) -> np.ndarray:
        ahead = np.zeros(width)
        ahead[channel] = by
        first.forward = lambda *inputs: forward(*inputs) + Tensor(ahead)
        return model(images()).numpy()[:, 2]

    found = [(moved(each, step) - moved(each, -step)) / (2 * step) for each in range(width)]
    first.forward = forward
    return np.stack(found, 1)


def test_asking_for_tokens_changes_no_bit_of_the_logits() -> None:
    for window in (2, 3):
        model = model_of(window_size=window)
        output = model(images(), return_hidden_states=True)
        assert_same_bits(output.logits, model(images()))


def test_gradcam_of_tokens_is_a_weighted_sum_without_what_is_negative() -> None:
    tokens = np.array([[[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [1.0, 1.0]]])
    slopes = np.array([[[1.0, -1.0], [3.0, -1.0], [0.0, -1.0], [0.0, -1.0]]])
    np.testing.assert_array_equal(token_gradcam(tokens, slopes), [[[1.0, 2.0], [0.0, 0.0]]])


@pytest.mark.parametrize(
    "ask",
    [
        *(lambda model, name=name: explain.explain(model, images(), name)
          for name in METHODS if name != "gradcam"),
        lambda model: class_attention(model, images()),
        lambda model: measure_heads(model, images()),
    ],
)  # fmt: skip
def test_what_needs_attention_between_all_tokens_is_refused(
    ask: Callable[[SwinTransformer], Any],
) -> None:
    with pytest.raises(
        ValueError, match="not between all tokens of the image; take the method gradcam"
    ):
        ask(model_of())


def test_the_possible_methods_are_those_that_work() -> None:
    assert possible_methods(model_of()) == ["gradcam"]
    plain = ViTConfig(image_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2)
    assert possible_methods(VisionTransformer(plain)) == list(METHODS)


def test_the_class_to_explain_is_the_predicted_one_unless_it_is_said() -> None:
    model = model_of()
    predicted = functional.softmax(model(images())).numpy().argmax(-1)
    said = explain.explain(model, images(), "gradcam", MapOptions(target=predicted))
    assert_same_bits(explain.explain(model, images(), "gradcam"), said)
    assert np.abs(said - explain.explain(model, images(), "gradcam", MapOptions(target=0))).max()
