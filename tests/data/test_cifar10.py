from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
import urllib.error
import zlib

import numpy as np
import pytest
from tolerances import assert_same_bits

from numpyvit.data import cifar10, download, load_cifar10

COUNT = 12  # pictures a file, in these tests
NAMES = cifar10.CLASS_NAMES


@pytest.fixture(autouse=True)
def small_files_and_no_network(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(cifar10, "IMAGES_A_FILE", COUNT)
    monkeypatch.setattr(download.urllib.request, "urlopen", refuse)
    monkeypatch.setenv("NUMPYVIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pictures(rng):
    """{name of the batch: (images, labels)}."""
    names = [*cifar10.FILES["train"], *cifar10.FILES["test"]]
    return {
        name: (
            rng.integers(0, 256, (COUNT, 3, 32, 32), np.uint8),
            rng.integers(0, 10, COUNT),
        )
        for name in names
    }


def write_binary(folder, pictures):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in pictures.items():
        records = np.concatenate(
            [labels[:, None].astype(np.uint8), images.reshape(COUNT, -1)], axis=1
        )
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")


def write_python(folder, pictures, protocol=2, as_bytes=False):
    def key(text):
        return text.encode() if as_bytes else text

    folder.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in pictures.items():
        entry = {key("data"): images.reshape(COUNT, -1), key("labels"): labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(entry, protocol))
    meta = {key("label_names"): [key(name) for name in NAMES]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol))


def write_archive(path, write, pictures, folder_name):
    source = path.parent / "to-pack" / folder_name
    write(source, pictures)
    with tarfile.open(path, "w:gz") as tar:
        tar.add(source, folder_name)
    return path


def assert_holds(dataset, pictures, split):
    batches = [pictures[name] for name in cifar10.FILES[split]]
    assert_same_bits(
        dataset.images(np.arange(len(dataset))), np.concatenate([images for images, _ in batches])
    )
    assert_same_bits(dataset.labels, np.concatenate([labels for _, labels in batches]))
    assert dataset.class_names == NAMES
    assert dataset.image_shape == (3, 32, 32)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("inside", ["", "cifar-10-batches-bin"])
def test_the_binary_layout_is_read(tmp_path, pictures, split, inside):
    write_binary(tmp_path / inside, pictures)
    assert_holds(load_cifar10(split, data_dir=tmp_path), pictures, split)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("inside", ["", "cifar-10-batches-py"])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_the_python_layout_is_read(tmp_path, pictures, split, inside, protocol):
    write_python(tmp_path / inside, pictures, protocol)
    assert_holds(load_cifar10(split, data_dir=tmp_path), pictures, split)


def test_the_python_layout_is_read_with_keys_of_bytes(tmp_path, pictures):
    write_python(tmp_path, pictures, as_bytes=True)
    assert_holds(load_cifar10("test", data_dir=tmp_path), pictures, "test")


@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_arrays_pickled_by_old_and_new_numpy_are_read(module):
    pickled = pickle.dumps({"data": np.arange(6, dtype=np.uint8)}, 2)
    for name in (b"numpy.core", b"numpy._core"):
        pickled = pickled.replace(b"c" + name, b"c" + module.encode())
    entries = cifar10._restricted_load(pickled, "here", 0)
    assert_same_bits(entries["data"], np.arange(6, dtype=np.uint8))


def test_arrays_pickled_by_python_2_are_read():
    # What Python 2 wrote: its str is neither text nor bytes, and an array's content is one.
    raw = bytes(range(250, 256))
    pickled = (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b"
        b"\x87R(K\x01K\x06\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x06" + raw + b"tbs."
    )
    entries = cifar10._restricted_load(pickled, "here", 0)
    assert_same_bits(entries["data"], np.frombuffer(raw, np.uint8))


@pytest.mark.parametrize(("layout", "write"), [("binary", write_binary), ("python", write_python)])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_archives_are_read_where_they_lie(tmp_path, pictures, layout, write, split):
    folder, archive, _, _ = cifar10.LAYOUTS[layout]
    write_archive(tmp_path / archive, write, pictures, folder)
    assert_holds(load_cifar10(split, data_dir=tmp_path), pictures, split)


def test_the_class_names_come_from_the_standard_when_their_file_is_missing(tmp_path, pictures):
    write_binary(tmp_path, pictures)
    (tmp_path / "batches.meta.txt").unlink()
    assert load_cifar10("test", data_dir=tmp_path).class_names == NAMES


class Malicious:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, pictures):
    write_python(tmp_path, pictures)
    trace = tmp_path / "trace"
    evil = pickle.dumps({"data": Malicious(os.mkdir, str(trace)), "labels": []})
    (tmp_path / "test_batch").write_bytes(evil)
    with pytest.raises(ValueError, match=r"refused to read .*test_batch.*asks for \w+\.mkdir"):
        load_cifar10("test", data_dir=tmp_path)
    assert not trace.exists()
    pickle.loads(evil)
    assert trace.is_dir(), "the pickle was harmless, so the refusal above showed nothing"


@pytest.mark.parametrize("call", [eval, getattr, __import__, np.load, np.ndarray.tofile, os.system])
def test_names_beyond_arrays_are_refused(call):
    with pytest.raises(ValueError, match="could run code"):
        cifar10._restricted_load(pickle.dumps(Malicious(call, "1")), "here", 0)


def test_encodings_other_than_latin1_are_refused():
    pickled = pickle.dumps(Malicious(__import__("_codecs").encode, "x", "zip"), 2)
    with pytest.raises(ValueError, match="could run code"):
        cifar10._restricted_load(pickled, "here", 0)


def test_a_truncated_binary_file_is_named_with_both_sizes(tmp_path, pictures):
    write_binary(tmp_path, pictures)
    path = tmp_path / "data_batch_3.bin"
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-100])
    message = rf"truncated file .*data_batch_3\.bin: expected {whole} bytes, got {whole - 100}"
    with pytest.raises(ValueError, match=message):
        load_cifar10("train", data_dir=tmp_path)
    load_cifar10("test", data_dir=tmp_path)


def test_a_binary_file_that_is_too_long_is_named_with_both_sizes(tmp_path, pictures):
    write_binary(tmp_path, pictures)
    path = tmp_path / "test_batch.bin"
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=rf"wrong file .*: expected {whole} .*, got {whole + 1}"):
        load_cifar10("test", data_dir=tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 50, 5000, 36000])
def test_a_truncated_python_file_is_named_with_both_sizes(tmp_path, pictures, kept):
    write_python(tmp_path, pictures)
    path = tmp_path / "test_batch"
    path.write_bytes(path.read_bytes()[:kept])
    message = (
        rf"(truncated|damaged) file .*test_batch: expected .* {COUNT * 3072} bytes, got {kept}"
    )
    with pytest.raises(ValueError, match=message):
        load_cifar10("test", data_dir=tmp_path)


@pytest.mark.parametrize("write", [write_binary, write_python])
def test_a_label_above_nine_is_named_with_its_picture(tmp_path, pictures, write):
    pictures["test_batch"][1][7] = 10
    write(tmp_path, pictures)
    with pytest.raises(ValueError, match=r"test_batch.*from 0 to 9, got 10 for picture 7"):
        load_cifar10("test", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "expected a pickled dictionary, got list"),
        ({"x": 1}, r"'data' and 'labels', got \['x'\]"),
        ({"data": np.zeros((3, 4), np.uint8), "labels": []}, r"got \(3, 4\) in uint8"),
        ({"data": np.zeros((COUNT, 3072)), "labels": []}, "in float64"),
        ({"data": np.zeros((COUNT, 3072), np.uint8), "labels": [0]}, "12 integer labels"),
        ({"data": np.zeros((COUNT, 3072), np.uint8), "labels": ["a"] * COUNT}, "integer labels"),
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path, content, message):
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=message):
        load_cifar10("test", data_dir=tmp_path)


def test_a_missing_file_among_others_is_named(tmp_path, pictures):
    write_binary(tmp_path, pictures)
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"the file data_batch_4\.bin in"):
        load_cifar10("train", data_dir=tmp_path)


def test_a_wrong_number_of_class_names_is_refused(tmp_path, pictures):
    write_binary(tmp_path, pictures)
    (tmp_path / "batches.meta.txt").write_text("cat dog")
    with pytest.raises(ValueError, match="expected 10 class names, got 2"):
        load_cifar10("test", data_dir=tmp_path)


def test_a_damaged_archive_is_named(tmp_path, pictures):
    path = write_archive(tmp_path / "cifar-10-binary.tar.gz", write_binary, pictures, "any")
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ValueError, match=r"whole \.tar\.gz .*cifar-10-binary.* of 20000 bytes"):
        load_cifar10("test", data_dir=tmp_path)


def test_a_wrong_byte_anywhere_in_an_archive_is_one_clear_error_or_harmless(tmp_path, pictures):
    for images, _ in pictures.values():
        images //= 64  # so that they are compressed, and not stored
    path = write_archive(tmp_path / "cifar-10-binary.tar.gz", write_binary, pictures, "any")
    whole, refused = path.read_bytes(), 0
    for position in range(0, len(whole), len(whole) // 60):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            load_cifar10("train", data_dir=tmp_path)
        except (ValueError, FileNotFoundError) as error:
            assert str(error).startswith(("[data]", "[cifar10]"))  # noqa: PT017
            refused += 1
    assert refused > 0


@pytest.mark.parametrize(
    "error", [zlib.error("bad"), EOFError("end"), tarfile.ReadError("no"), ValueError("odd")]
)
def test_whatever_reading_an_archive_raises_is_one_clear_error(tmp_path, monkeypatch, error):
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(b"")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(tarfile, "open", fail)
    with pytest.raises(ValueError, match=r"whole \.tar\.gz archive.*download it again"):
        load_cifar10("test", data_dir=tmp_path)


@pytest.mark.parametrize(("layout", "write"), [("binary", write_binary), ("python", write_python)])
@pytest.mark.parametrize("renamed", [None, "mine.tgz"])
def test_the_archive_itself_may_be_named(tmp_path, pictures, layout, write, renamed):
    folder, archive, _, _ = cifar10.LAYOUTS[layout]
    path = write_archive(tmp_path / (renamed or archive), write, pictures, folder)
    assert_holds(load_cifar10("test", data_dir=path), pictures, "test")


def test_a_file_that_is_no_archive_is_named(tmp_path):
    (tmp_path / "mine").write_text("hello")
    with pytest.raises(ValueError, match=r"whole \.tar\.gz archive, .*mine of 5 bytes"):
        load_cifar10("test", data_dir=tmp_path / "mine")


def test_an_archive_without_the_files_is_named(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("readme"), io.BytesIO())
    with pytest.raises(FileNotFoundError, match=r"to hold .*test_batch\.bin"):
        load_cifar10("test", data_dir=tmp_path)


def test_one_error_names_every_alternative_when_there_is_no_network(tmp_path, capsys):
    with pytest.raises(FileNotFoundError) as caught:
        load_cifar10("train", data_dir=tmp_path / "nowhere")
    message = str(caught.value)
    expected = [str(tmp_path / "nowhere"), str(tmp_path / "cache"), cifar10.URL, "no route to host"]
    for part in [*expected, "--data shapes", "--data-dir"]:
        assert part in message
    assert "\n" not in message
    captured = capsys.readouterr()
    assert not captured.out
    assert "nowhere" in captured.err


@pytest.fixture
def served(tmp_path, pictures, monkeypatch):
    """An archive at a file:// address in the place of the official one."""
    monkeypatch.undo()
    monkeypatch.setattr(cifar10, "IMAGES_A_FILE", COUNT)
    monkeypatch.setenv("NUMPYVIT_CACHE", str(tmp_path / "cache"))
    folder, archive, _, _ = cifar10.LAYOUTS["binary"]
    path = write_archive(tmp_path / archive, write_binary, pictures, folder)
    monkeypatch.setattr(cifar10, "URL", path.as_uri())
    monkeypatch.setattr(cifar10, "MD5", hashlib.md5(path.read_bytes()).hexdigest())
    return path


@pytest.mark.parametrize("with_tqdm", [True, False])
def test_a_download_goes_to_the_cache_once_with_progress(
    served, tmp_path, pictures, capsys, monkeypatch, with_tqdm
):
    def missing(*_, **__):
        raise ImportError("no tqdm")

    if not with_tqdm:
        monkeypatch.setattr(download, "require", missing)
    assert_holds(load_cifar10("train"), pictures, "train")
    captured = capsys.readouterr()
    assert "cifar-10-binary.tar.gz" in captured.err
    assert not captured.out
    served.unlink()
    assert_holds(load_cifar10("test"), pictures, "test")
    assert not capsys.readouterr().err
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["cifar-10-batches-bin"]


def test_a_wrong_checksum_leaves_nothing_behind(served, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "MD5", "0" * 32)
    with pytest.raises(FileNotFoundError, match="to have the MD5 0000"):
        load_cifar10("train")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_the_same_one_error(served, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMPYVIT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(FileNotFoundError, match="--data shapes"):
        load_cifar10("train")


@pytest.mark.slow
@pytest.mark.parametrize(("split", "count"), [("train", 50_000), ("test", 10_000)])
def test_the_real_files_are_read(shared_data, monkeypatch, split, count):
    monkeypatch.setattr(cifar10, "IMAGES_A_FILE", 10_000)
    folder = shared_data / "cifar-10-batches-bin"
    if not folder.is_dir():
        pytest.skip(f"no CIFAR-10 in {shared_data}")
    dataset = load_cifar10(split, data_dir=folder)
    assert np.bincount(dataset.labels).tolist() == [count // 10] * 10
    assert dataset.class_names == NAMES
    assert dataset.images([0]).shape == (1, 3, 32, 32)
