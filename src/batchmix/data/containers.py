"""The files of a data set, out of a folder or an archive, as bytes in memory."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from batchmix.errors import DataError


def read_folder(folder: Path, names: Sequence[str]) -> list[bytes]:
    """Read files from a folder.

    Args:
        folder: Where they lie.
        names: Which files.

    Returns:
        Their contents, in the order of ``names``.

    Raises:
        DataError: If one is missing.
    """
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(f"lacks {', '.join(missing)}")
    return [(folder / name).read_bytes() for name in names]


def read_gzips(folder: Path, names: Sequence[str], limit: int) -> list[bytes]:
    """Read files from a folder, each as it is or gzipped under its name with ``.gz``.

    Args:
        folder: Where they lie.
        names: Which files, without ``.gz``.
        limit: Bytes that one file may have, unpacked.

    Returns:
        Their contents, unpacked, in the order of ``names``.

    Raises:
        DataError: If one is missing, truncated, damaged or too large.
    """
    plain = {name for name in names if (folder / name).is_file()}
    missing = [name for name in names if name not in plain and not (folder / f"{name}.gz").is_file()]
    if missing:
        raise DataError(f"lacks {', '.join(missing)}")
    contents = []
    for name in names:
        if name in plain:
            contents.append((folder / name).read_bytes())
        else:
            with (folder / f"{name}.gz").open("rb") as stream:
                contents.append(read_gzip(stream, limit))
    return contents


def read_gzip(stream: BinaryIO, limit: int) -> bytes:
    """Unpack one gzipped file.

    Args:
        stream: The gzipped file; it need not be seekable.
        limit: Bytes that it may have, unpacked.

    Returns:
        Its contents.

    Raises:
        DataError: If it is truncated or damaged, or larger than ``limit``.
    """
    try:
        with gzip.GzipFile(fileobj=stream, mode="rb") as unpacked:
            content = unpacked.read(limit + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"the gzipped file is truncated or damaged ({error})") from error
    if len(content) > limit:
        raise DataError(f"the gzipped file holds more than {limit:,} bytes")
    return content


def read_archive(stream: BinaryIO, names: Sequence[str], limit: int) -> list[bytes]:
    """Read files from a gzipped tar, front to back, without unpacking it anywhere.

    Args:
        stream: The archive; it need not be seekable, so it may still be on its way.
        names: Which files; they may lie in any folder of the archive.
        limit: Bytes that one file may claim.

    Returns:
        Their contents, in the order of ``names``.

    Raises:
        DataError: If the archive is truncated or damaged, or lacks a file.
    """
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|gz") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                # Regular files only: a link has no contents of its own.
                if name not in names or not member.isreg():
                    continue
                if member.size > limit:
                    raise DataError(f"{member.name} claims {member.size:,} bytes")
                if (content := tar.extractfile(member)) is not None:
                    files[name] = content.read()
                if len(files) == len(names):
                    break
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"the archive is truncated or damaged ({error})") from error
    missing = [name for name in names if name not in files]
    if missing:
        raise DataError(f"the archive lacks {', '.join(missing)}")
    return [files[name] for name in names]


@dataclass(frozen=True)
class CountedReader:
    """A stream that tells how much of it has been read.

    Attributes:
        stream: What is read.
        advance: Takes the number of further bytes.
    """

    stream: BinaryIO
    advance: Callable[[int], None]

    def read(self, size: int = -1) -> bytes:
        """Read on.

        Args:
            size: At most so many bytes; all that are left where it is negative.

        Returns:
            The bytes, empty at the end.
        """
        chunk = self.stream.read(size)
        self.advance(len(chunk))
        return chunk
