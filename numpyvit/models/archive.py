"""Models in files: arrays by name and one JSON record, in NumPy's own .npz container."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy

from numpyvit.backend import Array, to_numpy

_RECORD = "__numpyvit__"  # the entry that holds the JSON record, as bytes
_MODEL = "model."
# What NumPy and zipfile raise, depending on which byte of a file is wrong.
_DAMAGE = (
    AttributeError,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
_PACKAGED = Path(__file__).parent / "pretrained"


@dataclasses.dataclass(frozen=True)
class Archive:
    """What a file held: arrays by name, and the record that describes them."""

    path: Path
    arrays: dict[str, numpy.ndarray]
    record: dict[str, Any]

    def weights(self) -> dict[str, numpy.ndarray]:
        """The model's own arrays, by the names of its `state_dict`."""
        return self.section(_MODEL)

    def section(self, prefix: str) -> dict[str, numpy.ndarray]:
        """The arrays whose names begin with `prefix`, without it."""
        return {
            name.removeprefix(prefix): array
            for name, array in self.arrays.items()
            if name.startswith(prefix)
        }


def write_archive(
    path: str | os.PathLike[str],
    weights: Mapping[str, Array],
    record: Mapping[str, Any],
    extra: Mapping[str, Array] | None = None,
    *,
    compress: bool = False,
) -> None:
    """Write a model's `weights`, `extra` arrays and a JSON `record` to `path`, all or nothing.

    The file appears under its name only when it is complete and on disk: whatever interrupts the
    writing, an older file of that name stays as it was. Raises OSError where it cannot be written.
    """
    entries = {_MODEL + name: to_numpy(array) for name, array in weights.items()}
    entries |= {name: to_numpy(array) for name, array in (extra or {}).items()}
    entries[_RECORD] = numpy.frombuffer(json.dumps(record).encode(), numpy.uint8)
    save: Any = numpy.savez_compressed if compress else numpy.savez
    with replacing(path) as file:
        save(file, **entries)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Any:
    """A new binary file that takes the place of `path` when the block ends without an error.

    Raises FileNotFoundError where the folder does not exist, OSError where it cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"[write] expected a folder to write {path.name} into, found none at {path.parent}"
        )
    # Not by tempfile, whose files nobody else may read: here the process's umask decides.
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    handle = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def read_archive(path: str | os.PathLike[str]) -> Archive:
    """Read what `write_archive` wrote. No code in the file is run.

    Raises FileNotFoundError where there is no file, ValueError where it is not such a file or is
    damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"[read_archive] expected a checkpoint file, found none at {path}")
    try:
        with path.open("rb") as stream, numpy.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        record = dict(json.loads(arrays.pop(_RECORD).tobytes()))
    except PermissionError:
        raise
    except _DAMAGE as error:
        raise ValueError(
            f"[read_archive] expected a numpyvit checkpoint (.npz), but {path} is not one or is "
            f"damaged ({error}); give a file that `numpyvit train` wrote"
        ) from error
    return Archive(path, arrays, record)


def packaged_archive(name: str) -> Path:
    """Where the weights that come with the package for the model `name` are.

    Raises ValueError, naming the models that have some, where there are none.
    """
    path = _PACKAGED / f"{name}.npz"
    if not path.is_file():
        known = sorted(path.stem for path in _PACKAGED.glob("*.npz"))
        raise ValueError(
            f"[create_model] expected a model that comes with weights ({', '.join(known)}), "
            f"got {name!r}; leave out pretrained=True or load a checkpoint"
        )
    return path
