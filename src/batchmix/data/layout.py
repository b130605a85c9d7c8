"""What a data set is made of: batches of records, their checksums, the encodings they travel in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

RECORD_BYTES = 3073
"""One label byte, then 1024 red, 1024 green and 1024 blue bytes, row by row."""

Batches: TypeAlias = NDArray[np.uint8]
"""(batches, records in a batch, RECORD_BYTES): the official binary version, byte for byte."""


@dataclass(frozen=True)
class Encoding:
    """One way the data set is published: the files it consists of and how they turn into records.

    Attributes:
        title: What a reader of a message calls it.
        names: The files of the encoding, in the order in which ``decode`` takes them.
        archive: Name of the archive that holds these files.
        subfolder: Where the archive unpacks to; None where unpacked files are not looked for.
        decode: From the files' contents and the records in a batch to ``Batches``.
            Raises ``DataError`` for contents that are not of this encoding.
    """

    title: str
    names: tuple[str, ...]
    archive: str
    subfolder: str | None
    decode: Callable[[Sequence[bytes], int], Batches]


@dataclass(frozen=True)
class Layout:
    """A data set's shape, checksums and addresses; tests pass a small one.

    Attributes:
        title: Name in messages.
        records: Records in one batch.
        md5: Checksum of each batch in the official binary version, in order.
        cache_name: File name of our own cache, which holds all batches one after the other.
        encodings: What a folder or an archive may hold, the quickest to read first.
        url: Address of the archive of ``encodings[0]``.
        npm_package: Package, with its version, whose archive is of ``encodings[-1]``.
    """

    title: str
    records: int
    md5: tuple[str, ...]
    cache_name: str
    encodings: tuple[Encoding, ...]
    url: str
    npm_package: str

    @property
    def total_bytes(self) -> int:
        """Size of all batches together, which is the size of the cache file."""
        return len(self.md5) * self.records * RECORD_BYTES
