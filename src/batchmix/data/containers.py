"""The files of an encoding, out of a folder or an archive, as bytes in memory."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from batchmix.data.layout import Encoding, Layout
from batchmix.errors import DataError


def read_folder(folder: Path, encoding: Encoding) -> list[bytes]:
    """Read an encoding's files from a folder.

    Args:
        folder: Where they lie.
        encoding: Which files.

    Returns:
        Their contents, in the encoding's order.

    Raises:
        DataError: If one is missing.
    """
    missing = [name for name in encoding.names if not (folder / name).is_file()]
    if missing:
        raise DataError(f"lacks {', '.join(missing)}")
    return [(folder / name).read_bytes() for name in encoding.names]


def read_archive(stream: BinaryIO, encoding: Encoding, layout: Layout) -> list[bytes]:
    """Read an encoding's files from a gzipped tar, front to back, without unpacking it anywhere.

    Args:
        stream: The archive; it need not be seekable, so it may still be on its way.
        encoding: Which files; they may lie in any folder of the archive.
        layout: Bounds the size that a file may claim.

    Returns:
        Their contents, in the encoding's order.

    Raises:
        DataError: If the archive is truncated or damaged, or lacks a file.
    """
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=stream, mode="r|gz") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                # Regular files only: a link has no contents of its own.
                if name not in encoding.names or not member.isreg():
                    continue
                if member.size > layout.total_bytes:
                    raise DataError(f"{member.name} claims {member.size:,} bytes")
                if (content := tar.extractfile(member)) is not None:
                    files[name] = content.read()
                if len(files) == len(encoding.names):
                    break
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"the archive is truncated or damaged ({error})") from error
    missing = [name for name in encoding.names if name not in files]
    if missing:
        raise DataError(f"the archive lacks {', '.join(missing)}")
    return [files[name] for name in encoding.names]


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
