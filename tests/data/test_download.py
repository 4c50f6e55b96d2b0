from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from numpyvit.data import cache_folder
from numpyvit.data.download import download, extract_files


def pack(path, members):
    """A .tar.gz of {name: content or TarInfo type}."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
    return path


def test_the_cache_is_named_by_the_environment(monkeypatch):
    monkeypatch.delenv("NUMPYVIT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "numpyvit"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/numpyvit")
    monkeypatch.setenv("NUMPYVIT_CACHE", "/own")
    assert cache_folder() == Path("/own")


def test_a_download_is_whole_and_under_its_name_only_when_verified(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(bytes(3_000_000))
    right = hashlib.md5(source.read_bytes()).hexdigest()
    target = tmp_path / "new" / "target"
    with pytest.raises(RuntimeError, match="to have the MD5"):
        download(source.as_uri(), target, md5="wrong")
    assert list(target.parent.iterdir()) == []
    assert download(source.as_uri(), target, md5=right).read_bytes() == source.read_bytes()
    assert list(target.parent.iterdir()) == [target]


def test_a_member_that_climbs_out_lands_inside(tmp_path):
    archive = pack(tmp_path / "a.tar.gz", {"../../a.bin": b"1", "/etc/b.bin": b"2", "c.bin": b"3"})
    extract_files(archive, ("a.bin", "b.bin"), tmp_path / "deep" / "er" / "out")
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    inside = Path("deep/er/out")
    assert files == [Path("a.tar.gz"), inside / "a.bin", inside / "b.bin"]


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path):
    archive = pack(tmp_path / "a.tar.gz", {"a.bin": "/etc/passwd"})
    with pytest.raises(FileNotFoundError, match=r"to hold a\.bin"):
        extract_files(archive, ("a.bin",), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unpacking_what_is_there_already_changes_nothing(tmp_path):
    archive = pack(tmp_path / "a.tar.gz", {"x/a.bin": b"1"})
    extract_files(archive, ("a.bin",), tmp_path / "out")
    extract_files(archive, ("a.bin",), tmp_path / "out")
    assert (tmp_path / "out" / "a.bin").read_bytes() == b"1"
