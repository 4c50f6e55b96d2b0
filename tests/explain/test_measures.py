from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit import create_model
from numpyvit.explain import (
    attention_distance,
    attention_entropy,
    draw_positions,
    filter_images,
    measure_heads,
    model_filters,
    model_positions,
    patch_filters,
    position_similarity,
)
from numpyvit.models import VisionTransformer, ViTConfig
from numpyvit.nn import sincos_positions

SIDE, PATCHES = 3, 9


def attention(rng: np.random.Generator, prefix: int) -> np.ndarray:
    tokens = prefix + PATCHES
    return rng.dirichlet(np.ones(tokens), (2, 4, tokens))


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize("rescale", [True, False])
def test_distance_is_the_mean_way_between_patches_weighted_by_attention(
    rng: np.random.Generator, prefix: int, rescale: bool
) -> None:
    weights = attention(rng, prefix)
    expected = np.zeros((2, 4))
    for image, head in np.ndindex(2, 4):
        for asking in range(PATCHES):
            row = weights[image, head, prefix + asking, prefix:]
            for asked, weight in enumerate(row / row.sum() if rescale else row):
                away = math.dist(divmod(asking, SIDE), divmod(asked, SIDE))
                expected[image, head] += weight * 16 * away / PATCHES
    assert_close(attention_distance(weights, 16, prefix, rescale=rescale), expected)


def test_even_attention_reaches_as_far_as_two_patches_lie_apart(dtype: np.dtype) -> None:
    even = np.full((1, 2, 1 + PATCHES, 1 + PATCHES), 1 / (1 + PATCHES), dtype)
    places = [divmod(patch, SIDE) for patch in range(PATCHES)]
    mean = np.mean([math.dist(a, b) for a in places for b in places])
    assert_close(attention_distance(even, 4), np.full((1, 2), 4 * mean), dtype)
    part = PATCHES / (1 + PATCHES)  # the rest goes to the class token
    unscaled = attention_distance(even, 4, rescale=False)
    assert_close(unscaled, np.full((1, 2), 4 * mean * part), dtype)


def test_attention_to_oneself_reaches_nowhere_and_has_no_entropy() -> None:
    alone = np.eye(PATCHES)[None, None]
    assert_same_bits(attention_distance(alone, 16, 0), np.zeros((1, 1)))
    assert_same_bits(np.abs(attention_entropy(alone, 0)), np.zeros((1, 1)))


def test_the_entropy_of_even_attention_is_the_logarithm_of_the_patches(dtype: np.dtype) -> None:
    even = np.full((2, 3, 5 + PATCHES, 5 + PATCHES), 1 / (5 + PATCHES), dtype)
    assert_close(attention_entropy(even, 5), np.full((2, 3), math.log(PATCHES)), dtype)


def test_entropy_is_that_of_the_rows_between_patches(rng: np.random.Generator) -> None:
    weights = attention(rng, 2)
    inner = weights[..., 2:, 2:] / weights[..., 2:, 2:].sum(-1, keepdims=True)
    expected = -(inner * np.log(inner)).sum(-1).mean(-1)
    assert_close(attention_entropy(weights, 2), expected)


@pytest.mark.parametrize("count", [1, 6])
def test_a_models_heads_are_measured_on_the_average_of_images(
    rng: np.random.Generator, count: int
) -> None:
    model = create_model("vit_cifar_patch4_32", num_registers=3).to(np.float64).eval()
    images = rng.standard_normal((count, 3, 32, 32))
    measures = measure_heads(model, images)
    maps = model(images, return_attention=True).attention
    expected = [attention_distance(block.numpy(), 4, 4).mean(0) for block in maps]
    assert_close(measures.distance, np.array(expected))
    assert_close(
        measures.entropy, np.array([attention_entropy(b.numpy(), 4).mean(0) for b in maps])
    )
    assert measures.even_entropy == math.log(64)
    even = attention_distance(np.full((1, 1, 64, 64), 1 / 64), 4, 0)
    assert_close(np.array([[measures.even_distance]]), even)


def test_attention_without_patches_is_an_error(rng: np.random.Generator) -> None:
    weights = attention(rng, 0)
    with pytest.raises(ValueError, match="expected more tokens than the 9 in front, got 9"):
        attention_entropy(weights, 9)
    with pytest.raises(ValueError, match="expected as many patches as a square has, got 8"):
        attention_distance(weights, 16, 1)


@pytest.mark.parametrize("prefix", [0, 1, 2, 5, 7])
def test_positions_in_front_are_left_out_by_number(rng: np.random.Generator, prefix: int) -> None:
    positions = rng.standard_normal((1, prefix + PATCHES, 6))
    expected = position_similarity(positions[:, prefix:])
    assert_same_bits(position_similarity(positions, prefix), expected)


def test_sixteen_tokens_may_be_nine_patches_and_seven_in_front(rng: np.random.Generator) -> None:
    positions = rng.standard_normal((16, 6))
    assert position_similarity(positions).shape == (4, 4, 4, 4)
    assert position_similarity(positions, 7).shape == (3, 3, 3, 3)


def tiny(positions: str) -> VisionTransformer:
    config = ViTConfig(
        image_size=(16, 24), patch_size=4, embed_dim=16, depth=3, num_heads=2, positions=positions
    )
    return VisionTransformer(config)


@pytest.mark.parametrize("where", ["all", "patches"])
def test_the_positions_of_a_model_are_those_of_its_patches(where: str) -> None:
    model = create_model(
        "vit_cifar_patch4_32", distillation_token=True, num_registers=2, positions=where
    )
    positions = model.pos_embed.data
    expected = position_similarity(positions[:, -64:], 0)
    assert_same_bits(model_positions(model).maps, expected)


@pytest.mark.parametrize("form", ["sincos", "sincos_mae"])
def test_fixed_positions_are_compared_as_learned_ones_are(form: str) -> None:
    found = model_positions(tiny(form))
    waves = sincos_positions((4, 6), 16, "mae" if form == "sincos_mae" else "big_vision")
    assert_same_bits(found.maps, position_similarity(waves, 0, (4, 6)))
    assert (found.down, found.across) == ("row of the patch", "column of the patch")


def test_a_relative_bias_is_shown_from_the_middle_patch_by_block_and_head() -> None:
    model = tiny("relative")
    found = model_positions(model)
    assert found.maps.shape == (3, 2, 4, 6)
    assert (found.down, found.across) == ("block", "head")
    table = model.blocks[1].attn.rel_pos.relative_position_bias_table.data[:, 1]
    table = table[:-3].reshape(7, 11)  # by rows, then columns that lie between query and key
    for row, column in np.ndindex(4, 6):
        assert found.maps[1, 1, row, column] == table[2 - row + 3, 3 - column + 5]


def test_rotary_positions_are_alike_by_the_mean_cosine_of_the_turn_between_them() -> None:
    found = model_positions(tiny("rotary"))
    rates = np.array([1, 0.1])  # 100^(-i/2), heads being 8 wide
    for row, column, other_row, other_column in np.ndindex(4, 6, 4, 6):
        turns = [*((column - other_column) * rates), *((row - other_row) * rates)]
        expected = np.cos(turns).mean()
        assert_close(found.maps[row, column, other_row, other_column], expected)


@pytest.mark.parametrize("positions", ["sincos", "relative", "rotary"])
def test_positions_of_every_kind_are_drawn(positions: str, tmp_path: Path) -> None:
    draw_positions(model_positions(tiny(positions)), tmp_path / "positions.png")
    assert (tmp_path / "positions.png").stat().st_size > 2000


def test_a_model_without_positions_says_so() -> None:
    with pytest.raises(ValueError, match="got one without positions"):
        model_positions(tiny("none"))


def test_filters_are_rebuilt_from_all_their_components(rng: np.random.Generator) -> None:
    weight = rng.standard_normal((7, 3, 4, 4))
    components, explained = patch_filters(weight)
    flat = components.reshape(len(components), -1)
    assert components.shape == (7, 3, 4, 4)
    assert_close(flat @ flat.T, np.eye(7))
    centred = (weight - weight.mean(0)).reshape(7, -1)
    assert_close(centred @ flat.T @ flat, centred)
    assert_close(explained, ((centred @ flat.T) ** 2).sum(0) / (centred**2).sum(), scale=1.0)
    assert (np.diff(explained) <= 0).all()


def test_a_planted_component_is_found_up_to_its_sign(rng: np.random.Generator) -> None:
    planted = rng.standard_normal((1, 1, 4, 4))
    planted /= np.linalg.norm(planted)
    weight = rng.standard_normal((20, 1, 1, 1)) * planted + 5
    for sign in (1, -1):
        components, explained = patch_filters(sign * weight, 1)
        largest = planted.flat[np.abs(planted).argmax()]
        assert_close(components, planted * np.sign(largest))
        assert_close(explained, np.ones(1))


def test_as_many_components_come_as_are_asked_for(dtype: np.dtype) -> None:
    model = create_model("vit_cifar_patch4_32").to(dtype)
    filters = model_filters(model)
    assert filters.components.shape == (28, 3, 4, 4)
    assert filters.components.dtype == dtype
    few = model_filters(model, 5)
    assert_same_bits(few.components, filters.components[:5])
    assert_same_bits(few.explained, filters.explained[:5])


def test_filters_are_stretched_to_the_whole_range_of_grey(rng: np.random.Generator) -> None:
    shown = filter_images(rng.standard_normal((4, 3, 2, 2)))
    assert_same_bits(shown.min((1, 2, 3)), np.zeros(4))
    assert_same_bits(shown.max((1, 2, 3)), np.ones(4))
    assert_same_bits(filter_images(np.ones((1, 3, 2, 2))), np.zeros((1, 3, 2, 2)))


def test_filters_of_another_form_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"expected filters \(D, C, P, P\), got shape \(3, 4\)"):
        patch_filters(np.ones((3, 4)))
    with pytest.raises(ValueError, match="expected at least 1 component, got 0"):
        patch_filters(np.ones((2, 3, 4, 4)), 0)
