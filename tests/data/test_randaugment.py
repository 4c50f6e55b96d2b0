"""RandAugment beside Pillow, operation by operation, and what it draws."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
from tolerances import assert_close, assert_same_bits

from numpyvit.data import RandAugment, affine_images, randaugment
from numpyvit.data.affine import turns
from numpyvit.data.randaugment import CHANGES, PLACES, VARIANTS

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
ImageEnhance = pytest.importorskip("PIL.ImageEnhance")
ImageOps = pytest.importorskip("PIL.ImageOps")

FACTORS = [0.0, 0.1, 0.55, 0.999, 1.0, 1.27, 1.9]
SHAPES = [(3, 12, 17), (1, 9, 8), (3, 2, 5), (3, 40, 50)]


def pillow(image: np.ndarray) -> Any:
    return Image.fromarray(image.transpose(1, 2, 0) if len(image) == 3 else image[0])


def array(picture: Any) -> np.ndarray:
    pixels = np.asarray(picture)
    return pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]


def transform(
    picture: Any, matrix: tuple[float, ...], interpolation: str = "NEAREST", fill: Any = None
) -> Any:
    how = Image.Resampling[interpolation.upper()]
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, how, fillcolor=fill)


def with_pillow(name: str, value: float, picture: Any, how: str = "nearest", fill: Any = 0) -> Any:
    """The operation called `name`, by Pillow."""
    match name:
        case "Identity":
            return picture
        case "AutoContrast" | "Equalize" | "Invert":
            return getattr(ImageOps, name.lower())(picture)
        case "Posterize":
            return ImageOps.posterize(picture, int(value))
        case "Solarize":
            return ImageOps.solarize(picture, value)
        case "SolarizeAdd":
            table = [min(255, x + int(value)) if x < 128 else x for x in range(256)]
            return picture.point(table * len(picture.getbands()))
        case "Rotate":
            return picture.rotate(value, Image.Resampling[how.upper()], fillcolor=fill)
    matrix = {
        "ShearX": (1, value, 0, 0, 1, 0),
        "ShearY": (1, 0, 0, value, 1, 0),
        "TranslateX": (1, 0, -value, 0, 1, 0),
        "TranslateY": (1, 0, 0, 0, 1, -value),
    }.get(name)
    if matrix is not None:
        return transform(picture, matrix, how, fill)
    return getattr(ImageEnhance, name)(picture).enhance(value)


VALUES = {
    "Posterize": [1, 2, 3, 4, 5, 6, 7, 8],
    "Solarize": [0, 1, 17, 128, 204.5, 255, 256],
    "SolarizeAdd": [0, 1, 50, 110, 128],
    "Color": FACTORS,
    "Contrast": FACTORS,
    "Brightness": FACTORS,
    "Sharpness": FACTORS,
    "Rotate": [0, 5, 27.3, 90, -30],
    "ShearX": [0, 0.3, -0.17],
    "ShearY": [0, 0.3, -0.17],
    "TranslateX": [0, 3, -4, 2.7, -0.4, 0.5, -0.4999999, 30],
    "TranslateY": [0, 3, -4, 2.7, -0.4, 0.5, -0.4999999, 30],
}


def pictures(kind: str, shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    if kind == "noise":
        return rng.integers(0, 256, (4, *shape), np.uint8)
    if kind == "one colour":
        return np.full((4, *shape), 77, np.uint8)
    slopes = rng.uniform(0, 6, (4, *shape)).cumsum(-1).cumsum(-2)
    return np.minimum(slopes + 30, 200).astype(np.uint8)


@pytest.mark.parametrize("kind", ["noise", "slopes", "one colour"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CHANGES)
def test_every_change_of_colour_is_pillows_to_the_bit(name, shape, kind, rng):
    images = pictures(kind, shape, rng)
    images.flags.writeable = False
    for value in VALUES.get(name, [0]):
        result = CHANGES[name](images, np.full(4, float(value)))
        expected = [array(with_pillow(name, value, pillow(image))) for image in images]
        assert_same_bits(result, np.stack(expected))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", PLACES)
def test_every_change_of_place_is_pillows_to_the_bit(name, shape, interpolation, rng):
    fill = (124, 116, 104)[: shape[0]]
    for kind in ("noise", "slopes", "one colour"):
        images = pictures(kind, shape, rng)
        for value in VALUES[name]:
            matrices = PLACES[name](np.full(4, float(value)), *shape[1:])
            result = affine_images(images, matrices, interpolation=interpolation, fill=fill)
            given = fill if len(fill) > 1 else fill[0]
            expected = [
                array(with_pillow(name, value, pillow(image), interpolation, given))
                for image in images
            ]
            assert_same_bits(result, np.stack(expected))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_pictures_read_together_are_those_read_one_by_one(interpolation, rng):
    images = rng.integers(0, 256, (9, 3, 40, 64), np.uint8)
    matrices = turns(rng.uniform(-30, 30, 9), 40, 64)
    matrices[3] = [1, 0, 0, 0, 1, 0]
    together = affine_images(images, matrices, interpolation=interpolation)
    alone = [
        affine_images(images[i : i + 1], matrices[i : i + 1], interpolation=interpolation)
        for i in range(9)
    ]
    assert_same_bits(together, np.concatenate(alone))
    view = np.ascontiguousarray(images[..., ::-1])[..., ::-1]
    assert_same_bits(affine_images(view, matrices, interpolation=interpolation), together)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_a_large_picture_turns_as_in_pillow(interpolation, rng):
    images = rng.integers(0, 256, (3, 1, 250, 300), np.uint8)
    angles = rng.uniform(-30, 30, 3)
    result = affine_images(images, turns(angles, 250, 300), interpolation=interpolation)
    expected = [
        array(with_pillow("Rotate", angle, pillow(image), interpolation))
        for angle, image in zip(angles.tolist(), images, strict=True)
    ]
    assert_same_bits(result, np.stack(expected))


def test_each_picture_gets_its_own_value(rng, monkeypatch):
    def one_more_each(levels, side):
        return np.arange(len(levels))

    only = dataclasses.replace(
        VARIANTS["timm"], probability=1.0, fill=0, ranges={"TranslateX": one_more_each}
    )
    monkeypatch.setitem(randaugment.VARIANTS, "timm", only)
    images = rng.integers(0, 256, (8, 3, 9, 12), np.uint8)
    result = RandAugment(1, variant="timm")(images, rng)
    for pixels in range(8):
        assert_same_bits(result[pixels, ..., pixels:], images[pixels, ..., : 12 - pixels])
        assert not result[pixels, ..., :pixels].any()


def test_posterize_to_no_bits_is_black(rng):
    images = rng.integers(0, 256, (2, 3, 4, 4), np.uint8)
    assert not CHANGES["Posterize"](images, np.zeros(2)).any()


# What torchvision 0.28 and timm 1.0.29 ("inc1") give each operation, by level, in pictures with a
# side of 32 pixels.
PUBLISHED = {
    ("torchvision", 9): {
        "ShearX": 0.09,
        "ShearY": 0.09,
        "TranslateX": 4,
        "TranslateY": 4,
        "Rotate": 9,
        "Brightness": 1.27,
        "Color": 1.27,
        "Contrast": 1.27,
        "Sharpness": 1.27,
        "Posterize": 7,
        "Solarize": 178.5,
    },
    ("torchvision", -30): {
        "ShearX": -0.3,
        "TranslateY": -14,
        "Rotate": -30,
        "Color": 0.1,
        "Posterize": 4,
        "Solarize": 0,
    },
    ("timm", 9): {
        "ShearX": 0.27,
        "ShearY": 0.27,
        "TranslateX": 12.96,
        "TranslateY": 12.96,
        "Rotate": 27,
        "Brightness": 1.81,
        "Color": 1.81,
        "Contrast": 1.81,
        "Sharpness": 1.81,
        "Posterize": 1,
        "Solarize": 26,
        "SolarizeAdd": 99,
    },
    ("timm", -10): {
        "Rotate": -30,
        "Color": 0.1,
        "Posterize": 0,
        "Solarize": 0,
        "SolarizeAdd": 110,
        "TranslateX": -14.4,
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_operations_are_the_published_ones(variant):
    names = set(VARIANTS[variant].ranges)
    assert names <= set(CHANGES) | set(PLACES)
    assert len(names) == {"torchvision": 14, "timm": 15}[variant]
    other = set(VARIANTS[{"torchvision": "timm", "timm": "torchvision"}[variant]].ranges)
    extra = {"torchvision": {"Identity"}, "timm": {"Invert", "SolarizeAdd"}}
    assert names - other == extra[variant]


@pytest.mark.parametrize(("variant", "level"), PUBLISHED, ids=str)
def test_levels_mean_what_the_libraries_say(variant, level):
    for name, expected in PUBLISHED[variant, level].items():
        value = VARIANTS[variant].ranges[name](np.array([float(level)]), 32)
        assert_close(value, np.array([float(expected)]), np.float64)


EACH = [
    (variant, name, interpolation)
    for variant in VARIANTS
    for name in VARIANTS[variant].ranges
    for interpolation in ("nearest", "bilinear", "bicubic", "random")
    if name in PLACES or interpolation == "nearest"
]


@pytest.mark.parametrize(("variant", "name", "interpolation"), EACH)
def test_each_picture_gets_its_operation_one_way_or_the_other(
    variant, name, interpolation, rng, monkeypatch
):
    published = VARIANTS[variant]
    only = dataclasses.replace(published, probability=1.0, ranges={name: published.ranges[name]})
    monkeypatch.setitem(randaugment.VARIANTS, variant, only)
    images = rng.integers(0, 256, (16, 3, 14, 11), np.uint8)
    augment = RandAugment(1, 7, variant=variant, interpolation=interpolation, fill=9)
    result = augment(images, np.random.default_rng(1))
    side = 14 if name.endswith("Y") else 11
    values = published.ranges[name](np.array([-7.0, 7.0]), side)
    ways = ["bilinear", "bicubic"] if interpolation == "random" else [interpolation]
    found = set()
    for image, picture in zip(images, result, strict=True):
        matching = {
            (value, how)
            for value in values.tolist()
            for how in ways
            if (array(with_pillow(name, value, pillow(image), how, (9, 9, 9))) == picture).all()
        }
        assert matching
        found |= matching
    assert found == {(value, how) for value in values.tolist() for how in ways}


@pytest.mark.parametrize("variant", VARIANTS)
def test_operations_are_drawn_alike_and_left_out_as_often_as_published(variant, rng, monkeypatch):
    drawn = {}
    published = VARIANTS[variant]

    def counting(name):
        def values_of(levels, side):
            drawn[name] = drawn.get(name, 0) + len(levels)
            return published.ranges[name](levels, side)

        return values_of

    counted = {name: counting(name) for name in published.ranges}
    monkeypatch.setitem(
        randaugment.VARIANTS, variant, dataclasses.replace(published, ranges=counted)
    )
    RandAugment(3, variant=variant)(np.zeros((5000, 1, 2, 2), np.uint8), rng)
    wanted = 15000 * published.probability / len(published.ranges)
    assert drawn.keys() == published.ranges.keys()
    for count in drawn.values():
        assert abs(count - wanted) < 5 * np.sqrt(wanted)


def test_a_standard_deviation_draws_each_level_and_keeps_it_in_range(rng, monkeypatch):
    seen = []

    def watching(levels, side):
        seen.append(levels)
        return 0 * levels

    only = dataclasses.replace(VARIANTS["timm"], probability=1.0, ranges={"Rotate": watching})
    monkeypatch.setitem(randaugment.VARIANTS, "timm", only)
    images = np.zeros((4000, 1, 2, 2), np.uint8)
    RandAugment(1, 9, magnitude_std=0.5, variant="timm")(images, rng)
    RandAugment(1, 9, variant="timm")(images, rng)
    spread, fixed = np.abs(seen[0]), np.abs(seen[1])
    assert (fixed == 9).all()
    assert 0.45 < spread.std() < 0.5
    assert spread.max() == 10
    assert 0.45 < (seen[0] < 0).mean() < 0.55


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", [(9, 3, 16, 12), (1, 3, 8, 8), (5, 1, 8, 8), (0, 3, 8, 8)])
def test_seeds_decide_and_inputs_are_never_written_to(variant, shape, rng):
    images = rng.integers(0, 256, shape, np.uint8)
    images.flags.writeable = False
    augment = RandAugment(2, 9, magnitude_std=0.5, variant=variant)
    first = augment(images, np.random.default_rng(4))
    assert_same_bits(augment(images, np.random.default_rng(4)), first)
    assert first.dtype == np.uint8
    assert first.shape == shape
    if len(images) > 1:
        assert not np.array_equal(augment(images, np.random.default_rng(5)), first)


def test_it_can_go_to_another_process(rng):
    images = rng.integers(0, 256, (9, 3, 8, 8), np.uint8)
    augment = RandAugment(3, 9, variant="timm")
    other = pickle.loads(pickle.dumps(augment))
    expected = augment(images, np.random.default_rng(4))
    assert_same_bits(other(images, np.random.default_rng(4)), expected)


def test_no_operations_and_level_zero_change_little(rng):
    images = rng.integers(0, 256, (30, 3, 8, 8), np.uint8)
    assert_same_bits(RandAugment(0)(images, rng), images)
    still = {"AutoContrast", "Equalize", "Solarize"}  # these have no level, or invert 255 at least
    published = VARIANTS["torchvision"]
    for name in set(published.ranges) - still:
        value = published.ranges[name](np.zeros(30), 8)
        if name in CHANGES:
            assert_same_bits(CHANGES[name](images, value), images)
        else:
            assert_same_bits(affine_images(images, PLACES[name](value, 8, 8)), images)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandAugment(variant="tim"), "did you mean 'timm'"),
        (lambda: RandAugment(-1), "at least 0, got -1"),
        (lambda: RandAugment(2.5), "a whole num_ops .*, got 2.5"),
        (lambda: RandAugment(2, 11, variant="timm"), "from 0 to 10 for variant 'timm', got 11"),
        (lambda: RandAugment(2, 31), "from 0 to 30"),
        (lambda: RandAugment(magnitude_std=-1), "magnitude_std"),
        (lambda: RandAugment(interpolation="cubic"), "did you mean 'bicubic'"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_not_a_picture_is_refused(rng):
    with pytest.raises(TypeError, match="put it before Normalize"):
        RandAugment()(np.zeros((1, 3, 4, 4), np.float32), rng)
    for shape in ((1, 4, 4, 4), (3, 8, 8)):
        with pytest.raises(ValueError, match=r"\(B, C, H, W\) of 1 or 3 channels, got \("):
            RandAugment()(np.zeros(shape, np.uint8), rng)


def test_a_fill_for_other_channels_is_refused(rng):
    with pytest.raises(ValueError, match=r"a fill of 1 value or 3, got \[1, 2\]"):
        RandAugment(2, 9, fill=[1, 2])(np.zeros((1, 3, 8, 8), np.uint8), rng)


def test_an_unknown_interpolation_is_refused(rng):
    with pytest.raises(ValueError, match="unknown interpolation 'cubic'; did you mean 'bicubic'"):
        affine_images(np.zeros((1, 1, 2, 2), np.uint8), np.zeros((1, 6)), interpolation="cubic")
