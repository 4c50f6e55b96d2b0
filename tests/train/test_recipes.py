from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit.train import RECIPES, Recipe, recipe

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# What each source says; what it does not name is off.
PUBLISHED = {
    "tutorial": {
        "epochs": 15,
        "batch_size": 256,
        "lr": 1e-3,
        "weight_decay": 1e-2,
        "beta2": 0.999,
        "decay_vectors": True,
        "schedule": "constant",
        "warmup_epochs": 0,
        "dropout": 0.1,
        "initialization": "timm",
        "crop_padding": 0,
        "crop_scale": 0.8,
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
    },
    # Table 9, and of the authors' code: the crops' scale and mixup's switching.
    "deit": {
        "epochs": 300,
        "batch_size": 1024,
        "lr": 5e-4 * 1024 / 512,
        "weight_decay": 0.05,
        "beta2": 0.999,
        "warmup_epochs": 5,
        "label_smoothing": 0.1,
        "drop_path": 0.1,
        "initialization": "timm",
        "crop_padding": 0,
        "crop_scale": 0.08,
        "randaugment": 9,
        "randaugment_std": 0.5,
        "random_erasing": 0.25,
        "mixup": 0.8,
        "cutmix": 1.0,
        "mixing_probability": 1.0,
        "switch_probability": 0.5,
        "repeats": 3,
        **IMAGENET,
    },
    # Defaults of the authors' code; each of its epochs has 3 passes over the data.
    "cifar_long": {
        "epochs": 100 * 3,
        "batch_size": 128,
        "lr": 1e-3,
        "weight_decay": 0.05,
        "beta2": 0.999,
        "decay_vectors": True,
        "warmup_epochs": 10 * 3,
        "label_smoothing": 0.1,
        "drop_path": 0.1,
        "crop_padding": 4,
        "randaugment": 9,
        "random_erasing": 0.25,
        "mixup": 1.0,
        "cutmix": 1.0,
        "mixing_probability": 0.5,
        "switch_probability": 0.5,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_has_the_published_settings(name):
    fields = dataclasses.asdict(recipe(name))
    assert fields.pop("source")
    off = dataclasses.asdict(Recipe())
    assert fields == {key: PUBLISHED[name].get(key, off[key]) for key in fields}


def test_nothing_but_flips_and_crops_is_on_unless_it_is_asked_for():
    assert Recipe().augmentation == ["flips", "crops from a border of 2"]
    assert Recipe().regularization == []


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_where_it_comes_from(name):
    assert recipe(name) is not None
    assert recipe(name).source


def test_overrides_replace_fields_and_leave_the_table_alone():
    changed = recipe("tutorial", lr=5e-3, epochs=2)
    assert (changed.lr, changed.epochs, changed.batch_size) == (5e-3, 2, 256)
    assert recipe("tutorial").lr == 1e-3
    with pytest.raises(dataclasses.FrozenInstanceError):
        changed.lr = 1.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: recipe("tutorail"), "unknown recipe 'tutorail'; did you mean 'tutorial'"),
        (lambda: recipe("default", learning_rte=1), "unknown option 'learning_rte'; .*known: "),
        (lambda: recipe("default", batchsize=1), "did you mean 'batch_size'"),
        (lambda: Recipe(schedule="cosin"), "unknown schedule 'cosin'; did you mean 'cosine'"),
        (lambda: Recipe(initialization="tim"), "initialization 'tim'; did you mean 'timm'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest_one(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("batch_size", -5),
        ("lr", 0.0),
        ("lr", -1e-3),
        ("lr", np.nan),
        ("lr", np.inf),
        ("weight_decay", -0.1),
        ("weight_decay", np.nan),
        ("warmup_epochs", -1),
        ("clip_norm", -1.0),
        ("clip_norm", np.nan),
        ("crop_padding", -1),
        ("crop_scale", 0.0),
        ("crop_scale", 1.5),
        ("layer_decay", 0.0),
        ("layer_decay", 1.5),
        ("drop_path", 1.0),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("label_smoothing", 1.0),
        ("label_smoothing", -0.1),
        ("ema_decay", 1.0),
        ("ema_decay", -0.1),
        ("mixup", -0.1),
        ("mixup", np.nan),
        ("cutmix", np.inf),
        ("mixing_probability", 1.1),
        ("switch_probability", -0.1),
        ("random_erasing", 1.1),
        ("randaugment", 10.1),
        ("randaugment", -1),
        ("randaugment_std", -0.5),
        ("randaugment_ops", 1.5),
        ("repeats", 0),
        ("repeats", 1.5),
        ("repeats", Recipe().batch_size),
        ("beta2", 1.0),
        ("beta2", -0.1),
        ("std", (0.2, 0.0, 0.2)),
        ("std", (0.2, -0.2, 0.2)),
        ("std", (0.2, 0.2)),
        ("std", ()),
        ("mean", (np.nan, 0.5, 0.5)),
        ("mean", ("a",)),
        ("std", (0.2, np.inf, 0.2)),
        ("flip", "no"),
        ("decay_vectors", "false"),
        ("epochs", True),
        ("dropout", "0.1"),
        ("lr", "0.1"),
        ("source", 3),
    ],
)
def test_values_of_another_kind_or_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"^\[Recipe\] .*{field}"):
        Recipe(**{field: value})


@pytest.mark.parametrize("name", RECIPES)
def test_the_training_transform_gives_float32_of_the_models_size(name, rng):
    images = rng.integers(0, 256, (5, 3, 32, 32), np.uint8)
    before = images.copy()
    transform = recipe(name).train_transform(32)
    result = transform(images, np.random.default_rng(1))
    assert result.shape == (5, 3, 32, 32)
    assert result.dtype == np.float32
    assert_same_bits(transform(images, np.random.default_rng(1)), result)
    other = transform(images, np.random.default_rng(2))
    assert np.array_equal(other, result) == (not recipe(name).augments)
    assert_same_bits(images, before)


def test_the_training_transform_stays_within_the_range_of_pixels(rng):
    images = rng.integers(0, 256, (20, 3, 32, 32), np.uint8)
    settings = recipe("tutorial", crop_padding=2)
    result = settings.train_transform(32)(images, rng)
    assert -1.001 < result.min() < result.max() < 1.001


def test_a_crop_comes_out_in_the_size_that_is_asked_for(rng):
    images = rng.integers(0, 256, (2, 3, 48, 48), np.uint8)
    assert recipe("tutorial").train_transform(32)(images, rng).shape == (2, 3, 32, 32)


def test_without_augmentation_only_the_normalisation_is_left(rng):
    images = rng.integers(0, 256, (5, 3, 32, 32), np.uint8)
    settings = Recipe(flip=False, crop_padding=0, crop_scale=1.0)
    result = settings.train_transform(32)(images, rng)
    assert_same_bits(result, settings.normalize()(images, rng))
    mean, std = (np.array(values)[:, None, None] for values in (settings.mean, settings.std))
    assert_close(result, (images / 255 - mean) / std, np.float32)


def test_every_part_that_is_asked_for_is_said_in_words():
    settings = recipe("cifar_long", repeats=3, ema_decay=0.99, crop_scale=0.5)
    assert settings.augmentation == [
        "flips",
        "crops from a border of 4",
        "resized crops of 0.5 or more",
        "RandAugment 9",
        "random erasing 0.25",
        "mixup 1 or cutmix 1 in 50% of the batches",
        "each picture 3 times",
    ]
    assert settings.regularization == ["label smoothing 0.1", "drop path 0.1", "ema decay 0.99"]


@pytest.mark.parametrize("part", ["randaugment", "random_erasing", "mixup", "cutmix"])
def test_each_part_alone_changes_pictures_of_one_or_three_channels(part, rng):
    for channels in (1, 3):
        settings = Recipe(
            flip=False, crop_padding=0, mean=(0.5,) * channels, std=(0.5,) * channels, **{part: 1.0}
        )
        assert settings.augments
        images = rng.integers(0, 256, (8, channels, 32, 32), np.uint8)
        plain = settings.normalize()(images, rng)
        changed = settings.train_transform(32)(images, rng)
        if mixing := settings.mixing(4):
            assert_same_bits(changed, plain)
            changed, _ = mixing(changed, np.arange(8) % 4, rng)
        assert changed.dtype == np.float32
        assert not np.array_equal(changed, plain)


def test_what_randaugment_brings_in_from_outside_is_the_mean(rng):
    settings = recipe("deit", crop_scale=1.0, flip=False, random_erasing=0, randaugment=10)
    white = np.full((200, 3, 32, 32), 255, np.uint8)
    corners = settings.train_transform(32)(white, rng)[:, :, 0, 0]
    mean = np.rint(255 * np.array(settings.mean)).astype(np.uint8)
    outside = settings.normalize()(mean[None, :, None, None], rng)[0, :, 0, 0]
    assert (corners == outside).all(1).sum() > 5


def test_randaugment_sees_whole_numbers_after_a_resized_crop(rng):
    settings = recipe("deit", flip=False, random_erasing=0, randaugment_ops=0)
    images = rng.integers(0, 256, (4, 3, 48, 48), np.uint8)
    mean, std = (np.array(values)[:, None, None] for values in (settings.mean, settings.std))
    pixels = (settings.train_transform(32)(images, rng) * std + mean) * 255
    assert_close(pixels.astype(np.float32), np.rint(pixels), np.float32)


def test_a_flip_alone_gives_each_image_or_its_mirror(rng):
    images = rng.integers(0, 256, (20, 3, 8, 8), np.uint8)
    settings = Recipe(crop_padding=0)
    plain = settings.normalize()(images, rng)
    flipped = 0
    for image, result in zip(plain, settings.train_transform(8)(images, rng), strict=True):
        mirrored = np.array_equal(result, image[:, :, ::-1])
        assert mirrored or np.array_equal(result, image)
        flipped += mirrored
    assert 0 < flipped < 20
