"""Maps, measures and pictures of models whose images or patches are no squares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit.explain import (
    METHODS,
    attention_distance,
    class_attention,
    draw_filters,
    draw_heads,
    draw_methods,
    draw_positions,
    explain,
    measure_heads,
    model_filters,
    model_positions,
    overlay,
    patch_grid,
    patch_map,
    position_similarity,
)
from numpyvit.models import VisionTransformer, ViTConfig

CONFIG = ViTConfig(
    image_size=(12, 16),
    patch_size=(6, 4),
    num_classes=5,
    embed_dim=12,
    depth=2,
    num_heads=3,
    num_registers=2,
)
GRID = (2, 4)


def tiny(**changes: object) -> VisionTransformer:
    model = VisionTransformer(CONFIG.replace(**changes), rng=np.random.default_rng(1))
    for parameter in model.to("float64").parameters():
        parameter.data *= 10  # so that attention is far from even
    return model.eval()


def pictures(rng: np.random.Generator, count: int = 2) -> np.ndarray:
    return rng.standard_normal((count, 3, 12, 16))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("pooling", ["token", "avg"])
def test_every_method_maps_the_grid(rng: np.random.Generator, method: str, pooling: str) -> None:
    maps = explain(tiny(pooling=pooling), pictures(rng), method)
    assert maps.shape == (2, *GRID)
    assert np.isfinite(maps).all()


def test_a_square_number_of_patches_is_not_taken_for_a_square(rng: np.random.Generator) -> None:
    model = tiny(image_size=(6, 16), patch_size=(6, 4))
    maps = explain(model, rng.standard_normal((1, 3, 6, 16)), "attention")
    assert model.config.num_patches == 4
    assert maps.shape == (1, 1, 4)


def test_a_map_is_the_row_of_the_weights_row_by_row(rng: np.random.Generator) -> None:
    model, images = tiny(), pictures(rng)
    weights = model(images, return_attention=True).attention[1].numpy()
    expected = weights[:, :, 0, 3:].reshape(2, 3, *GRID)
    assert_same_bits(class_attention(model, images, 1), expected)


@pytest.mark.parametrize("stem", ["overlapping", "convolutions", "hybrid"])
def test_models_with_other_stems_are_explained(rng: np.random.Generator, stem: str) -> None:
    model = tiny(stem=stem, patch_size=4)
    assert explain(model, pictures(rng), "relevance").shape == (2, 3, 4)
    width = model.patch_embed.pixel_filters.weight.shape[1:]
    assert model_filters(model, 3).components.shape == (3, *width)


def test_distances_are_in_pixels_down_and_across(rng: np.random.Generator) -> None:
    model, images = tiny(), pictures(rng)
    centres = [np.array([6.0 * row, 4.0 * column]) for row in range(2) for column in range(4)]
    weights = model(images, return_attention=True).attention[0].numpy()[:, :, 3:, 3:]
    weights = weights / weights.sum(-1, keepdims=True)
    expected = np.zeros((2, 3))
    for (b, h, q, k), weight in np.ndenumerate(weights):
        expected[b, h] += weight * np.linalg.norm(centres[q] - centres[k]) / 8
    assert_close(attention_distance(weights, (6, 4), 0, grid=GRID), expected)
    assert_close(measure_heads(model, images).distance[0], expected.mean(0))


def test_positions_are_compared_on_their_grid() -> None:
    model = tiny()
    found = model_positions(model).maps
    assert found.shape == (*GRID, *GRID)
    assert_same_bits(found, position_similarity(model.pos_embed.data, 3, GRID))
    assert_same_bits(found[1, 2, 0, 3], found.reshape(8, 8)[6, 3])


def test_a_grid_that_does_not_fit_is_an_error() -> None:
    assert patch_grid(8, GRID) == GRID
    with pytest.raises(ValueError, match="as many patches as 2 x 4, got 9"):
        patch_grid(9, GRID)
    with pytest.raises(ValueError, match="as many patches as 2 x 4, got 6"):
        patch_map(np.ones((9, 9)), np.eye(9)[0], 3, GRID)


def test_an_oblong_map_brightens_its_part_of_an_oblong_picture() -> None:
    picture = np.full((1, 60, 160, 3), 100, np.uint8)
    lit = np.zeros((1, *GRID))
    lit[0, 1, 3] = 1
    brightness = overlay(picture, lit)[0].astype(float).sum(-1)
    parts = brightness.reshape(2, 30, 4, 40).mean((1, 3))
    assert np.unravel_index(parts.argmax(), GRID) == (1, 3)


@pytest.mark.parametrize("grid", [(2, 4), (20, 2), (1, 36), (17, 3)])
def test_pictures_of_oblong_grids_are_drawn(
    tmp_path: Path, rng: np.random.Generator, grid: tuple[int, int]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[full]'")
    positions = rng.standard_normal((grid[0] * grid[1], 6))
    draw_positions(position_similarity(positions, 0, grid), tmp_path / "positions.png")
    images, maps = rng.random((1, 3, 24, 40)), rng.random((1, *grid))
    draw_methods(images, {"rollout": maps}, ["an image"], tmp_path / "methods.png")
    draw_heads(images[0], np.concatenate([maps, maps]), tmp_path / "heads.png")
    draw_filters(model_filters(tiny(), 5), tmp_path / "filters.png")
    assert len(list(tmp_path.iterdir())) == 4
