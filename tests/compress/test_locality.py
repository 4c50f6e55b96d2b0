"""A whole model with local attention in the place of its own."""

from __future__ import annotations

import numpy as np
import pytest
from compress.models import images_of, model_of
from tolerances import assert_close

from numpyvit.compress import attend_locally
from numpyvit.nn import Attention


def test_the_weights_are_the_models_own_and_its_attention_stays_as_it_was() -> None:
    model = model_of()
    near = attend_locally(model, 3)
    assert {*map(id, near.parameters())} == {*map(id, model.parameters())}
    assert near.state_dict().keys() == model.state_dict().keys()
    assert all(type(block.attn) is Attention for block in model.blocks)


@pytest.mark.parametrize("positions", ["all", "relative", "rotary"])
def test_windows_as_large_as_the_image_are_full_attention(positions: str) -> None:
    model = model_of(num_registers=2, positions=positions)
    assert_close(attend_locally(model, 4, "window")(images_of(2)), model(images_of(2)))


def test_a_pixel_far_away_changes_a_patch_only_through_the_tokens_in_front() -> None:
    near = attend_locally(model_of(class_token=False, pooling="avg"), 2, "window")
    images = images_of(1).copy()
    before = near.forward_features(images).data.copy()
    images[0, :, 0, 0] += 1
    changed = (near.forward_features(images).data != before).any(-1).reshape(4, 4)
    assert changed[:2, :2].all()
    assert changed.sum() == 4


def test_shifted_windows_move_in_every_second_block() -> None:
    near = attend_locally(model_of(), 2, "window", shifted=True)
    assert [block.attn.locality.shift for block in near.blocks] == [0, 1, 0]


def test_a_window_larger_than_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a size of at most 4"):
        attend_locally(model_of(), 5)
    assert np.prod(model_of().patch_embed.grid) == 16


def test_shifts_without_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="kind='window' with shifted, got 'neighbourhood'"):
        attend_locally(model_of(), 3, shifted=True)
