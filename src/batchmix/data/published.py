"""Data sets read from the very files that their authors publish, each with its checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from batchmix.data.report import Report
from batchmix.errors import DataError

Content: TypeAlias = bytes | memoryview
"""What a file holds, unpacked."""


class Arrays(NamedTuple):
    """Images (N, H, W, 3) uint8 and labels (N,) int64, to train on and to test with."""

    train_x: NDArray[np.uint8]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.uint8]
    test_y: NDArray[np.int64]


@dataclass(frozen=True)
class File:
    """One published file.

    Attributes:
        name: Its name, without the ``.gz`` of a gzipped one.
        checksum: Algorithm and digest of its contents, unpacked, as in ``md5:0123...``.
        size: Bytes, unpacked; None where nobody needs to know.
    """

    name: str
    checksum: str
    size: int | None = None


@dataclass(frozen=True)
class Form:
    """One form in which a data set is published.

    Attributes:
        title: What a reader of a message calls it.
        files: What it consists of, in the order in which ``decode`` takes them.
        archive: Name of the archive that holds the files; None where each is gzipped on its own.
        folders: Where the files lie below a data folder ("" is that folder itself), or anywhere, as absolute
            paths.
        url: Address of the archive, or of the folder of gzipped files with a slash at its end.
        decode: From the files' contents to images and labels. Raises ``DataError`` for anything else.
    """

    title: str
    files: tuple[File, ...]
    archive: str | None
    folders: tuple[str, ...]
    url: str
    decode: Callable[[Sequence[Content]], Arrays]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the files."""
        return tuple(file.name for file in self.files)


@dataclass(frozen=True)
class Published:
    """A data set and where it may be; tests pass a small one.

    Attributes:
        title: Name in messages.
        forms: What a folder or an archive may hold. The first is the one that is fetched; the sizes of its
            files are known.
        cache_name: Our own file: those of the first form, unpacked, one after the other.
    """

    title: str
    forms: tuple[Form, ...]
    cache_name: str

    @property
    def sizes(self) -> tuple[int, ...]:
        """Bytes of each file of the first form."""
        return tuple(file.size or 0 for file in self.forms[0].files)


def check(contents: Sequence[Content], form: Form, title: str, report: Report) -> None:
    """Compare every file with its checksum.

    Args:
        contents: The files, unpacked.
        form: The checksums.
        title: Name of the data set.
        report: Shows the progress.

    Raises:
        DataError: If a file differs.
    """
    with report.bar(f"checking {title}", sum(len(content) for content in contents)) as advance:
        for content, file in zip(contents, form.files, strict=True):
            algorithm, _, want = file.checksum.partition(":")
            if hashlib.new(algorithm, content, usedforsecurity=False).hexdigest() != want:
                raise DataError(f"{file.name} differs from the official one ({file.checksum} is expected)")
            advance(len(content))
