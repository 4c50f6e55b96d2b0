"""Weights opened for oblong patches and other stems, and what is refused of oblong images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerances import assert_same_bits

from numpyvit.models import Labelling, VisionTransformer, ViTConfig, save_model
from numpyvit.weights import convert, load_pretrained, resize_patch_kernel, resize_positions

CONFIG = ViTConfig(
    image_size=16, patch_size=4, num_classes=3, embed_dim=8, depth=1, num_heads=2, norm_eps=1e-5
)


def saved(path: Path, **changes: Any) -> tuple[Path, VisionTransformer]:
    model = VisionTransformer(CONFIG.replace(**changes), rng=np.random.default_rng(0))
    save_model(path / "model.npz", "vit", model, Labelling(class_names=("a", "b", "c")))
    return path / "model.npz", model


def test_a_kernel_and_positions_are_resized_to_oblong_patches(tmp_path: Path) -> None:
    path, model = saved(tmp_path)
    found = load_pretrained(path, patch_size=(8, 2)).model
    assert found.config.grid == (2, 8)
    weight = model.patch_embed.proj.weight.data
    assert_same_bits(found.patch_embed.proj.weight, resize_patch_kernel(weight, (8, 2)))
    assert_same_bits(found.pos_embed, resize_positions(model.pos_embed.data, 1, (2, 8), "timm"))


def test_positions_of_an_oblong_grid_are_not_taken_for_a_square(tmp_path: Path) -> None:
    path, model = saved(tmp_path, patch_size=(8, 2))
    found = load_pretrained(path, image_size=32).model
    old, positions = model.config.grid, model.pos_embed.data
    expected = resize_positions(positions, 1, (4, 16), "timm", old_grid=old)
    assert old == (2, 8)
    assert_same_bits(found.pos_embed, expected)


@pytest.mark.parametrize("stem", ["overlapping", "convolutions", "hybrid"])
def test_other_stems_are_opened_at_another_size_but_not_for_other_patches(
    tmp_path: Path, stem: str
) -> None:
    path, model = saved(tmp_path, stem=stem)
    found = load_pretrained(path, image_size=24).model
    assert found.config.grid == (6, 6)
    assert_same_bits(found.patch_embed.proj.weight, model.patch_embed.proj.weight)
    with pytest.raises(ValueError, match="expected patch_size=4, as the arrays in"):
        load_pretrained(path, patch_size=8)
    for target in ("torchvision", "timm"):
        with pytest.raises(ValueError, match=f"stem='{stem}'"):
            convert(path, target, tmp_path / "out.safetensors")
    convert(path, "numpyvit", tmp_path / "out.npz")
    again = load_pretrained(tmp_path / "out.npz").model
    assert again.config == model.config
    for name, array in model.state_dict().items():
        assert_same_bits(again.state_dict()[name], array)


def test_a_size_that_patches_do_not_divide_is_opened_with_padding(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    assert load_pretrained(path, image_size=18, pad=True).model.config.grid == (5, 5)
    with pytest.raises(ValueError, match="got 18; pad=True"):
        load_pretrained(path, image_size=18)


def test_pictures_cannot_be_prepared_for_oblong_images(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    with pytest.raises(ValueError, match=r"square images, as pictures are cut .*got 8 x 16 pixels"):
        load_pretrained(path, image_size=(8, 16))
    path, _ = saved(tmp_path, image_size=(8, 16))
    with pytest.raises(ValueError, match=r"square images, as pictures are cut .*got 8 x 16 pixels"):
        load_pretrained(path)
