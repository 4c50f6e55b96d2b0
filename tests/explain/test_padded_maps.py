"""Maps of models that fill images up to whole patches: what is drawn is the image's part alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit.cli import main
from numpyvit.explain import (
    Sheet,
    draw_maps,
    explain,
    possible_methods,
    resize_attention,
    without_padding,
)
from numpyvit.models import Labelling, SwinConfig, ViTConfig, build_model, save_model

PADDED = ViTConfig(
    image_size=(12, 16), patch_size=5, pad=True, num_classes=3, embed_dim=12, depth=2, num_heads=3
)


def test_a_map_of_a_padded_image_is_spread_over_all_patches_and_cut(rng) -> None:
    model = build_model(PADDED, rng=rng).eval()
    images = rng.standard_normal((2, 3, 12, 16)).astype(np.float32)
    maps = explain(model, images, "rollout")
    assert maps.shape == (2, 3, 4)
    cut = without_padding(maps, model)
    assert cut.shape == (2, 12, 16)
    assert_same_bits(cut, resize_attention(maps, (15, 20))[:, :12, :16])
    assert_close(cut[:, 2, 2], maps[:, 0, 0])  # the middle of a patch stays where it is
    assert_close(cut[:, 7, 12], maps[:, 1, 2])


@pytest.mark.parametrize("config", [ViTConfig(image_size=16, patch_size=4), SwinConfig()])
def test_maps_of_other_models_stay_as_they_are(config, rng) -> None:
    maps = rng.random((1, 2, 2))
    assert without_padding(maps, build_model(config, rng=rng)) is maps


def test_the_commands_maps_are_cut(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    model = build_model(PADDED.replace(image_size=16), rng=rng)
    save_model(tmp_path / "m.npz", "padded", model, Labelling(class_names=("a", "b", "c")))
    image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "a.png")
    drawn: list[tuple[int, ...]] = []
    monkeypatch.setattr(
        draw_maps, "overlay", lambda pixels, maps: drawn.append(maps.shape) or pixels
    )
    monkeypatch.setattr(Sheet, "save", lambda sheet, path: Path(path).write_bytes(b""))
    words = ["attention", str(tmp_path / "a.png"), "--weights", str(tmp_path / "m.npz")]
    assert main([*words, "--method", "all", "--out", str(tmp_path / "maps")]) == 0
    assert drawn == [(1, 16, 16)] * len(possible_methods(model))
