from __future__ import annotations

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit.data import (
    Compose,
    Normalize,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToFloat,
    ToUint8,
    resized_crops,
)

ALL = [
    Normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]),
    ToFloat(),
    RandomHorizontalFlip(),
    RandomCrop(3),
    RandomCrop(3, mode="reflect"),
    RandomResizedCrop(9),
    Resize((5, 7)),
    Resize((20, 7), mode="bicubic"),
]


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (6, 3, 12, 14), np.uint8)


@pytest.mark.parametrize("transform", ALL, ids=repr)
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_inputs_are_never_written_to_and_seeds_decide(images, transform, kind):
    images = images.astype(kind)
    images.flags.writeable = False
    first = transform(images, np.random.default_rng(4))
    assert_same_bits(transform(images, np.random.default_rng(4)), first)
    assert first.dtype in (np.uint8, np.float32)


@pytest.mark.parametrize("transform", ALL, ids=repr)
def test_a_batch_of_one_works(images, transform):
    assert len(transform(images[:1], np.random.default_rng(0))) == 1


def test_normalize_is_scale_shift_and_division(images, rng):
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.4, 0.5, 0.6])
    expected = (images / 255 - mean[:, None, None]) / std[:, None, None]
    result = Normalize(mean.tolist(), std.tolist())(images, rng)
    assert_close(result, expected, np.float32)
    as_float = ToFloat()(images, rng)
    assert_close(Normalize(mean.tolist(), std.tolist())(as_float, rng), expected, np.float32)


def test_to_float_ends_at_zero_and_one(rng):
    ends = np.array([0, 255], np.uint8).reshape(1, 1, 1, 2)
    assert_close(ToFloat()(ends, rng), np.array([0.0, 1.0]).reshape(1, 1, 1, 2), np.float32)


def test_normalize_refuses_a_wrong_number_of_channels(images, rng):
    with pytest.raises(ValueError, match="expected 1 or 3 values for mean, got 2"):
        Normalize([0.5, 0.5])(images, rng)


@pytest.mark.parametrize("dtype", ["int64", "uint16", "bool"])
def test_normalize_refuses_whole_numbers_that_are_not_uint8(images, rng, dtype):
    with pytest.raises(TypeError, match=f"got {dtype}; convert them"):
        Normalize()(images.astype(dtype), rng)


def test_the_flip_mirrors_whole_pictures_about_half_of_the_time(images):
    many = np.concatenate([images] * 200)
    flipped = RandomHorizontalFlip()(many, np.random.default_rng(0))
    mirrored = (flipped == many[..., ::-1]).all((1, 2, 3))
    kept = (flipped == many).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 0.45 < mirrored.mean() < 0.55
    assert_same_bits(RandomHorizontalFlip(0.0)(images, np.random.default_rng(0)), images)
    assert_same_bits(RandomHorizontalFlip(1.0)(images, np.random.default_rng(0)), images[..., ::-1])


@pytest.mark.parametrize("mode", ["zero", "reflect"])
def test_a_padded_crop_is_one_of_the_naive_crops(images, mode):
    crop = RandomCrop(2, mode=mode)
    result = crop(np.concatenate([images] * 60), np.random.default_rng(1))
    name = {"zero": "constant", "reflect": "reflect"}[mode]
    offsets = set()
    for number, picture in enumerate(result):
        padded = np.pad(images[number % 6], ((0, 0), (2, 2), (2, 2)), mode=name)
        found = {
            (y, x)
            for y in range(5)
            for x in range(5)
            if (padded[:, y : y + 12, x : x + 14] == picture).all()
        }
        assert len(found) == 1
        offsets |= found
    assert len(offsets) == 25


@pytest.mark.parametrize("antialias", [True, False])
def test_a_resized_crop_agrees_with_pytorch_on_the_same_box(torch, images, antialias):
    crop = RandomResizedCrop((9, 8), scale=(0.1, 1.0), antialias=antialias)
    boxes = crop.boxes(len(images), 12, 14, np.random.default_rng(3))
    result = crop(images.astype(np.float32), np.random.default_rng(3))
    for picture, (top, left, height, width), image in zip(result, boxes, images, strict=True):
        part = image[None, :, top : top + height, left : left + width].astype(np.float32)
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(part),
            (9, 8),
            mode="bilinear",
            antialias=antialias,
            align_corners=False,
        )
        assert_close(picture[None], expected, np.float32)


def test_a_resized_crop_of_whole_numbers_is_scaled_so_that_normalising_it_is_right(images):
    chain = [RandomResizedCrop(9), Normalize(0.4, 0.3)]
    expected = Compose([ToFloat(), *chain])(images, np.random.default_rng(3))
    assert_same_bits(Compose(chain)(images, np.random.default_rng(3)), expected)
    assert RandomResizedCrop(9)(images, np.random.default_rng(3)).max() <= 1


def test_a_flip_inside_the_crop_is_the_crop_mirrored(images):
    boxes = np.tile([1, 2, 7, 9], (6, 1))
    flips = np.array([True, False] * 3)
    result = resized_crops(images, boxes, (5, 5), flips)
    plain = resized_crops(images, boxes, (5, 5))
    assert_close(result, np.where(flips[:, None, None, None], plain[..., ::-1], plain))


def test_boxes_lie_inside_and_follow_scale_and_ratio(rng):
    boxes = RandomResizedCrop(8, scale=(0.25, 0.75), ratio=(0.5, 2.0)).boxes(4000, 100, 100, rng)
    top, left, height, width = boxes.T
    assert (boxes[:, :2] >= 0).all()
    assert (top + height).max() <= 100
    assert (left + width).max() <= 100
    area, ratio = height * width / 1e4, width / height
    assert 0.24 < area.min() < 0.27
    assert 0.73 < area.max() < 0.76
    # What fits is uniform in area below 0.5, where every ratio fits; and no ratio is favoured.
    assert abs(np.mean(area[area < 0.5]) - 0.375) < 0.01
    assert abs(np.log(ratio).mean()) < 0.03


def test_boxes_that_never_fit_become_the_largest_central_part(rng):
    wide = RandomResizedCrop(8, scale=(4.0, 4.0)).boxes(3, 30, 100, rng)
    assert wide.tolist() == [[0, 30, 30, 40]] * 3
    high = RandomResizedCrop(8, scale=(4.0, 4.0)).boxes(3, 100, 30, rng)
    assert high.tolist() == [[30, 0, 40, 30]] * 3
    square = RandomResizedCrop(8, scale=(4.0, 4.0)).boxes(3, 30, 30, rng)
    assert square.tolist() == [[0, 0, 30, 30]] * 3


def test_resizing_uint8_rounds_and_clips(torch, images, rng):
    result = Resize((30, 31), mode="bicubic")(images, rng)
    exact = torch.nn.functional.interpolate(
        torch.from_numpy(images).double(), (30, 31), mode="bicubic", antialias=True
    ).numpy()
    assert result.dtype == np.uint8
    assert abs(result - exact.clip(0, 255)).max() < 0.501
    assert Resize((12, 14))(images, rng) is images


def test_compose_applies_in_order(images):
    both = Compose([RandomHorizontalFlip(1.0), Normalize(0.5, 0.5)])
    expected = Normalize(0.5, 0.5)(images[..., ::-1], np.random.default_rng(0))
    assert_same_bits(both(images, np.random.default_rng(0)), expected)
    assert "RandomHorizontalFlip(p=1.0), Normalize" in repr(both)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normalize(0.5, 0.0), "positive std"),
        (lambda: RandomHorizontalFlip(1.5), "from 0 to 1"),
        (lambda: RandomCrop(-1), "at least 0, got -1"),
        (lambda: RandomCrop(1, mode="wrap"), "'zero' or 'reflect'"),
        (lambda: RandomResizedCrop(0), "positive size"),
        (lambda: RandomResizedCrop(8, scale=(0.9, 0.5)), "scale as 0 < low <= high"),
        (lambda: Resize((4, -1)), "positive size"),
        (lambda: Resize(4, mode="nearest"), "'bilinear' or 'bicubic'"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_reflection_wider_than_the_picture_is_refused(images, rng):
    with pytest.raises(ValueError, match="padding below the image's side 12"):
        RandomCrop(12, mode="reflect")(images, rng)


def test_floats_become_whole_numbers_again_rounded_and_clipped(rng):
    whole = rng.integers(0, 256, (2, 3, 4, 4), np.uint8)
    assert ToUint8()(whole, rng) is whole
    assert_same_bits(ToUint8()(ToFloat()(whole, rng), rng), whole)
    floats = np.array([-0.1, 0.4 / 255, 0.6 / 255, 1.1], np.float32)
    assert ToUint8()(floats, rng).tolist() == [0, 0, 1, 255]
