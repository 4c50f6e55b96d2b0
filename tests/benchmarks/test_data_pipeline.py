from __future__ import annotations

import numpy
import pytest

from benchmarks import data
from numpyvit.data import Loader
from numpyvit.models import ViTConfig
from numpyvit.models.variants import VARIANTS
from numpyvit.train import Recipe

TINY = ViTConfig(
    image_size=8, patch_size=4, num_classes=10, embed_dim=8, depth=1, num_heads=2, final_norm=False
)


def test_epochs_take_turns_between_the_loader_and_prepared_batches():
    loader = Loader(data.random_images(10, 8), 4, seed=1)
    watched = data.WatchedLoader(loader)
    assert len(watched) == 3
    for epoch, origin in ((0, 0), (1, 0), (2, 2), (3, 0)):
        for found, expected in zip(watched.epoch(epoch), loader.epoch(origin), strict=True):
            for one, other in zip(found, expected, strict=True):
                assert numpy.array_equal(one, other)
    assert len(watched.waits) == 4
    assert watched.waits[2] > watched.waits[1]


def test_a_training_tells_its_epochs_and_waits(monkeypatch):
    monkeypatch.setitem(VARIANTS, "vit_test_patch4_8", TINY)
    recipe = Recipe(batch_size=5, epochs=1)
    images = data.random_images(20, 8)
    seconds, waits = data.trained(recipe, images, 2, model="vit_test_patch4_8", workers=1)
    assert [len(values) for values in seconds.values()] == [2, 2]
    assert len(waits) == 2
    for wait, epoch in zip(waits, seconds[data.LOADING], strict=True):
        assert 0 < wait < epoch


def test_the_augmentation_sees_every_image_in_batches():
    sizes = []
    found = data.augmentation(
        lambda images, rng: sizes.append(len(images)) or images, data.random_images(10, 8), 4, 2
    )
    assert len(found) == 2
    assert sizes == [4, *[4, 4, 2] * 2]


def test_rows_hold_the_share_that_the_trainer_waits(monkeypatch):
    seconds = {data.PREPARED: [1.0, 1.0], data.LOADING: [2.0, 2.0]}
    monkeypatch.setattr(data, "trained", lambda *_: (seconds, [0.5, 0.5]))
    rows = data.measure("test", Recipe(batch_size=5), data.random_images(10, 8), 2)
    waiting = {row["contender"]: row["waiting_percent"] for row in rows}
    assert waiting == {data.PREPARED: None, data.LOADING: pytest.approx(25), data.ALONE: None}
    assert [row["images_per_second"] for row in rows[:2]] == [10, 5]
