"""CIFAR-10 (Krizhevsky 2009): 60,000 pictures of 32x32 in ten classes, in both official layouts.

Binary: 10,000 records a file, each a label byte and 3,072 bytes of pixels, channel by channel.
Python: a pickled dictionary a file, with "data" (10,000, 3,072) uint8 and "labels". Those pickles
are read without running anything that they name.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numpyvit.data.dataset import ArrayDataset
from numpyvit.data.download import cache_folder, download, extract_files, read_members

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
IMAGES_A_FILE = 10_000
PIXELS = 3 * 32 * 32
CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
FILES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
# layout: (folder, archive, ending of a batch's name, file of the class names)
LAYOUTS = {
    "binary": ("cifar-10-batches-bin", "cifar-10-binary.tar.gz", ".bin", "batches.meta.txt"),
    "python": ("cifar-10-batches-py", "cifar-10-python.tar.gz", "", "batches.meta"),
}

Pictures = tuple[NDArray[np.uint8], NDArray[np.int64]]


def load_cifar10(split: str = "train", *, data_dir: str | Path | None = None) -> ArrayDataset:
    """50,000 training or 10,000 test pictures, in the official order.

    Looked for in `data_dir` (either layout, with or without its usual folder, or the archive; also
    the archive itself),
    then in the cache, then downloaded there. Raises FileNotFoundError, naming every way to get
    them, when that fails too, and ValueError for a damaged file, saying which and how.
    """
    if split not in FILES:
        raise ValueError(f"[cifar10] expected split 'train' or 'test', got {split!r}")
    if data_dir is not None:
        if (found := _load_from(Path(data_dir), split)) is not None:
            return found
        sys.stderr.write(f"no CIFAR-10 files in {data_dir}: trying the cache and the network\n")
    cache = cache_folder()
    found = _load_from(cache, split) if cache.is_dir() else None
    if found is None:
        _fetch(cache, data_dir)
        found = _load_from(cache, split)
    if found is None:
        raise RuntimeError(f"[cifar10] expected the downloaded files in {cache}, got none")
    return found


def _load_from(root: Path, split: str) -> ArrayDataset | None:
    """The split in either layout, from files or else an archive; None if there is neither.

    `root` is the folder that they lie in, or the archive itself.
    """
    if root.is_file():
        return _load_named_archive(root, split)
    for layout, (folder, _, ending, _) in LAYOUTS.items():
        for home in (root, root / folder):
            if any(
                (home / f"{name}{ending}").is_file() for names in FILES.values() for name in names
            ):
                return _load_files(home, layout, split)
    for layout, (_, archive, _, _) in LAYOUTS.items():
        if (root / archive).is_file():
            return _load_archive(root / archive, layout, split)
    return None


def _load_named_archive(archive: Path, split: str) -> ArrayDataset:
    """The split from an archive of any name; its files tell the layout."""
    first, second = sorted(LAYOUTS, key=lambda layout: layout not in archive.name)
    try:
        return _load_archive(archive, first, split)
    except FileNotFoundError:
        return _load_archive(archive, second, split)


def _load_files(home: Path, layout: str, split: str) -> ArrayDataset:
    _, _, ending, meta = LAYOUTS[layout]
    batches = []
    for name in FILES[split]:
        path = home / f"{name}{ending}"
        if not path.is_file():
            raise FileNotFoundError(
                f"[cifar10] expected the file {path.name} in {home}, got the others without it; "
                f"unpack the archive again ({URL})"
            )
        batches.append(READERS[layout](path.read_bytes(), str(path)))
    names: tuple[str, ...] = CLASS_NAMES
    if (home / meta).is_file():
        names = _class_names((home / meta).read_bytes(), layout, str(home / meta))
    return _join(batches, names)


def _load_archive(archive: Path, layout: str, split: str) -> ArrayDataset:
    _, _, ending, meta = LAYOUTS[layout]
    wanted = tuple(f"{name}{ending}" for name in FILES[split])
    batches = {}
    names: tuple[str, ...] = CLASS_NAMES
    for name, content in read_members(archive, (*wanted, meta)):
        where = f"{archive}:{name}"
        if name == meta:
            names = _class_names(content, layout, where)
        else:
            batches[name] = READERS[layout](content, where)
    return _join([batches[name] for name in wanted], names)


def _join(batches: list[Pictures], names: tuple[str, ...]) -> ArrayDataset:
    images = np.concatenate([images for images, _ in batches])
    return ArrayDataset(images, np.concatenate([labels for _, labels in batches]), names)


def read_binary_batch(content: bytes, where: str) -> Pictures:
    """Pictures (10000, 3, 32, 32) uint8 and labels of a binary file; `where` is for errors."""
    expected_bytes = IMAGES_A_FILE * (1 + PIXELS)
    if len(content) != expected_bytes:
        fault = "truncated" if len(content) < expected_bytes else "wrong"
        raise ValueError(
            f"[cifar10] {fault} file {where}: expected {expected_bytes} bytes, "
            f"got {len(content)}; download it again"
        )
    records = np.frombuffer(content, np.uint8).reshape(IMAGES_A_FILE, 1 + PIXELS)
    labels = _checked_labels(records[:, 0], where)
    return records[:, 1:].reshape(-1, 3, 32, 32).copy(), labels


def read_python_batch(content: bytes, where: str) -> Pictures:
    """Pictures and labels of a pickled file, without running it; `where` is for errors."""
    entries = _restricted_load(content, where, IMAGES_A_FILE * PIXELS)
    data, labels = entries.get("data"), entries.get("labels")
    if not isinstance(data, np.ndarray) or labels is None:
        raise ValueError(
            f"[cifar10] wrong file {where}: expected the entries 'data' and 'labels', "
            f"got {sorted(map(str, entries))}"
        )
    if data.dtype != np.uint8 or data.shape != (IMAGES_A_FILE, PIXELS):
        raise ValueError(
            f"[cifar10] wrong file {where}: expected data of shape ({IMAGES_A_FILE}, {PIXELS}) in "
            f"uint8, got {data.shape} in {data.dtype}"
        )
    return data.reshape(-1, 3, 32, 32), _checked_labels(labels, where)


READERS: dict[str, Callable[[bytes, str], Pictures]] = {
    "binary": read_binary_batch,
    "python": read_python_batch,
}


def _checked_labels(values: Any, where: str) -> NDArray[np.int64]:
    labels = np.asarray(values)
    if labels.shape != (IMAGES_A_FILE,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"[cifar10] wrong file {where}: expected {IMAGES_A_FILE} integer labels, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    wrong = (labels < 0) | (labels > 9)
    if wrong.any():
        index = int(wrong.argmax())
        raise ValueError(
            f"[cifar10] damaged file {where}: expected labels from 0 to 9, "
            f"got {int(labels[index])} for picture {index}; download it again"
        )
    return labels.astype(np.int64)


def _class_names(content: bytes, layout: str, where: str) -> tuple[str, ...]:
    if layout == "binary":
        names = content.decode("utf-8", "replace").split()
    else:
        entry = _restricted_load(content, where, 0).get("label_names", ())
        names = [n.decode("latin1") if isinstance(n, bytes) else str(n) for n in entry]
    if len(names) != len(CLASS_NAMES):
        raise ValueError(f"[cifar10] wrong file {where}: expected 10 class names, got {len(names)}")
    return tuple(names)


class _RestrictedUnpickler(pickle.Unpickler):
    """Builds plain values and NumPy arrays; refuses every other name that a pickle asks for."""

    def find_class(self, module: str, name: str) -> Any:
        # NumPy 2 renamed numpy.core to numpy._core; pickles name either.
        known = _HARMLESS.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise _Refused(f"{module}.{name}")
        return known


class _Refused(pickle.UnpicklingError):
    """The pickle asked for something that is neither a plain value nor an array."""


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 writes bytes under Python 3; any other encoding is refused."""
    if encoding != "latin1":
        raise _Refused(f"_codecs.encode to {encoding}")
    return text.encode("latin1")


# NumPy itself says how it would rebuild an array or a scalar: no private name is needed.
_HARMLESS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy.core.numeric", "_frombuffer"): np.empty(0).__reduce_ex__(5)[0],
    ("numpy.core.multiarray", "scalar"): np.int64(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode_latin1,
}


def _restricted_load(content: bytes, where: str, least_bytes: int) -> dict[str, Any]:
    """The pickled dictionary with string keys."""
    try:
        entries = _RestrictedUnpickler(io.BytesIO(content), encoding="latin1").load()
    except _Refused as error:
        raise ValueError(
            f"[cifar10] refused to read {where}: expected a pickle of NumPy arrays, got one that "
            f"asks for {error}, which could run code; use the official files ({URL})"
        ) from error
    except (pickle.UnpicklingError, EOFError, AttributeError, LookupError) as error:
        raise _damaged(content, where, least_bytes, error) from error
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise _damaged(content, where, least_bytes, error) from error
    if not isinstance(entries, dict):
        raise ValueError(
            f"[cifar10] wrong file {where}: expected a pickled dictionary, "
            f"got {type(entries).__name__}"
        )
    return {k.decode("latin1") if isinstance(k, bytes) else str(k): v for k, v in entries.items()}


def _damaged(content: bytes, where: str, least_bytes: int, error: Exception) -> ValueError:
    fault = "truncated" if len(content) < least_bytes else "damaged"
    return ValueError(
        f"[cifar10] {fault} file {where}: expected a whole pickle of at least {least_bytes} bytes, "
        f"got {len(content)} bytes ({error}); download it again"
    )


def _fetch(cache: Path, data_dir: str | Path | None) -> None:
    folder, archive, ending, meta = LAYOUTS["binary"]
    names = tuple(f"{name}{ending}" for names in FILES.values() for name in names)
    try:
        path = download(URL, cache / archive, md5=MD5)
        extract_files(path, (*names, meta), cache / folder)
        path.unlink()
    except (OSError, RuntimeError) as error:
        looked = "" if data_dir is None else f"{data_dir}, "
        raise FileNotFoundError(
            f"[cifar10] expected CIFAR-10 in {looked}{cache} or from the network, got none "
            f"({error}). Either fetch {URL} by hand and name the folder that it lies in with "
            "--data-dir (data_dir=...), or use the built-in pictures with --data shapes"
        ) from error
