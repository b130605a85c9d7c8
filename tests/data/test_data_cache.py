from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchmix.data.cache import cache_dir, may_keep
from batchmix.errors import DataError
from batchmix.files import write_whole


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BATCHMIX_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_dir() == tmp_path / ".cache" / "batchmix"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_dir() == tmp_path / ".cache" / "batchmix"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/batchmix")
    monkeypatch.setenv("BATCHMIX_DATA", "~/own")
    assert cache_dir() == tmp_path / "own"
    monkeypatch.setenv("BATCHMIX_DATA", "")
    assert cache_dir() == Path("/xdg/batchmix")


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def chunks() -> Iterator[bytes]:
        yield b"ne"
        assert path.read_bytes() == b"old"
        yield b"w"

    write_whole(path, chunks(), 3)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interrupted_write_leaves_the_folder_as_it_was(tmp_path: Path, stop: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def chunks() -> Iterator[bytes]:
        yield b"ne"
        assert len(list(tmp_path.iterdir())) == 2
        raise stop

    with pytest.raises(stop):
        write_whole(path, chunks(), 3)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_the_system_cuts_short(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits on file sizes are a thing of Unix")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(DataError, match=r"no room to write .*file: 2,097,152 bytes needed"):
            write_whole(tmp_path / "file", [bytes(1 << 20), bytes(1 << 20)], 1 << 21)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot write .*No such file"):
        write_whole(tmp_path / "nowhere" / "file", [b"x"], 1)


@pytest.mark.skipif(os.name != "posix", reason="modes are a thing of Unix")
def test_others_can_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_whole(tmp_path / "file", [b"x"], 1)
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("left", [".cifar10.bin.0123abcd.part", ".npm-x1y2.part"])
def test_what_a_killed_fetch_left_does_not_make_a_folder_anothers(tmp_path: Path, left: str) -> None:
    assert may_keep(tmp_path / "new")
    (tmp_path / left).mkdir()
    assert may_keep(tmp_path)
    (tmp_path / "thesis.part").mkdir()
    assert not may_keep(tmp_path)


@pytest.mark.parametrize("left", [".DS_Store", "Thumbs.db", "desktop.ini", "lost+found"])
def test_what_a_system_leaves_does_not_make_a_folder_anothers(tmp_path: Path, left: str) -> None:
    (tmp_path / left).touch()
    assert may_keep(tmp_path)
    (tmp_path / "thesis.txt").touch()
    assert not may_keep(tmp_path)
