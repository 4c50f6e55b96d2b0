from __future__ import annotations

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit.models import INITIALIZATIONS, create_model
from numpyvit.models.initialization import cosine_filters
from numpyvit.nn import Linear, sincos_positions

CIFAR = "vit_cifar_patch4_32"


def started(name, how="structured", seed=0, **overrides):
    model = create_model(name, seed=seed, **overrides)
    INITIALIZATIONS[how](model, np.random.default_rng(seed))
    return model


def weights_of(attention):
    """Queries and keys (H, K, D), values and projection (D, D), in float64."""
    width = attention.proj.weight.shape[0]
    q, k, v = attention.qkv.weight.data.astype(float).reshape(3, width, width)
    heads = (attention.num_heads, -1, width)
    return q.reshape(heads), k.reshape(heads), v, attention.proj.weight.data.astype(float)


def diagonal_and_rest(product):
    """Mean of the diagonal, and deviation of the values beside it."""
    beside = product[~np.eye(len(product), dtype=bool)]
    return product.diagonal().mean(), beside.std()


@pytest.mark.parametrize("how", INITIALIZATIONS)
def test_it_changes_no_name_shape_dtype_or_count(how):
    plain, model = create_model(CIFAR), started(CIFAR, how)
    assert model.num_parameters() == 119_098
    for (name, before), (other, after) in zip(
        plain.state_dict().items(), model.state_dict().items(), strict=True
    ):
        assert name == other
        assert (before.shape, before.dtype) == (after.shape, after.dtype)
        assert np.isfinite(after).all()


@pytest.mark.parametrize("how", INITIALIZATIONS)
def test_the_seed_decides_the_weights(how):
    one, same, other = (started(CIFAR, how, seed).state_dict() for seed in (3, 3, 4))
    for name, array in one.items():
        assert_same_bits(array, same[name])
    assert not np.array_equal(one["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])


def test_the_structured_start_reaches_every_attention_and_mlp_of_a_block():
    model = started(CIFAR, block="parallel_things", depth=1)
    (block,) = model.blocks
    for attention in block.attns:
        _, _, value, projection = weights_of(attention["attn"])
        assert diagonal_and_rest(value.T @ projection.T)[0] < -0.2
    for mlp in block.ffns:
        deviation = mlp["mlp"].fc2.weight.data.std()
        assert abs(deviation * 192**0.5 - 0.5) < 0.05


def test_timms_start_has_weights_of_deviation_0_02_and_biases_of_0():
    model = started("vit_tiny_patch16_224", "timm", depth=2)
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            weights = module.weight.data
            assert abs(weights.mean()) < 0.001, name
            assert 0.016 < weights.std() < 0.019, name  # 0.02 cut off at two deviations
            assert np.abs(weights).max() <= 0.0401
            assert not module.bias.data.any()


# Of a head's K directions the strongest of 0.7 noise + 0.7 identity are kept, so the diagonal of
# one head is about 0.7 K/D and more; over many seeds the mean is a number, not a matter of luck.
@pytest.mark.parametrize(("name", "share"), [(CIFAR, 12 / 48), ("vit_tiny_patch16_224", 1 / 3)])
def test_queries_and_keys_start_near_the_identity(name, share):
    model = started(name, depth=2)
    for block in model.blocks:
        queries, keys, _, _ = weights_of(block.attn)
        for q, k in zip(queries, keys, strict=True):
            assert np.linalg.matrix_rank(q.T @ k) == q.shape[0]
            mean, rest = diagonal_and_rest(q.T @ k)
            assert 0.7 * share < mean < 0.7
            assert mean > 2 * rest


def test_all_directions_of_a_single_head_give_noise_and_identity_of_0_7():
    model = started("vit_tiny_patch16_224", depth=2, num_heads=1)
    queries, keys, _, _ = weights_of(model.blocks[1].attn)
    mean, rest = diagonal_and_rest(queries[0].T @ keys[0])
    assert mean == pytest.approx(0.7, rel=0.05)
    assert rest == pytest.approx(0.7 / np.sqrt(192), rel=0.05)


@pytest.mark.parametrize("name", [CIFAR, "vit_tiny_patch16_224"])
def test_values_and_projection_start_near_minus_the_identity(name):
    model = started(name, depth=2)
    for block in model.blocks:
        _, _, v, proj = weights_of(block.attn)
        mean, rest = diagonal_and_rest(v.T @ proj.T)
        assert mean == pytest.approx(-0.4, rel=0.1)
        assert rest == pytest.approx(0.4 / np.sqrt(len(v)), rel=0.1)


def test_heads_and_blocks_start_different():
    model = started(CIFAR)
    queries = [weights_of(block.attn)[0] for block in model.blocks]
    heads = np.concatenate(queries)
    for i, one in enumerate(heads):
        for other in heads[:i]:
            assert not np.allclose(one, other)


@pytest.mark.parametrize(("channels", "patch"), [(1, 2), (1, 4), (3, 2), (3, 4), (3, 16), (4, 3)])
def test_the_filters_are_an_orthonormal_basis_of_patches(channels, patch):
    size = channels * patch * patch
    filters = cosine_filters(channels, patch)
    assert filters.shape == (size, channels, patch, patch)
    flat = filters.reshape(size, size)
    assert_close(flat @ flat.T, np.eye(size, dtype=np.float32))


def test_the_first_filters_are_the_mean_of_each_colour_and_high_frequencies_come_last():
    filters = cosine_filters(3, 4).astype(float)
    means = filters.sum((2, 3))
    assert_close(np.abs(means[0]), np.full(3, 4 / np.sqrt(3)), scale=1e3)
    assert (np.abs(means[:3]).max(1) > 0.1).all()
    assert (np.abs(means[3:]) < 1e-6).all()
    roughness = np.square(np.diff(filters, axis=2)).sum((1, 2, 3))
    roughness += np.square(np.diff(filters, axis=3)).sum((1, 2, 3))
    assert roughness[:9].max() < roughness[-9:].min()


def test_the_filters_are_cosines():
    filters = cosine_filters(1, 4)[:, 0]
    found = {tuple(np.round(filter_.ravel(), 4)) for filter_ in filters}
    for u in range(4):
        for v in range(4):
            scale = np.sqrt((1 if u == 0 else 2) * (1 if v == 0 else 2)) / 4
            rows, columns = (np.cos(np.pi * (2 * np.arange(4) + 1) * n / 8) for n in (u, v))
            wave = scale * np.outer(rows, columns)
            near = min(np.abs(np.array(filter_) - wave.ravel()).max() for filter_ in found)
            assert near < 1e-4


@pytest.mark.parametrize(("grid", "width"), [(1, 4), (8, 48), (3, 8), (14, 192)])
def test_positions_are_sines_and_cosines_by_the_formula(grid, width):
    quarter = width // 4
    expected = np.zeros((grid * grid, width))
    for row in range(grid):
        for column in range(grid):
            for i in range(quarter):
                frequency = 10000 ** (-i / quarter)
                token = expected[row * grid + column]
                token[i] = np.sin(column * frequency)
                token[quarter + i] = np.cos(column * frequency)
                token[2 * quarter + i] = np.sin(row * frequency)
                token[3 * quarter + i] = np.cos(row * frequency)
    assert_close(sincos_positions(grid, width), expected)


def test_near_positions_are_more_alike_than_far_ones():
    positions = sincos_positions(8, 48)
    alike = positions @ positions.T
    assert (alike.argmax(1) == np.arange(64)).all()
    assert alike[0, 1] > alike[0, 4] > 0
    assert alike[0, 8] > alike[0, 32] > 0


@pytest.mark.parametrize("width", [1, 6, 50])
def test_positions_need_a_width_that_4_divides(width):
    with pytest.raises(ValueError, match=f"a width that 4 divides, 4 at least, got {width}"):
        sincos_positions(4, width)


def test_the_structured_start_puts_filters_and_positions_where_they_belong():
    model = started(CIFAR)
    positions = model.pos_embed.data[0]
    assert not positions[0].any()
    ratio = positions[1:] / np.where(sincos_positions(8, 48) == 0, np.nan, sincos_positions(8, 48))
    assert np.nanstd(ratio) < 1e-6  # a multiple of them
    assert_same_bits(model.patch_embed.proj.weight.data, cosine_filters(3, 4)[:48])
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            assert not parameter.data.any(), name


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("vit_tiny_patch16_224", {"depth": 2}),
        ("vit_tiny_patch16_224", {"depth": 1, "image_size": 32, "patch_size": 16}),
        (CIFAR, {"in_channels": 1}),
        (CIFAR, {"in_channels": 4}),
        (CIFAR, {"patch_size": 2, "image_size": 8}),  # 12 filters for 48 channels
        (CIFAR, {"qkv_bias": False}),
        (CIFAR, {"num_heads": 48}),
        (CIFAR, {"num_heads": 1, "num_classes": 2, "mlp_ratio": 0.5}),
    ],
)
@pytest.mark.parametrize("how", INITIALIZATIONS)
def test_other_sizes_start_with_finite_logits(how, name, overrides, rng):
    model = started(name, how, **overrides).eval()
    config = model.config
    shape = (2, config.in_channels, config.image_size, config.image_size)
    logits = model(rng.standard_normal(shape, np.float32))
    assert logits.shape == (2, config.num_classes)
    assert np.isfinite(logits.numpy()).all()


@pytest.mark.parametrize("how", INITIALIZATIONS)
def test_a_model_in_float64_stays_one_and_starts_with_the_same_values(how):
    double = create_model(CIFAR).to("float64")
    INITIALIZATIONS[how](double, np.random.default_rng(0))
    for name, array in started(CIFAR, how).state_dict().items():
        assert double.state_dict()[name].dtype == np.float64
        assert_close(double.state_dict()[name].astype(np.float32), array)
