"""Mixup and CutMix beside their definitions, written out picture by picture."""

from __future__ import annotations

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit import functional
from numpyvit.data import ArrayDataset, Loader, Mixing, RandomErasing
from numpyvit.data.mixing import cutmix_boxes, one_hot

CLASSES = 7


def batch(rng, count=6, dtype="float32"):
    images = rng.standard_normal((count, 3, 10, 8)) if dtype != "uint8" else None
    images = rng.integers(0, 256, (count, 3, 10, 8)) if images is None else images
    images = images.astype(dtype)
    images.flags.writeable = False
    return images, rng.integers(0, CLASSES, count)


@pytest.mark.parametrize("mode", ["batch", "pair"])
@pytest.mark.parametrize("count", [1, 2, 5, 6])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
@pytest.mark.parametrize("alphas", [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)], ids=str)
def test_seeds_decide_and_inputs_are_never_written_to(mode, count, dtype, alphas, rng):
    images, labels = batch(rng, count, dtype)
    labels.flags.writeable = False
    mixing = Mixing(CLASSES, mixup_alpha=alphas[0], cutmix_alpha=alphas[1], mode=mode)
    mixed, targets = mixing(images, labels, np.random.default_rng(1))
    again, targets_again = mixing(images, labels, np.random.default_rng(1))
    assert_same_bits(mixed, again)
    assert_same_bits(targets, targets_again)
    assert mixed.dtype == images.dtype
    assert mixed.shape == images.shape
    assert targets.dtype == np.float32
    assert_close(targets.sum(1), np.ones(count), np.float32)
    assert (targets >= 0).all()


@pytest.mark.parametrize("mode", ["batch", "pair"])
def test_mixup_blends_pictures_and_labels_by_the_same_share(mode, rng):
    mixing = Mixing(CLASSES, cutmix_alpha=0, mode=mode)
    labels = np.array([0, 1, 2, 3, 4, 5])
    images, _ = batch(rng)
    shares = set()
    for seed in range(20):
        mixed, targets = mixing(images, labels, np.random.default_rng(seed))
        for i in range(6):
            partner = 5 - i
            share = targets[i, i]
            expected = share * images[i] + (1 - share) * images[partner]
            assert_close(mixed[i], expected, np.float32)
            assert_close(targets[i, partner], 1 - share)
        assert_same_bits(np.diag(targets)[:3], np.diag(targets)[:2:-1])
        drawn = len(set(np.diag(targets).tolist()))
        assert drawn == (1 if mode == "batch" else 3)
        shares |= set(np.diag(targets).tolist())
    assert min(shares) < 0.2 < 0.8 < max(shares)


@pytest.mark.parametrize("mode", ["batch", "pair"])
def test_cutmix_pastes_one_box_and_counts_its_pixels(mode, rng):
    mixing = Mixing(CLASSES, mixup_alpha=0, mode=mode)
    images, labels = batch(rng)[0], np.array([0, 1, 2, 3, 4, 5])
    for seed in range(30):
        mixed, targets = mixing(images, labels, np.random.default_rng(seed))
        boxes = set()
        for i in range(6):
            foreign = (mixed[i] != images[i]).all(0)
            assert_same_bits(mixed[i][:, foreign], images[5 - i][:, foreign])
            assert_same_bits(mixed[i][:, ~foreign], images[i][:, ~foreign])
            rows, columns = np.flatnonzero(foreign.any(1)), np.flatnonzero(foreign.any(0))
            assert foreign.sum() == len(rows) * len(columns)
            for side in (rows, columns):
                assert (np.diff(side) == 1).all()
            assert_close(targets[i, i], 1 - foreign.sum() / 80, np.float32)
            boxes.add((*rows[:1], *columns[:1], foreign.sum()))
        assert len(boxes) <= (1 if mode == "batch" else 3)


def test_a_box_has_the_sides_that_the_share_asks_for_unless_the_border_cuts_it(rng):
    share = rng.beta(1, 1, 4000)
    top, left, bottom, right = cutmix_boxes(share, (40, 20), rng).T
    high, wide = np.floor(40 * np.sqrt(1 - share)), np.floor(20 * np.sqrt(1 - share))
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (bottom <= 40).all()
    assert (right <= 20).all()
    inside = (top > 0) & (bottom < 40)
    assert ((bottom - top)[inside] == high[inside]).all()
    assert (bottom - top <= high).all()
    assert (right - left <= wide).all()
    assert inside.sum() > 1000


def test_a_share_of_one_leaves_an_empty_box_and_of_zero_a_whole_one_at_the_centre():
    boxes = cutmix_boxes(np.array([1.0, 0.0]), (1, 1), np.random.default_rng(0))
    assert (boxes[0, :2] == boxes[0, 2:]).all()
    assert boxes[1].tolist() == [0, 0, 1, 1]


def test_shares_follow_the_beta_distribution(rng):
    mixing = Mixing(2, mixup_alpha=0.4, cutmix_alpha=0, mode="pair")
    images, labels = np.zeros((8000, 1, 1, 1), np.float32), np.repeat([0, 1], 4000)
    shares = mixing(images, labels, rng)[1][:4000, 0]
    assert abs(shares.mean() - 0.5) < 0.02
    assert abs(shares.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.005


def test_probabilities_say_how_often_and_which(rng):
    images, labels = np.zeros((4000, 1, 32, 32), np.float32), np.repeat([0, 1], 2000)
    images[2000:] = 1
    mixing = Mixing(2, probability=0.6, switch_probability=0.25, mode="pair")
    mixed, targets = mixing(images, labels, rng)
    blended = ((mixed > 0) & (mixed < 1)).any((1, 2, 3))[:2000]
    cut = (mixed[:2000] == 1).any((1, 2, 3)) & ~blended
    assert abs(blended.mean() - 0.45) < 0.04
    assert abs(cut.mean() - 0.15) < 0.03
    assert_same_bits(
        targets[:2000][~(blended | cut)][:, 0] == 1, np.full((~(blended | cut)).sum(), True)
    )
    whole = Mixing(2, probability=0.0)(images, labels, rng)
    assert_same_bits(whole[0], images)
    assert_same_bits(whole[1], np.eye(2, dtype=np.float32)[labels])


def test_the_picture_in_the_middle_of_an_odd_batch_stays_itself(rng):
    images, labels = batch(rng, 5)
    for mode in ("batch", "pair"):
        for seed in range(5):
            mixed, targets = Mixing(CLASSES, mode=mode)(images, labels, np.random.default_rng(seed))
            assert_close(mixed[2], images[2])
            assert_close(targets[2], np.eye(CLASSES)[labels[2]], np.float32)


def test_whole_numbers_are_rounded(rng):
    images, _ = batch(rng, 2, "uint8")
    mixed, targets = Mixing(CLASSES, cutmix_alpha=0)(images, np.array([0, 1]), rng)
    exact = targets[0, 0] * images[0].astype(float) + targets[0, 1] * images[1].astype(float)
    assert np.abs(mixed[0] - exact).max() < 0.51


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothing_here_or_in_the_loss_is_the_same(smoothing, rng):
    images, labels = batch(rng)
    logits = rng.standard_normal((6, CLASSES)).astype(np.float32)
    here = Mixing(CLASSES, label_smoothing=smoothing)(images, labels, np.random.default_rng(2))[1]
    plain = Mixing(CLASSES)(images, labels, np.random.default_rng(2))[1]
    one = functional.cross_entropy(logits, here)
    other = functional.cross_entropy(logits, plain, label_smoothing=smoothing)
    assert_close(one, other)


def test_one_hot_smooths_towards_all_classes():
    result = one_hot(np.array([1, 0]), 4, 0.2)
    expected = [[0.05, 0.85, 0.05, 0.05], [0.85, 0.05, 0.05, 0.05]]
    assert_close(result, np.array(expected), np.float32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixup_alpha": 0, "cutmix_alpha": 0}, "one of them above 0"),
        ({"mixup_alpha": -1}, "at least 0"),
        ({"probability": 1.5}, "probability from 0 to 1"),
        ({"switch_probability": -0.1}, "switch_probability"),
        ({"label_smoothing": 2}, "label_smoothing"),
        ({"mode": "pairs"}, "did you mean 'pair'"),
        ({"num_classes": 0}, "at least 1 class"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Mixing(**{"num_classes": 3, **settings})


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_labels_that_are_no_classes_are_refused(labels, rng):
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        Mixing(3)(np.zeros((2, 1, 4, 4), np.float32), np.array(labels), rng)


@pytest.mark.parametrize("labels", [[0.0, 1.0], np.eye(2, 3), [[0, 1]]], ids=str)
def test_labels_that_are_no_whole_numbers_are_refused(labels, rng):
    with pytest.raises(
        ValueError, match=r"\[one_hot\] expected whole numbers \(B,\) as labels, got"
    ):
        Mixing(3)(np.zeros((2, 1, 4, 4), np.float32), np.array(labels), rng)


def test_a_label_for_each_picture_is_needed(rng):
    with pytest.raises(ValueError, match=r"\[Mixing\] expected a label for each of 2 .*, got 3"):
        Mixing(3)(np.zeros((2, 1, 4, 4), np.float32), np.arange(3), rng)


def test_a_loader_mixes_last_and_the_same_wherever_one_starts(rng):
    data = ArrayDataset(rng.integers(0, 256, (11, 3, 8, 8), np.uint8), np.arange(11) % CLASSES)
    settings = {"transform": RandomErasing(0.5), "mixing": Mixing(CLASSES), "seed": 3}
    whole = list(Loader(data, 4, **settings).epoch(1))
    rest = list(Loader(data, 4, **settings, prefetch=0).epoch(1, 1))
    assert [targets.shape for _, targets in whole] == [(4, CLASSES), (4, CLASSES), (3, CLASSES)]
    for (images, targets), (others, other_targets) in zip(whole[1:], rest, strict=True):
        assert_same_bits(images, others)
        assert_same_bits(targets, other_targets)
        assert images.dtype == np.float32
        assert images.max() <= 1
    # The mixing draws after the transform, so that switching it on leaves that alone.
    plain = Loader(data, 4, transform=RandomErasing(0.5), seed=3)
    same = Loader(data, 4, **{**settings, "mixing": Mixing(CLASSES, probability=0)})
    for (images, labels), (others, targets) in zip(plain.epoch(0), same.epoch(0), strict=True):
        assert_same_bits(images, others)
        assert_same_bits(targets.argmax(1), labels)


def test_repeated_pictures_stand_in_a_row_and_the_epoch_keeps_its_length(rng):
    images = rng.integers(0, 256, (23, 3, 8, 8), np.uint8)
    loader = Loader(ArrayDataset(images, np.arange(23)), 5, repeats=3, transform=RandomErasing(1.0))
    order = loader.order(0)
    single = Loader(ArrayDataset(images, np.arange(23)), 5).order(0)
    assert len(order) == 23
    assert_same_bits(order, np.repeat(single, 3)[:23])
    assert not np.array_equal(order, loader.order(1))
    first, labels = next(iter(loader.epoch(0)))
    assert labels[0] == labels[1] == labels[2] != labels[3]
    assert not np.array_equal(first[0], first[1])
    with pytest.raises(ValueError, match="repeats of at least 1, got 0"):
        Loader(ArrayDataset(images, np.arange(23)), 5, repeats=0)
    with pytest.raises(ValueError, match="shuffle=True with repeats=3, got False"):
        Loader(ArrayDataset(images, np.arange(23)), 5, repeats=3, shuffle=False)
