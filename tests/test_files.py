"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from batchmix.errors import DataError
from batchmix.files import cannot_write, expanded, write_whole


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def chunks_then(error):
    yield b"half "
    raise error


@pytest.mark.parametrize("chunks", [[], [b"all"], [b"a", memoryview(b"l"), bytearray(b"l")]])
def test_the_contents_are_all_chunks(tmp_path, chunks):
    write_whole(tmp_path / "file", chunks)
    assert files(tmp_path) == {"file": b"".join(chunks)}


def test_an_older_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def look():
        assert path.read_bytes() == b"old"
        yield b"new"
        assert path.read_bytes() == b"old"

    write_whole(path, look())
    assert files(tmp_path) == {"file": b"new"}


def test_others_may_read_it_as_the_umask_says(tmp_path):
    mask = os.umask(0o022)
    try:
        write_whole(tmp_path / "file", [b"x"])
    finally:
        os.umask(mask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), DataError),
        (OSError(errno.EIO, "Input/output error"), DataError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (ValueError("a bug"), ValueError),
    ],
)
def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path, old, error, raised):
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    with pytest.raises(raised):
        write_whole(path, chunks_then(error))
    assert files(tmp_path) == ({} if old is None else {"file": old})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_said_with_the_bytes_it_takes(tmp_path, number):
    path = tmp_path / "file"
    with pytest.raises(DataError) as caught:
        write_whole(path, chunks_then(OSError(number, "the reason")), 1_234_567)
    assert str(caught.value) == f"no room to write {path}: 1,234,567 bytes needed (the reason)"
    assert str(cannot_write(path, OSError(number, "x"))) == f"no room to write {path} (x)"


def place_in_missing_folder(folder):
    return folder / "missing" / "file"


def place_below_a_file(folder):
    (folder / "a").write_bytes(b"")
    return folder / "a" / "file"


def place_of_a_folder(folder):
    (folder / "file").mkdir()
    return folder / "file"


def place_with_too_long_a_name(folder):
    return folder / ("x" * 300)


@pytest.mark.parametrize(
    "place", [place_in_missing_folder, place_below_a_file, place_of_a_folder, place_with_too_long_a_name]
)
def test_a_place_that_takes_no_file_is_one_line(tmp_path, place):
    path = place(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(DataError) as caught:
        write_whole(path, [b"x"])
    assert str(caught.value).startswith(f"cannot write {path}: ")
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_the_bytes_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", []
    path.write_bytes(b"old")

    def fsync(number):
        seen.append((os.fstat(number).st_size, path.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    write_whole(path, [b"all"])
    assert seen == [(3, b"old")]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSPC])
def test_a_file_system_that_cannot_sync_is_no_full_disk(tmp_path, monkeypatch, number):
    def fsync(_):
        raise OSError(number, "the reason")

    monkeypatch.setattr(os, "fsync", fsync)
    if number == errno.ENOSPC:
        with pytest.raises(DataError, match=r"^no room to write"):
            write_whole(tmp_path / "file", [b"all"])
    else:
        write_whole(tmp_path / "file", [b"all"])
    assert files(tmp_path) == ({} if number == errno.ENOSPC else {"file": b"all"})


def test_a_part_of_a_killed_writer_is_removed_a_day_later(tmp_path):
    kept = {".file.01234567.part", ".other.76543210.part", "file.76543210.part", ".file[.76543210.part"}
    for name in {*kept, ".file.76543210.part", ".file.01234567.part"}:
        (tmp_path / name).write_bytes(b"half")
        if name != ".file.01234567.part":  # which may be being written
            os.utime(tmp_path / name, (0, 0))
    write_whole(tmp_path / "file", [b"x"])
    assert set(files(tmp_path)) == {"file", *kept}
    write_whole(tmp_path / "file[", [b"x"])
    assert ".file[.76543210.part" not in files(tmp_path)


def test_a_user_that_is_not_there_is_a_name_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    assert expanded("~/images") == Path("/somebody/images")
    assert expanded("~nobody-of-this-name/images") == Path("~nobody-of-this-name/images")
