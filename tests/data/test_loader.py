from __future__ import annotations

import threading

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit.data import ArrayDataset, Compose, Loader, Normalize, RandomCrop, RandomResizedCrop

TRANSFORM = Compose([RandomCrop(2), RandomResizedCrop(8, flip=0.5), Normalize()])


@pytest.fixture
def dataset(rng):
    images = rng.integers(0, 256, (23, 3, 8, 8), np.uint8)
    images[:, 0, 0, 0] = np.arange(23)  # tells which picture it is
    return ArrayDataset(images, np.arange(23) % 4)


def batches(loader, epoch=0, start=0):
    return list(loader.epoch(epoch, start))


def assert_same_batches(one, other):
    assert len(one) == len(other)
    for (images, labels), (others, other_labels) in zip(one, other, strict=True):
        assert_same_bits(images, others)
        assert_same_bits(labels, other_labels)


def test_an_epoch_shows_every_picture_once_and_keeps_the_short_batch(dataset):
    loader = Loader(dataset, 5, seed=1)
    epoch = batches(loader)
    assert len(epoch) == len(loader) == 5
    assert [len(labels) for _, labels in epoch] == [5, 5, 5, 5, 3]
    seen = np.rint(np.concatenate([images[:, 0, 0, 0] for images, _ in epoch]) * 255).astype(int)
    assert sorted(seen.tolist()) == list(range(23))
    assert seen.tolist() != sorted(seen.tolist())
    assert_same_bits(np.concatenate([labels for _, labels in epoch]), dataset.labels[seen])


def test_without_shuffling_the_order_is_the_data_sets(dataset):
    labels = np.concatenate([labels for _, labels in batches(Loader(dataset, 4, shuffle=False))])
    assert_same_bits(labels, dataset.labels)


def test_images_are_float32_from_zero_to_one_without_a_transform(dataset):
    images, labels = batches(Loader(dataset, 23, shuffle=False))[0]
    assert labels.dtype == np.int64
    assert_close(images, dataset.images(np.arange(23)) / 255, np.float32)


def test_the_seed_and_the_epoch_decide_everything(dataset):
    first = batches(Loader(dataset, 5, transform=TRANSFORM, seed=3), epoch=2)
    assert_same_batches(first, batches(Loader(dataset, 5, transform=TRANSFORM, seed=3), epoch=2))
    for seed, epoch in ((4, 2), (3, 1)):
        other = batches(Loader(dataset, 5, transform=TRANSFORM, seed=seed), epoch=epoch)
        assert not np.array_equal(first[0][0], other[0][0])


@pytest.mark.parametrize("prefetch", [0, 1, 7])
def test_preparing_ahead_changes_nothing(dataset, prefetch):
    ahead = Loader(dataset, 5, transform=TRANSFORM, seed=3)
    other = Loader(dataset, 5, transform=TRANSFORM, seed=3, prefetch=prefetch)
    assert_same_batches(batches(ahead), batches(other))


@pytest.mark.parametrize("start", [0, 1, 4, 5])
def test_starting_in_mid_epoch_gives_the_same_rest(dataset, start):
    loader = Loader(dataset, 5, transform=TRANSFORM, seed=3)
    assert_same_batches(batches(loader, 1)[start:], batches(loader, 1, start))


def test_the_order_and_the_first_batch_do_not_share_their_randomness(dataset):
    drawn = []
    loader = Loader(
        dataset, 5, transform=lambda images, rng: drawn.append(rng.permutation(23)) or images
    )
    batches(loader, 1)
    assert len(drawn) == 5
    assert not any(np.array_equal(order, loader.order(1)) for order in drawn)


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_in_the_background_is_raised_where_its_batch_is_asked_for(dataset, prefetch):
    calls = iter(range(9))

    def break_on_the_third(images, rng):
        if next(calls) == 2:
            raise ValueError("picture 7 is broken")
        return images

    batch = Loader(dataset, 5, transform=break_on_the_third, prefetch=prefetch).epoch(0)
    next(batch)
    next(batch)
    with pytest.raises(ValueError, match="picture 7 is broken"):
        next(batch)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_leaving_early_stops_the_thread(dataset):
    prepared = []
    loader = Loader(dataset, 1, transform=lambda images, rng: prepared.append(0) or images)
    for _ in loader.epoch(0):
        break
    epoch = loader.epoch(0)
    next(epoch)
    assert [thread for thread in threading.enumerate() if thread.name.startswith("loader")]
    epoch.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]
    assert len(prepared) <= 2 * (1 + loader.prefetch)


def test_the_next_batch_is_prepared_while_this_one_is_used(dataset):
    second = threading.Event()

    calls = iter(range(9))

    def signal(images, rng):
        if next(calls) == 1:
            second.set()
        return images

    epoch = Loader(dataset, 5, transform=signal).epoch(0)
    next(epoch)
    assert second.wait(timeout=10)
    epoch.close()


def test_a_batch_larger_than_the_data_is_refused_with_both_numbers(dataset):
    with pytest.raises(ValueError, match=r"at most the 23 pictures .*, got 24"):
        Loader(dataset, 24)


@pytest.mark.parametrize(
    "settings",
    [{"batch_size": 0}, {"batch_size": 1, "seed": -1}, {"batch_size": 1, "prefetch": -1}],
)
def test_settings_out_of_range_are_refused(dataset, settings):
    with pytest.raises(ValueError, match=r"\[Loader\] expected"):
        Loader(dataset, **settings)


@pytest.mark.parametrize("place", [(-1, 0), (0, -1), (0, 6)])
def test_an_epoch_out_of_range_is_refused_at_once(dataset, place):
    with pytest.raises(ValueError, match="start_batch from 0 to 5"):
        Loader(dataset, 5).epoch(*place)
