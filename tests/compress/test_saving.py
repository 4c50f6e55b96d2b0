"""What a file cannot describe is not saved as something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compress.models import images_of, model_of
from tolerances import assert_same_bits

from numpyvit.compress import (
    apply_masks,
    attend_locally,
    gate_heads,
    magnitude_masks,
    merge_tokens,
    prune_heads,
)
from numpyvit.models import Labelling, load_model, save_model

LABELLING = Labelling(class_names=tuple("abcde"))


@pytest.mark.parametrize(
    ("compress", "message"),
    [
        (lambda model: merge_tokens(model, 2), "the whole, got ShortenedTransformer"),
        (lambda model: attend_locally(model, 3), "blocks.0.attn, got LocalAttention"),
        (lambda model: gate_heads(model, [np.ones(3)] * 3), "proj, got _GatedProjection"),
        (lambda model: prune_heads(model, {1: [0]}), r"blocks.1.attn.qkv.weight, got \(24, 12\)"),
    ],
)
def test_a_model_that_its_configuration_does_not_describe_is_not_saved(
    compress: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"\[save_model\] expected .*{message}; save"):
        save_model(tmp_path / "model.npz", "name", compress(model_of("float32")), LABELLING)
    assert not [*tmp_path.iterdir()]


def test_a_model_with_weights_of_zero_is_saved(tmp_path: Path) -> None:
    model, images = model_of("float32"), images_of(2, "float32")
    apply_masks(model, magnitude_masks(model, 0.5))
    save_model(tmp_path / "model.npz", "name", model, LABELLING)
    assert_same_bits(load_model(tmp_path / "model.npz").model(images), model(images))
