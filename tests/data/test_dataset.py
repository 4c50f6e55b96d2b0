from __future__ import annotations

import sys

import numpy as np
import pytest
from tolerances import assert_same_bits

from numpyvit.data import ArrayDataset, Dataset, ImageFolder, load_dataset, read_picture

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def save(path, colour, size=(40, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


@pytest.fixture
def folder(tmp_path):
    for name, red in (("cat", 10), ("dog", 200)):
        for number in range(20):
            save(tmp_path / name / f"{number:02}.png", (red, number, 0))
    return tmp_path


def test_arrays_are_a_data_set(rng):
    images = rng.integers(0, 256, (5, 3, 4, 6), np.uint8)
    dataset = ArrayDataset(images, [0, 1, 2, 1, 0])
    assert len(dataset) == 5
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.image_shape == (3, 4, 6)
    assert dataset.labels.dtype == np.int64
    batch = dataset.images([3, -1])
    assert_same_bits(batch, images[[3, 4]])
    batch[:] = 0
    assert_same_bits(dataset.images([3]), images[[3]])


@pytest.mark.parametrize(
    ("images", "labels", "names", "error", "message"),
    [
        (np.zeros((2, 3, 4, 4)), [0, 1], None, TypeError, "uint8 images, got float64"),
        (np.zeros((2, 3, 4), np.uint8), [0, 1], None, ValueError, r"got \(2, 3, 4\)"),
        (np.zeros((0, 3, 4, 4), np.uint8), [], None, ValueError, r"got \(0, 3, 4, 4\)"),
        (np.zeros((2, 3, 4, 4), np.uint8), [0], None, ValueError, "2 integer labels"),
        (np.zeros((2, 3, 4, 4), np.uint8), [0.0, 1.0], None, ValueError, "got float64"),
        (np.zeros((2, 3, 4, 4), np.uint8), [0, 2], ["a", "b"], ValueError, "from 0 to 1.*0 to 2"),
        (np.zeros((2, 3, 4, 4), np.uint8), [-1, 0], None, ValueError, "got -1 to 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, labels, names, error, message):
    with pytest.raises(error, match=message):
        ArrayDataset(images, labels, names)


def test_a_data_set_without_images_says_so():
    with pytest.raises(NotImplementedError, match="must define images"):
        Dataset().images([0])


def test_a_folder_is_divided_once_for_all(folder):
    parts = {split: ImageFolder(folder, split, image_size=8) for split in ("train", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 36, "test": 4}
    assert np.bincount(parts["test"].labels).tolist() == [2, 2]
    assert not set(parts["train"].paths) & set(parts["test"].paths)
    assert ImageFolder(folder, "test", image_size=8).paths == parts["test"].paths
    others = [ImageFolder(folder, "test", image_size=8, seed=seed).paths for seed in range(1, 5)]
    assert any(paths != parts["test"].paths for paths in others)


def test_pictures_of_a_folder_come_with_their_class(folder):
    dataset = ImageFolder(folder, image_size=8)
    assert dataset.class_names == ("cat", "dog")
    assert dataset.image_shape == (3, 8, 8)
    images = dataset.images(np.arange(len(dataset)))
    assert images.shape == (36, 3, 8, 8)
    assert images.dtype == np.uint8
    assert_same_bits(images[:, 0, 0, 0] == 200, dataset.labels == 1)
    assert_same_bits(dataset.images([-1]), images[-1:])


@pytest.mark.parametrize("name", ["val", "test", "validation"])
def test_folders_named_after_the_splits_are_used(tmp_path, name):
    for part, count in (("train", 3), (name, 1)):
        for label in ("a", "b"):
            for number in range(count):
                save(tmp_path / part / label / f"{number}.png", "red")
    assert len(ImageFolder(tmp_path, "train")) == 6
    assert len(ImageFolder(tmp_path, "test")) == 2


def test_splits_of_different_classes_are_refused(tmp_path):
    for place in ("train/a", "train/b", "train/c", "test/a", "test/b"):
        save(tmp_path / place / "x.png", "red")
    with pytest.raises(ValueError, match="in one only: c"):
        ImageFolder(tmp_path, "test")


def test_a_train_folder_alone_has_no_test_pictures(tmp_path):
    for place in ("train/a", "train/b"):
        save(tmp_path / place / "x.png", "red")
    with pytest.raises(FileNotFoundError, match="one of the folders val, test, validation"):
        ImageFolder(tmp_path, "test")


def test_decoded_pictures_are_kept_only_within_the_budget(folder, monkeypatch):
    kept = ImageFolder(folder, image_size=8)
    fresh = ImageFolder(folder, image_size=8, cache_bytes=36 * 3 * 64 - 1)
    first = kept.images([0, 1])
    assert_same_bits(fresh.images([0, 1]), first)
    for path in kept.paths:
        path.unlink()
    assert_same_bits(kept.images([0, 1]), first)
    with pytest.raises(FileNotFoundError, match=r"no file at .*\.png"):
        fresh.images([0])


def test_a_picture_is_cut_to_its_middle(tmp_path):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert_same_bits(read_picture(tmp_path / "wide.png", 10), np.full((3, 10, 10), 255, np.uint8))
    whole = read_picture(tmp_path / "wide.png")
    assert_same_bits(whole, wide.transpose(2, 0, 1))


@pytest.mark.parametrize(("mode", "colour"), [("L", 7), ("RGBA", (7, 7, 7, 255)), ("1", 1)])
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode, colour):
    save(tmp_path / "x.png", colour, mode=mode)
    picture = read_picture(tmp_path / "x.png", 5)
    assert picture.shape == (3, 5, 5)
    assert len(np.unique(picture)) == 1


@pytest.mark.parametrize("content", [b"", b"this is text", b"\x89PNG\r\n\x1a\n broken"])
def test_a_file_that_is_no_picture_is_named(folder, content):
    bad = folder / "cat" / "bad.jpg"
    bad.write_bytes(content)
    dataset = ImageFolder(folder, image_size=8)
    if bad not in dataset.paths:
        dataset = ImageFolder(folder, "test", image_size=8)
    with pytest.raises(ValueError, match=r"cannot be read as one: .*bad\.jpg"):
        dataset.images(np.arange(len(dataset)))


def test_a_photo_taken_sideways_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0] = 200  # the sensor's top row is the picture's right edge
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    picture = read_picture(tmp_path / "photo.png")
    assert_same_bits(picture, np.rot90(pixels, -1).transpose(2, 0, 1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_photo_with_a_damaged_note_is_read_as_it_is(tmp_path):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0] = 200
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=b"Exif\0\0II*\0nonsense")
    assert_same_bits(read_picture(tmp_path / "photo.png"), pixels.transpose(2, 0, 1))


def test_a_truncated_picture_is_named(tmp_path, rng):
    path = tmp_path / "x.png"
    Image.fromarray(rng.integers(0, 256, (50, 50, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"cannot be read as one: .*x\.png"):
        read_picture(path)


def test_other_files_and_hidden_ones_are_left_alone(folder):
    for name in ("cat/notes.txt", "cat/.hidden.png", ".git/x.png", "readme.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    assert len(ImageFolder(folder)) == 36
    assert ImageFolder(folder).class_names == ("cat", "dog")


def test_folders_that_hold_too_little_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="one sub-folder a class, got none"):
        ImageFolder(tmp_path / "none")
    with pytest.raises(ValueError, match=r"at least 2 classes.*got 0"):
        ImageFolder(tmp_path)
    save(tmp_path / "a" / "x.png", "red")
    with pytest.raises(ValueError, match=r"at least 2 classes.*got 1"):
        ImageFolder(tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(FileNotFoundError, match=r"pictures in .*b, got none"):
        ImageFolder(tmp_path)
    save(tmp_path / "b" / "x.png", "red")
    assert len(ImageFolder(tmp_path)) == 2
    with pytest.raises(ValueError, match="enough pictures"):
        ImageFolder(tmp_path, "test")


def test_settings_out_of_range_are_refused(folder):
    with pytest.raises(ValueError, match="split 'train' or 'test', got 'all'"):
        ImageFolder(folder, "all")
    with pytest.raises(ValueError, match="positive image_size, got 0"):
        ImageFolder(folder, image_size=0)


def test_without_pillow_one_line_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"reading pictures needs Pillow.*pip install pillow"):
        load_dataset(str(folder))
