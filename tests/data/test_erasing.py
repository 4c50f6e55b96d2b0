from __future__ import annotations

import numpy as np
import pytest
from tolerances import assert_same_bits

from numpyvit.data import RandomErasing


def erased(erasing, count=400, size=(24, 20), seed=0, dtype="float32"):
    """Which pixels (B, H, W) were replaced, and the pictures, which were all 7 before."""
    images = np.full((count, 3, *size), 7, dtype)
    images.flags.writeable = False
    result = erasing(images, np.random.default_rng(seed))
    return (result != 7).any(1), result


@pytest.mark.parametrize("fill", ["pixel", "color", "zero"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_seeds_decide_and_inputs_are_never_written_to(fill, dtype):
    erasing = RandomErasing(0.5, fill=fill, max_count=2)
    _, first = erased(erasing, dtype=dtype)
    assert_same_bits(erased(erasing, dtype=dtype)[1], first)
    assert first.dtype == dtype
    assert not np.array_equal(erased(erasing, dtype=dtype, seed=1)[1], first)
    assert len(erasing(np.zeros((1, 1, 8, 8), dtype), np.random.default_rng(0))) == 1


def test_a_share_of_the_pictures_loses_one_rectangle():
    where, _ = erased(RandomErasing(0.3, fill="zero"), 4000)
    hit = where.any((1, 2))
    assert abs(hit.mean() - 0.3) < 0.03
    for picture in where[hit][:200]:
        rows, columns = np.flatnonzero(picture.any(1)), np.flatnonzero(picture.any(0))
        assert picture.sum() == len(rows) * len(columns)
        assert rows[-1] - rows[0] + 1 == len(rows)
        assert columns[-1] - columns[0] + 1 == len(columns)
    assert not erased(RandomErasing(0.0))[0].any()
    assert_same_bits(where[~hit].any(), np.False_)


def test_boxes_lie_inside_and_follow_scale_and_ratio(rng):
    erasing = RandomErasing(scale=(0.1, 0.3), min_ratio=0.5)
    top, left, height, width = erasing.boxes(np.ones(8000), 200, 100, rng).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height).max() == 200
    assert (left + width).max() == 100
    area, ratio = height * width / 20000, height / width
    assert 0.098 < area.min() < 0.105
    assert 0.295 < area.max() < 0.305
    assert 0.48 < ratio.min() < 0.52
    assert 1.9 < ratio.max() < 2.1
    narrow = area < 0.2  # where every ratio fits, none is favoured
    assert abs(np.log(ratio[narrow]).mean()) < 0.03


def test_what_never_fits_is_left_out():
    erasing = RandomErasing(1.0, scale=(1.0, 1.0), min_ratio=1.0, fill="zero")
    assert not erased(erasing, size=(8, 8))[0].any()


def test_several_rectangles_share_the_area(rng):
    erasing = RandomErasing(1.0, scale=(0.3, 0.3), max_count=4, fill="zero")
    where, _ = erased(erasing, 2000, (64, 64))
    assert where.mean((1, 2)).max() < 0.32
    assert 0.2 < where.mean() < 0.3  # rectangles of one picture may overlap
    single = erasing.boxes(np.full(100, 0.25), 64, 64, rng)
    assert (np.abs(single[:, 2] * single[:, 3] / 4096 - 0.075) < 0.01).all()


def test_noise_fits_the_kind_of_numbers():
    where, result = erased(RandomErasing(1.0))
    noise = result.transpose(0, 2, 3, 1)[where]
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    where, result = erased(RandomErasing(1.0), dtype="uint8")
    noise = result.transpose(0, 2, 3, 1)[where]
    assert abs(noise.mean() - 127.5) < 2
    assert (noise.min(), noise.max()) == (0, 255)


def test_a_colour_is_one_for_each_channel_of_a_rectangle():
    where, result = erased(RandomErasing(1.0, fill="color"), 50)
    colors = set()
    for picture, mask in zip(result, where, strict=True):
        for channel in picture:
            assert len(set(channel[mask].tolist())) == 1
            colors.add(channel[mask][0])
    assert len(colors) == 150
    where, result = erased(RandomErasing(1.0, fill="zero"))
    assert not result.transpose(0, 2, 3, 1)[where].any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomErasing(1.5), "p from 0 to 1, got 1.5"),
        (lambda: RandomErasing(scale=(0.0, 0.3)), "0 < low <= high <= 1"),
        (lambda: RandomErasing(scale=(0.5,)), "0 < low <= high <= 1"),
        (lambda: RandomErasing(scale=(0.5, 0.3)), "0 < low <= high <= 1"),
        (lambda: RandomErasing(min_ratio=0), "0 < min_ratio <= 1"),
        (lambda: RandomErasing(fill="pixels"), "did you mean 'pixel'"),
        (lambda: RandomErasing(max_count=0), "at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
