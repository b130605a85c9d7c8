"""A published data set from the first place that has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TypeAlias

from batchmix.data.cache import data_folder, may_keep, prepare_folder
from batchmix.data.containers import read_archive, read_gzip, read_gzips
from batchmix.data.fetch import opened
from batchmix.data.published import Arrays, Content, Form, Published, check
from batchmix.data.report import Report
from batchmix.errors import DataError
from batchmix.files import write_whole

_LARGEST = 1 << 28  # bytes that a file may claim; the largest that is published here has 155 MB

_Candidate: TypeAlias = tuple[Path, Form, Callable[[], Sequence[Content]]]


def locate(data: Published, root: Path | str | None, *, download: bool, report: Report) -> Arrays:
    """Find, or else fetch and keep, a published data set.

    Looked for in ``root``, or in the cache folder without one: our own file, the files of each form, its
    archive. Every file is checked, and one that is refused is named on a line of its own.

    Args:
        data: Which data set.
        root: A folder with the data, or one that is to keep them. None: the cache folder.
        download: Whether missing data may be fetched.
        report: Where lines and bars go.

    Returns:
        Images and labels.

    Raises:
        DataError: If no place has the data, or they cannot be kept; one line.
        MixError: If ``root`` names no folder.
    """
    folder = data_folder(root)
    tried: list[str] = []
    for place, form, read in _candidates(data, folder):
        try:
            return _checked(read(), form, data, report)
        except (DataError, OSError) as error:
            tried.append(f"{place} ({form.title}): {error}")
            report.line(f"refused {tried[-1]}")
    if not tried:
        tried.append(f"{folder} holds none of {', '.join(_looked_for(data))}")
    if not download:
        tried.append("download is off")
    elif root is not None and not may_keep(folder):
        tried.append("nothing was fetched, as that folder holds other things: name an empty or new one")
    else:
        try:
            return _fetch(data, folder, report)
        except DataError as error:
            tried.append(str(error))
    raise DataError(f"{data.title} is not to be had: {'; '.join(tried)}; {_by_hand(data, folder)}")


def _candidates(data: Published, folder: Path) -> Iterator[_Candidate]:
    cache = folder / data.cache_name
    if cache.is_file():
        yield cache, data.forms[0], partial(_read_cache, cache, data)
    for form in data.forms:
        for below in form.folders:
            place = folder / below  # an absolute path stays what it is
            if any((place / name).is_file() or (place / f"{name}.gz").is_file() for name in form.names):
                yield place, form, partial(read_gzips, place, form.names, _LARGEST)
    for form in data.forms:
        if form.archive is not None and (archive := folder / form.archive).is_file():
            yield archive, form, partial(_read_archive, archive, form)


def _read_cache(path: Path, data: Published) -> list[memoryview]:
    content = memoryview(path.read_bytes())
    if len(content) != sum(data.sizes):
        raise DataError(f"{len(content):,} bytes instead of {sum(data.sizes):,}")
    ends = list(accumulate(data.sizes))
    return [content[end - size : end] for size, end in zip(data.sizes, ends, strict=True)]


def _read_archive(path: Path, form: Form) -> list[bytes]:
    with path.open("rb") as stream:
        return read_archive(stream, form.names, _LARGEST)


def _checked(contents: Sequence[Content], form: Form, data: Published, report: Report) -> Arrays:
    check(contents, form, data.title, report)
    return form.decode(contents)


def _fetch(data: Published, folder: Path, report: Report) -> Arrays:
    form, total = data.forms[0], sum(data.sizes)
    prepare_folder(folder, total)
    try:
        contents = _download(form, data.title, report)
        arrays = _checked(contents, form, data, report)
    except DataError as error:
        raise DataError(f"{form.url}: {error}") from error
    write_whole(folder / data.cache_name, contents, total)
    return arrays


def _download(form: Form, title: str, report: Report) -> list[bytes]:
    if form.archive is not None:
        with opened(form.url, title, report) as stream:
            return read_archive(stream, form.names, _LARGEST)
    contents = []
    for name in form.names:
        with opened(f"{form.url}{name}.gz", title, report) as stream:
            contents.append(read_gzip(stream, _LARGEST))
    return contents


def _looked_for(data: Published) -> list[str]:
    below = [
        place for form in data.forms for place in form.folders if place and not Path(place).is_absolute()
    ]
    archives = [form.archive for form in data.forms if form.archive is not None]
    files = [] if archives else [f"{name}[.gz]" for name in data.forms[0].names]
    return [data.cache_name, *below, *archives, *files]


def _by_hand(data: Published, folder: Path) -> str:
    form = data.forms[0]
    if form.archive is not None:
        return f"by hand: put {form.archive} ({form.url}) into {folder}"
    return f"by hand: put {', '.join(f'{name}.gz' for name in form.names)} ({form.url}) into {folder}"
