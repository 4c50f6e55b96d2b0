from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from numpyvit.explain import draw_reconstruction
from numpyvit.models import create_model

matplotlib_image = pytest.importorskip("matplotlib.image", reason="matplotlib is not installed")

HIDDEN = 160


def pixels(path: Path) -> np.ndarray:
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    return np.rint(matplotlib_image.imread(path)[..., :3] * 255).astype(np.uint8)


def has(drawn: np.ndarray, picture: np.ndarray) -> bool:
    """Whether `picture` is on the sheet, pixel by pixel the same."""
    height, width = picture.shape[:2]
    corners = np.argwhere((drawn[: -height + 1, : -width + 1] == picture[0, 0]).all(-1))
    return any((drawn[y : y + height, x : x + width] == picture).all() for y, x in corners.tolist())


def test_the_image_what_is_visible_the_reconstruction_and_both_joined_are_drawn(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "new" / "reconstruction.png"
    images, made = rng.integers(1, 255, (2, 3, 3, 128, 128), np.uint8)
    mask = rng.permuted(np.arange(48).reshape(3, 16), axis=1) % 16 >= 4
    draw_reconstruction(images, made, mask, path)
    drawn = pixels(path)
    for image, other, hidden in zip(images, made, mask, strict=True):
        seen, pasted = image.copy(), image.copy()
        for patch in np.flatnonzero(hidden):
            place = np.s_[:, patch // 4 * 32 :, patch % 4 * 32 :]
            seen[place][:, :32, :32] = HIDDEN
            pasted[place][:, :32, :32] = other[place][:, :32, :32]
        for expected in (image, seen, other, pasted):
            assert has(drawn, expected.transpose(1, 2, 0))


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_a_model_paints_is_drawn(tmp_path: Path, count: int, channels: int) -> None:
    model = create_model("mae_vit_cifar_patch4_32", in_channels=channels)
    images = np.random.default_rng(0).standard_normal((count, channels, 32, 32)).astype("float32")
    out = model(images)
    made = model.reconstruct(images, out.prediction)
    path = tmp_path / "reconstruction.png"
    draw_reconstruction(images, made.data, out.mask, path, mean=0.4, std=0.2)
    assert pixels(path).shape[1] > 4 * 128 * min(count, 2)


def test_oblong_images_are_drawn(tmp_path: Path) -> None:
    images, mask = np.zeros((1, 3, 8, 24), np.uint8), np.zeros((1, 2, 4), bool)
    mask[0, 0, 1] = True
    draw_reconstruction(images, images + 255, mask, tmp_path / "oblong.png")
    assert pixels(tmp_path / "oblong.png").shape[1] > 4 * 120


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    images, mask = np.zeros((2, 3, 12, 12), np.uint8), np.ones((2, 16), bool)
    path = tmp_path / "reconstruction.png"
    with pytest.raises(ValueError, match="expected 2 reconstructions, got 1"):
        draw_reconstruction(images, images[:1], mask, path)
    with pytest.raises(ValueError, match="expected 2 masks, got 1"):
        draw_reconstruction(images, images, mask[:1], path)
    with pytest.raises(ValueError, match=r"of the images' size \(12, 12\), got \(6, 6\)"):
        draw_reconstruction(images, images[..., :6, :6], mask, path)
    for grid in ((15,), (25,), (2, 5), (12, 12, 1)):
        with pytest.raises(ValueError, match=r"a grid of patches that fit \(12, 12\), got"):
            draw_reconstruction(images, images, np.ones((2, *grid), bool), path)
    assert not path.exists()


def test_what_is_known_without_the_model_is_drawn_beside_it(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    images, made, known = rng.integers(1, 255, (3, 1, 3, 128, 128), np.uint8)
    mask = np.arange(16)[None] >= 4  # the first row of patches is visible
    draw_reconstruction(images, made, mask, tmp_path / "a.png", without=known)
    expected = known[0].copy()
    expected[:, :32] = images[0][:, :32]
    assert has(pixels(tmp_path / "a.png"), expected.transpose(1, 2, 0))
