"""Images and patches that are no squares, padding and stems, in whole models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit import Tensor, create_model, functional, gradients, nn
from numpyvit.models import (
    INITIALIZATIONS,
    Labelling,
    MAEConfig,
    MaskedAutoencoder,
    VisionTransformer,
    ViTConfig,
    cosine_filters,
    count_multiply_adds,
    count_parameters,
    load_model,
    save_model,
)
from numpyvit.nn import sincos_positions
from numpyvit.optim import AdamW
from numpyvit.weights import resized

STEMS = ("patches", "overlapping", "convolutions", "hybrid")
OBLONG = ViTConfig(
    image_size=(12, 16),
    patch_size=(4, 2),
    num_classes=5,
    embed_dim=16,
    depth=2,
    num_heads=2,
)

each_stem = pytest.mark.parametrize("stem", STEMS)


def small(seed: int = 0, **changes: Any) -> VisionTransformer:
    return VisionTransformer(OBLONG.replace(**changes), rng=np.random.default_rng(seed))


def images(count: int = 2, shape: tuple[int, int] = (12, 16), seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, *shape)).astype("float32")


def test_sizes_are_one_number_or_two_and_squares_are_always_one() -> None:
    assert (OBLONG.image_shape, OBLONG.patch_shape, OBLONG.grid) == ((12, 16), (4, 2), (3, 8))
    assert (OBLONG.num_patches, OBLONG.num_tokens, OBLONG.patch_values) == (24, 25, 24)
    square = OBLONG.replace(image_size=(16, 16), patch_size=[4, 4])
    assert (square.image_size, square.patch_size) == (16, 4)
    assert (square.image_shape, square.patch_shape, square.grid) == ((16, 16), (4, 4), (4, 4))
    assert square == OBLONG.replace(image_size=16, patch_size=4)
    assert ViTConfig.from_dict(json.loads(json.dumps(OBLONG.to_dict()))) == OBLONG


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (12, 15)}, r"multiple of patch_size \(4, 2\), got \(12, 15\); pad=True"),
        ({"patch_size": 5}, "multiple of patch_size 5"),
        ({"image_size": (12, 16, 3)}, r"a whole number, or height and width, as image_size, got"),
        ({"image_size": (12, 16.0)}, "as image_size, got"),
        ({"image_size": ()}, "as image_size, got"),
        ({"patch_size": (4, 0)}, "'patch_size' must be positive but got 0"),
        ({"image_size": (16, 16386)}, r"image_size <= 16384, got \(16, 16386\)"),
        ({"stem": "overlaping"}, "unknown stem 'overlaping'; did you mean 'overlapping'"),
        ({"stem": "hybrid", "patch_bias": False}, "patch_bias=True with stem='hybrid'"),
    ],
)
def test_a_size_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OBLONG.replace(**changes)


@each_stem
def test_a_padded_image_is_the_same_as_one_filled_up_with_zeros(stem: str) -> None:
    small_images, whole = images(shape=(11, 13)), np.zeros((2, 3, 12, 16), "float32")
    whole[:, :, :11, :13] = small_images
    padded = small(stem=stem, image_size=(11, 13), patch_size=4, pad=True)
    assert padded.config.grid == (3, 4)
    assert_same_bits(padded(small_images), small(stem=stem, patch_size=4)(whole))


@each_stem
def test_parameters_and_multiply_adds_are_counted_for_every_stem(stem: str) -> None:
    config = OBLONG.replace(stem=stem)
    model = small(stem=stem)
    assert count_parameters(config) == model.num_parameters()
    others = count_multiply_adds(config.replace(num_classes=0, depth=1))
    others += count_multiply_adds(config) - count_multiply_adds(config.replace(num_classes=0))
    block = count_multiply_adds(config) - others
    width, tokens = 16, 25
    assert block == tokens * 12 * width**2 + 2 * tokens**2 * width
    assert others - block == model.patch_embed.multiply_adds + 5 * width


@each_stem
def test_a_stem_on_cifar_has_the_same_grid_and_learns(stem: str) -> None:
    off = {"dropout": 0.0, "attention_dropout": 0.0}
    model = create_model("vit_cifar_patch4_32", stem=stem, depth=1, **off)
    INITIALIZATIONS["structured"](model, np.random.default_rng(0))
    assert model.patch_embed.grid == model.config.grid == (8, 8)
    x, labels = images(16, (32, 32)), np.arange(16) % 10
    optimizer = AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        loss = functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3


@each_stem
def test_a_model_of_oblong_images_is_saved_and_loaded(stem: str, tmp_path: Path) -> None:
    model = small(stem=stem).eval()
    labelling = Labelling(class_names=tuple("abcde"))
    save_model(tmp_path / "model.npz", "oblong", model, labelling)
    loaded = load_model(tmp_path / "model.npz").model
    assert loaded.config == model.config
    assert_same_bits(loaded(images()), model(images()))


@pytest.mark.parametrize("positions", ["all", "patches"])
def test_a_model_takes_images_of_another_size(positions: str) -> None:
    model = small(positions=positions, class_token=positions == "all", pooling="avg").eval()
    other = resized(model, (8, 20))
    assert other.config.grid == (2, 10)
    assert not other.training
    assert other(images(shape=(8, 20))).shape == (2, 5)
    assert other.patch_embed.proj.weight.data is model.patch_embed.proj.weight.data
    assert_same_bits(resized(model, (12, 16))(images()), model(images()))
    first = model.config.num_positions - model.config.num_patches
    assert_same_bits(other.pos_embed.data[:, :first], model.pos_embed.data[:, :first])
    model.pos_embed.data[:, first:] = 0.5
    assert_close(resized(model, 16).pos_embed.data[:, first:], np.full((1, 32, 16), 0.5, "float32"))


def test_a_model_of_another_precision_keeps_it_at_another_size() -> None:
    model = small().to("float64")
    other = resized(model, 8)
    assert {parameter.dtype for parameter in other.parameters()} == {np.dtype("float64")}
    assert other(images(shape=(8, 8)).astype("float64")).dtype == np.float64


def test_an_oblong_image_needs_no_patches_of_its_form() -> None:
    model = small(patch_size=4)
    assert model.config.grid == (3, 4)
    with pytest.raises(ValueError, match=r"images \(B, 3, 12, 16\), got \(2, 3, 16, 12\)"):
        model(images(shape=(16, 12)))


@each_stem
def test_structured_weights_fit_every_stem(stem: str) -> None:
    model = small(stem=stem)
    before = model.patch_embed.proj.weight.data.copy()
    INITIALIZATIONS["structured"](model, np.random.default_rng(0))
    after = model.patch_embed.proj.weight.data
    if stem in ("patches", "overlapping"):
        assert_same_bits(after, cosine_filters(3, after.shape[2:])[:16])
    else:
        assert_same_bits(after, before)
    assert_same_bits(model.pos_embed.data[0, 1:], sincos_positions((3, 8), 16).astype("float32"))


def test_cosine_filters_of_oblong_patches_are_a_basis_slow_ones_first() -> None:
    filters = cosine_filters(3, (4, 2)).reshape(24, 24)
    assert_close(filters @ filters.T, np.eye(24, dtype="float32"))
    changes = np.abs(np.diff(cosine_filters(1, (4, 2)), axis=2)).sum((1, 2, 3))
    assert changes.argmin() == 0
    assert_close(cosine_filters(1, (4, 2))[0], np.full((1, 4, 2), 8**-0.5, "float32"))


def test_sincos_positions_of_a_grid_are_those_of_a_larger_square_cut_out() -> None:
    square = sincos_positions(8, 16).reshape(8, 8, 16)
    assert_same_bits(sincos_positions((3, 8), 16).reshape(3, 8, 16), square[:3])
    assert_same_bits(sincos_positions((8, 3), 16).reshape(8, 3, 16), square[:, :3])


def test_a_masked_autoencoder_of_oblong_images_puts_patches_back_where_they_were() -> None:
    config = MAEConfig(encoder=OBLONG, decoder_embed_dim=8, decoder_depth=1, decoder_num_heads=2)
    model = MaskedAutoencoder(config, rng=np.random.default_rng(0))
    x = Tensor(images())
    assert model.patchify(x).shape == (2, 24, 24)
    assert_same_bits(model.unpatchify(model.patchify(x)), x)
    first = x.data[0, :, 4:8, 2:4].transpose(1, 2, 0).ravel()  # row 1, column 1
    assert_same_bits(model.patchify(x).data[0, 9], first)
    assert np.isfinite(model(x).loss.item())
    with pytest.raises(ValueError, match="encoder with stem='patches', got 'hybrid'"):
        config.replace(stem="hybrid")


@each_stem
def test_a_frozen_stem_is_not_walked_through(stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small(stem=stem)
    model.patch_embed.requires_grad_(False)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(trained) == len(model.parameters()) - len(model.patch_embed.parameters())
    assert model.patch_embed(Tensor(images())).requires_grad is False
    assert all(np.isfinite(g).all() for g in gradients(model(images()).sum(), trained))
    assert isinstance(model.patch_embed, nn.Stem)
