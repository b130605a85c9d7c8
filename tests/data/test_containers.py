from __future__ import annotations

import io
import tarfile
from dataclasses import replace

import pytest
from made_up import Small, tar_gz

from batchmix.data.containers import read_archive
from batchmix.errors import DataError


def test_files_come_in_the_order_of_the_encoding(small: Small) -> None:
    binary = small.layout.encodings[0]
    backwards = tar_gz(dict(reversed(small.binary().items())))
    assert read_archive(io.BytesIO(backwards), binary, small.layout) == list(small.binary().values())


def test_an_archive_that_lacks_a_file(small: Small) -> None:
    files = small.binary()
    del files["data_batch_2.bin"]
    with pytest.raises(DataError, match=r"the archive lacks data_batch_2.bin"):
        read_archive(io.BytesIO(tar_gz(files)), small.layout.encodings[0], small.layout)


@pytest.mark.parametrize("kept", [0, 1, 100, 40_000, -4000])
def test_a_truncated_archive(kept: int, small: Small) -> None:
    with pytest.raises(DataError, match="truncated or damaged"):
        read_archive(
            io.BytesIO(small.binary_archive()[:kept]),
            small.layout.encodings[0],
            small.layout,
        )


def test_a_file_that_claims_too_much_is_not_read(small: Small) -> None:
    tight = replace(small.layout, records=1, md5=small.layout.md5[:1])
    with pytest.raises(DataError, match=r"claims 12,292 bytes"):
        read_archive(io.BytesIO(small.binary_archive()), small.layout.encodings[0], tight)


def test_a_link_is_not_followed(small: Small) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo("data_batch_1.bin")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(member)
    buffer.seek(0)
    with pytest.raises(DataError, match=r"the archive lacks data_batch_1.bin"):
        read_archive(buffer, small.layout.encodings[0], small.layout)
