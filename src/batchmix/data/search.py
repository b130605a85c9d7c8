"""What a folder holds of a data set: each form that is there, verified."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from batchmix.data.checksums import verify
from batchmix.data.containers import read_archive, read_folder
from batchmix.data.layout import RECORD_BYTES, Batches, Encoding, Layout
from batchmix.data.report import Report
from batchmix.errors import DataError


@dataclass(frozen=True, eq=False)
class Finding:
    """One form of the data set that lies in a folder.

    Attributes:
        path: The file, or the folder that holds the files.
        title: What form it is.
        size: Bytes on disk.
        batches: The records; None where they are refused.
        problem: Why they are refused; None where every checksum is right.
    """

    path: Path
    title: str
    size: int
    batches: Batches | None
    problem: str | None


_Candidate: TypeAlias = tuple[Path, str, int, Callable[[], Batches]]


def search(folder: Path, layout: Layout, report: Report) -> Iterator[Finding]:
    """Look for a data set in a folder, the forms that load quickest first.

    Args:
        folder: Need not exist.
        layout: What to look for.
        report: Shows the progress.

    Yields:
        Each form that is there, read and verified when it is asked for.
    """
    for path, title, size, read in _candidates(folder, layout):
        try:
            batches = read()
            verify(batches, layout, report)
        except (DataError, OSError) as error:
            yield Finding(path, title, size, None, str(error))
        else:
            yield Finding(path, title, size, batches, None)


def _candidates(folder: Path, layout: Layout) -> Iterator[_Candidate]:
    cache = folder / layout.cache_name
    if cache.is_file():
        yield cache, "batchmix cache", cache.stat().st_size, partial(_read_cache, cache, layout)
    for encoding in layout.encodings:
        if encoding.subfolder is None:
            continue
        for place in (folder, folder / encoding.subfolder):
            files = [place / name for name in encoding.names if (place / name).is_file()]
            if files:
                size = sum(file.stat().st_size for file in files)
                yield place, f"{encoding.title}, files", size, partial(_read_files, place, encoding, layout)
    for encoding in layout.encodings:
        archive = folder / encoding.archive
        if archive.is_file():
            read = partial(_read_archive, archive, encoding, layout)
            yield archive, f"{encoding.title}, archive", archive.stat().st_size, read


def _read_cache(path: Path, layout: Layout) -> Batches:
    size = path.stat().st_size
    if size != layout.total_bytes:
        raise DataError(f"{size:,} bytes instead of {layout.total_bytes:,}")
    return np.fromfile(path, np.uint8).reshape(len(layout.md5), layout.records, RECORD_BYTES)


def _read_files(place: Path, encoding: Encoding, layout: Layout) -> Batches:
    return encoding.decode(read_folder(place, encoding.names), layout.records)


def _read_archive(path: Path, encoding: Encoding, layout: Layout) -> Batches:
    with path.open("rb") as stream:
        return encoding.decode(read_archive(stream, encoding.names, layout.total_bytes), layout.records)
