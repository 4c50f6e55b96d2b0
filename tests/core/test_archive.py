"""Models in files: round trips, all-or-nothing writing, and files that are not what they seem."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerances import assert_same_bits

from numpyvit import create_model
from numpyvit.models import (
    Labelling,
    load_model,
    packaged_archive,
    read_archive,
    replacing,
    save_model,
    variants,
    write_archive,
)
from numpyvit.nn import Linear, init

RECORD = {"model": "tiny", "epoch": 3, "list": [1, 2.5, None]}


def weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {"a.weight": rng.standard_normal((3, 4)).astype("float32"), "b": rng.standard_normal(2)}


def written(folder: Path, **options: Any) -> Path:
    path = folder / "model.npz"
    write_archive(path, weights(), RECORD, {"optimizer.0.step": np.array(7)}, **options)
    return path


@pytest.mark.parametrize("compress", [False, True])
def test_an_archive_comes_back_as_it_was_written(tmp_path: Path, compress: bool) -> None:
    archive = read_archive(str(written(tmp_path, compress=compress)))
    assert archive.record == RECORD
    assert archive.weights().keys() == weights().keys()
    for name, array in weights().items():
        assert_same_bits(archive.weights()[name], array)
    assert archive.section("optimizer.") == {"0.step": 7}
    assert set(archive.arrays) == {"model.a.weight", "model.b", "optimizer.0.step"}


def test_a_model_goes_through_a_file(tmp_path: Path) -> None:
    model = create_model("vit_cifar_patch4_32", depth=1, seed=1)
    path = tmp_path / "model.npz"
    write_archive(path, model.state_dict(), {"config": model.config.to_dict()})
    archive = read_archive(path)
    other = create_model("vit_cifar_patch4_32", **archive.record["config"])
    other.load_state_dict(archive.weights())
    for name, array in model.state_dict().items():
        assert_same_bits(other.state_dict()[name], array)


def test_weights_are_left_undrawn_only_where_they_are_about_to_be_loaded() -> None:
    with init.undrawn():
        assert not any(parameter.data.any() for parameter in Linear(3, 4).parameters())
    assert all(parameter.data.all() for parameter in Linear(3, 4).parameters())


def test_a_file_that_replaces_another_is_readable_as_any_other(tmp_path: Path) -> None:
    path = written(tmp_path)
    written(tmp_path)
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert path.stat().st_mode == plain.stat().st_mode
    assert sorted(os.listdir(tmp_path)) == ["model.npz", "plain"]


@pytest.mark.skipif(os.name != "posix", reason="modes of files are those of POSIX")
def test_a_file_has_the_mode_that_the_umask_gives_and_the_umask_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.umask(0o027)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "umask", pytest.fail)  # threads share it
            path = written(tmp_path)
        assert path.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_in_mid_write_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = written(tmp_path)
    before = path.read_bytes()

    def savez(file: Any, **_: Any) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr(np, "savez", savez)
    with pytest.raises(type(error)):
        write_archive(path, weights(), {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.npz"]


def test_an_error_inside_the_block_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), replacing(path):
        raise KeyError
    assert path.read_bytes() == b"old"
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


def test_a_folder_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_archive(tmp_path / "none" / "model.npz", weights(), {})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(FileNotFoundError, match="found none at"):
            read_archive(path)


@pytest.mark.parametrize("compress", [False, True])
def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path, compress: bool) -> None:
    path = written(tmp_path, compress=compress)
    whole = path.read_bytes()
    for length in range(0, len(whole), 13):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"is damaged .*numpyvit train"):
            read_archive(path)


@pytest.mark.parametrize("compress", [False, True])
def test_a_wrong_byte_anywhere_is_refused_or_harmless(tmp_path: Path, compress: bool) -> None:
    path = written(tmp_path, compress=compress)
    whole, refused = path.read_bytes(), 0
    for position in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            archive = read_archive(path)
        except ValueError as error:
            assert "is damaged" in str(error)  # noqa: PT017
            refused += 1
        else:
            for name, array in archive.weights().items():
                assert_same_bits(array, weights()[name])
    assert refused > len(whole) / 5 / 4


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def zip_of_text() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint",
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        npy(),
        npz(x=np.zeros(3)),
        npz(__numpyvit__=np.zeros(3, np.uint8)),
        npz(__numpyvit__=np.frombuffer(b"[1, 2]", np.uint8)),
        zip_of_text(),
    ],
    ids=["empty", "text", "png", "npy", "foreign npz", "no JSON", "a list", "a zip of text"],
)
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"\[read_archive\] expected a numpyvit checkpoint"):
        read_archive(path)


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was run",))


def test_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    objects = np.empty(1, object)
    objects[0] = Bomb()
    for content in (pickle.dumps(Bomb()), npz(model=objects, __numpyvit__=np.zeros(1, "u1"))):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="expected a numpyvit checkpoint"):
            read_archive(path)


def test_models_with_packaged_weights_are_named_where_others_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("numpyvit.models.archive._PACKAGED", tmp_path)
    model = create_model("vit_cifar_patch4_32", seed=5)
    write_archive(tmp_path / "vit_cifar_patch4_32.npz", model.state_dict(), {})
    with pytest.raises(ValueError, match=r"\(vit_cifar_patch4_32\), got 'vit_tiny_patch16_224'"):
        packaged_archive("vit_tiny_patch16_224")
    loaded = variants.create_model("vit_cifar_patch4_32", pretrained=True, dropout=0.3)
    assert_same_bits(loaded.head.weight, model.head.weight)
    for changes in ({"pooling": "avg"}, {"activation": "relu"}, {"num_classes": 7}):
        with pytest.raises(ValueError, match="the weights are of vit_cifar_patch4_32 as it is"):
            create_model("vit_cifar_patch4_32", pretrained=True, **changes)


def test_writing_into_a_missing_folder_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.npz into, found none at .*nowhere"):
        write_archive(tmp_path / "nowhere" / "a.npz", {}, {})


def saved_model(path: Path, **settings: Any) -> Path:
    model = create_model("vit_cifar_patch4_32", depth=1, num_classes=2)
    save_model(path, "vit_cifar_patch4_32", model, Labelling(class_names=("a", "b")), **settings)
    return path


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_saved_model_keeps_its_float_type(tmp_path: Path, dtype: str) -> None:
    model = create_model("vit_cifar_patch4_32", depth=1, num_classes=2).to(dtype).eval()
    save_model(tmp_path / "model.npz", "tiny", model, Labelling(class_names=("a", "b")))
    loaded, images = load_model(tmp_path / "model.npz").model, np.ones((1, 3, 32, 32), dtype)
    assert loaded.dtype == dtype
    assert_same_bits(loaded(images), model(images))


def test_the_preprocessing_of_a_model_is_kept_beside_it(tmp_path: Path) -> None:
    fields = {"size": 32, "resize": 36, "mean": [0.5]}
    saved = load_model(saved_model(tmp_path / "model.npz", preprocessing=fields))
    assert saved.preprocessing == fields
    assert saved.labelling.class_names == ("a", "b")


def test_a_checkpoint_from_before_preprocessing_was_kept_has_none(tmp_path: Path) -> None:
    path = saved_model(tmp_path / "model.npz")
    assert "preprocessing" not in read_archive(path).record
    assert load_model(path).preprocessing is None


def test_a_preprocessing_that_is_no_record_is_refused(tmp_path: Path) -> None:
    path = saved_model(tmp_path / "model.npz", record={"preprocessing": [1, 2]})
    with pytest.raises(ValueError, match=r"describes its model, .*expected fields as prepro"):
        load_model(path)
