from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from made_up import Small, put, tar_gz

from batchmix.data.containers import read_archive, read_gzip, read_gzips
from batchmix.errors import DataError

LIMIT = 1 << 20


def test_files_come_in_the_order_of_the_encoding(small: Small) -> None:
    binary = small.layout.encodings[0]
    backwards = tar_gz(dict(reversed(small.binary().items())))
    assert read_archive(io.BytesIO(backwards), binary.names, LIMIT) == list(small.binary().values())


def test_an_archive_that_lacks_a_file(small: Small) -> None:
    files = small.binary()
    del files["data_batch_2.bin"]
    with pytest.raises(DataError, match=r"the archive lacks data_batch_2.bin"):
        read_archive(io.BytesIO(tar_gz(files)), small.layout.encodings[0].names, LIMIT)


@pytest.mark.parametrize("kept", [0, 1, 100, 40_000, -4000])
def test_a_truncated_archive(kept: int, small: Small) -> None:
    with pytest.raises(DataError, match="truncated or damaged"):
        read_archive(io.BytesIO(small.binary_archive()[:kept]), small.layout.encodings[0].names, LIMIT)


def test_a_file_that_claims_too_much_is_not_read(small: Small) -> None:
    with pytest.raises(DataError, match=r"claims 12,292 bytes"):
        read_archive(io.BytesIO(small.binary_archive()), small.layout.encodings[0].names, 12_291)


def test_a_link_is_not_followed(small: Small) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("data_batch_1.bin")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(member)
    buffer.seek(0)
    with pytest.raises(DataError, match=r"the archive lacks data_batch_1.bin"):
        read_archive(buffer, small.layout.encodings[0].names, LIMIT)


def test_a_file_counts_gzipped_or_not(tmp_path: Path) -> None:
    put(tmp_path, {"a": b"first", "b.gz": gzip.compress(b"second")})
    assert read_gzips(tmp_path, ["b", "a"], LIMIT) == [b"second", b"first"]
    with pytest.raises(DataError, match=r"^lacks c$"):
        read_gzips(tmp_path, ["a", "c"], LIMIT)


@pytest.mark.parametrize(
    "damaged",
    [b"no gzip", gzip.compress(b"whole" * 100)[:-9], b"\x1f\x8b\x08" + bytes(30)],
    ids=["another", "cut", "empty"],
)
def test_a_damaged_gzip(damaged: bytes) -> None:
    with pytest.raises(DataError, match="truncated or damaged"):
        read_gzip(io.BytesIO(damaged), LIMIT)


def test_a_gzip_that_holds_too_much_is_not_read_on() -> None:
    bomb = gzip.compress(bytes(1 << 24))
    with pytest.raises(DataError, match="holds more than 1,048,576 bytes"):
        read_gzip(io.BytesIO(bomb), LIMIT)
    assert read_gzip(io.BytesIO(gzip.compress(bytes(LIMIT))), LIMIT) == bytes(LIMIT)
