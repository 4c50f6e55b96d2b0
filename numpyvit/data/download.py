"""Files from the network: into the cache, whole and verified, or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import tarfile
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from numpyvit.backend import require

BLOCK_BYTES = 1 << 20
TIMEOUT_S = 30
# What tarfile, gzip and zlib raise, depending on which byte of an archive is wrong.
_DAMAGE = (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, zlib.error)


def cache_folder() -> Path:
    """Where downloads lie: $NUMPYVIT_CACHE, else $XDG_CACHE_HOME/numpyvit, else ~/.cache/numpyvit.

    The folder need not exist.
    """
    if own := os.environ.get("NUMPYVIT_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "numpyvit"
    return Path.home() / ".cache" / "numpyvit"


def download(url: str, target: Path, *, md5: str) -> Path:
    """Fetch `url` to the file `target`, with progress on stderr; gives `target`.

    The file appears under its name only when it is complete and its MD5 is right. Raises OSError
    when the network or the disk fails and RuntimeError for a wrong checksum.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            digest = _copy(url, file, target.name)
        if digest != md5:
            raise RuntimeError(
                f"[download] expected {url} to have the MD5 {md5}, got {digest}: "
                "the transfer was damaged or the file has changed; try again"
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _copy(url: str, file: BinaryIO, label: str) -> str:
    """Write what `url` holds to `file` and give its MD5."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            total_bytes = int(answer.headers.get("Content-Length") or 0)
            with _progress(label, total_bytes) as advance:
                while block := answer.read(BLOCK_BYTES):
                    file.write(block)
                    digest.update(block)
                    advance(len(block))
    except http.client.HTTPException as error:
        raise OSError(f"the transfer broke off: {error!r}") from error
    return digest.hexdigest()


@contextmanager
def _progress(label: str, total_bytes: int) -> Iterator[Callable[[int], object]]:
    """A function to call with the number of new bytes: a tqdm bar, else a line now and then."""
    try:
        tqdm = require("tqdm", extra="full", purpose="a progress bar").tqdm
    except ImportError:
        yield _Lines(label, total_bytes)
        return
    with tqdm(desc=label, total=total_bytes or None, unit="B", unit_scale=True) as bar:
        yield bar.update


class _Lines:
    """Progress as plain lines on stderr, one every few seconds and one at the end."""

    EVERY_S = 5.0

    def __init__(self, label: str, total_bytes: int) -> None:
        self.label, self.total_bytes, self.done_bytes = label, total_bytes, 0
        self.due = time.monotonic()

    def __call__(self, count: int) -> None:
        self.done_bytes += count
        now = time.monotonic()
        if now < self.due and self.done_bytes != self.total_bytes:
            return
        self.due = now + self.EVERY_S
        of = f" of {self.total_bytes / 1e6:.1f}" if self.total_bytes else ""
        sys.stderr.write(f"{self.label}: {self.done_bytes / 1e6:.1f}{of} MB\n")
        sys.stderr.flush()


def extract_files(archive: Path, names: tuple[str, ...], folder: Path) -> None:
    """Put the members of a .tar.gz whose last name is in `names` into `folder`, all or nothing.

    Only regular files are taken and only their last name is used, so no member can land anywhere
    else. Raises ValueError for a damaged archive, FileNotFoundError for a missing member.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
        part = Path(name) / folder.name
        part.mkdir()
        for member, content in read_members(archive, names):
            (part / member).write_bytes(content)
        try:
            part.replace(folder)
        except OSError:
            # Another process may have put the same files there in the meantime.
            if not all((folder / member).is_file() for member in names):
                raise


def read_members(archive: Path, names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """The wanted members of a .tar.gz as (last name, content); errors as in `extract_files`."""
    missing = set(names)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                last = member.name.rpartition("/")[2]
                file = tar.extractfile(member) if member.isfile() and last in missing else None
                if file is not None:
                    missing.remove(last)
                    yield last, file.read()
                if not missing:
                    return
    except _DAMAGE as error:
        raise ValueError(
            f"[data] expected a whole .tar.gz archive, got one that cannot be read: {archive} "
            f"of {archive.stat().st_size} bytes ({error}); download it again"
        ) from error
    raise FileNotFoundError(
        f"[data] expected {archive} to hold {', '.join(sorted(missing))}, got an archive without"
    )
