from __future__ import annotations

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit.data import resize_images, resize_matrix

SIZES = [((32, 32), (32, 32)), ((32, 32), (17, 45)), ((13, 50), (32, 32)), ((7, 9), (1, 2))]


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [True, False])
def test_resizing_agrees_with_pytorch(torch, rng, dtype, before, after, mode, antialias):
    images = rng.normal(size=(2, 3, *before)).astype(dtype)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(images), after, mode=mode, antialias=antialias, align_corners=False
    )
    assert_close(resize_images(images, after, mode=mode, antialias=antialias), expected, dtype)


def test_nearest_agrees_with_pytorch(torch, rng):
    images = rng.normal(size=(2, 3, 9, 14))
    expected = torch.nn.functional.interpolate(torch.from_numpy(images), (5, 31), mode="nearest")
    assert_close(resize_images(images, (5, 31), mode="nearest"), expected)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [True, False])
def test_the_weights_of_every_pixel_sum_to_one(mode, antialias):
    matrix = resize_matrix(
        20, 7, mode=mode, antialias=antialias, start=[0, 3.5], length=[20, 9.2], dtype=np.float64
    )
    assert matrix.shape == (2, 7, 20)
    assert_close(matrix.sum(-1), np.ones((2, 7)))


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_keeping_the_size_changes_nothing(mode):
    assert_same_bits(resize_matrix(6, 6, mode=mode), np.eye(6, dtype=np.float32))


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_a_window_sees_nothing_outside_itself(antialias, mode):
    whole = resize_matrix(30, 8, mode=mode, antialias=antialias, start=[4, 11], length=[20, 5])
    for matrix, start, length in zip(whole, (4, 11), (20, 5), strict=True):
        alone = resize_matrix(length, 8, mode=mode, antialias=antialias)
        assert_same_bits(matrix[:, start : start + length].copy(), alone)
        assert matrix[:, :start].any() == matrix[:, start + length :].any() == np.False_


def test_a_constant_row_stays_constant():
    row = np.full((1, 1, 1, 11), 3.25)
    assert_close(resize_images(row, (4, 23)), np.full((1, 1, 4, 23), 3.25))


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="mode out of"):
        resize_matrix(3, 3, mode="lanczos")
    with pytest.raises(ValueError, match="positive sizes, got source=0"):
        resize_matrix(0, 3)
    with pytest.raises(ValueError, match="positive length"):
        resize_matrix(3, 3, length=0)
