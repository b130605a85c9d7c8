"""Files that are there whole or not at all, lines of JSON, marked places of a page; open to every module."""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import math
import os
import secrets
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from batchmix.errors import DataError

_FORGOTTEN = 24 * 3600.0  # seconds
_NO_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)  # of file systems that have none
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_whole(path: Path, chunks: Iterable[bytes | memoryview], size: int | None = None) -> None:
    """Write a file so that nobody ever sees a part of it under its name.

    The bytes go to a temporary file beside it, which then takes the name in one step; where anything
    stops the write, Ctrl-C included, the temporary file is removed and an older file stays as it was. What
    a killed process left of an earlier write of this file is removed a day later, by the next write.

    Args:
        path: The file, replaced where it exists. Its folder exists.
        chunks: The contents.
        size: Bytes of the contents if known, for the message where they do not fit.

    Raises:
        DataError: If the disk is full or refuses the file.
    """
    # Not tempfile: its files are readable by their owner alone, and a cache may be shared.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    _remove_left(path)
    try:
        with part.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
            _sync(file)
        part.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # where it could not even be made
            part.unlink()
        if isinstance(error, OSError):
            raise cannot_write(path, error, size) from error
        raise


def _sync(file: BinaryIO) -> None:
    """Put the bytes on the disk: else the name can be there before them, where the power fails."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def _remove_left(path: Path) -> None:
    """Remove parts of a file that nobody has written to for a day: their writers are dead, on any host."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.????????.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > _FORGOTTEN:
                part.unlink()


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with ``~`` in words; as it is where there is no such user, as a shell leaves it."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser raises there


def make_folder(folder: Path) -> None:
    """Make a folder where there is none.

    Raises:
        DataError: If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(path: Path, error: OSError, size: int | None = None) -> DataError:
    """The one line for a file or folder that cannot be written."""
    if error.errno in _NO_ROOM:
        needed = "" if size is None else f": {size:,} bytes needed"
        return DataError(f"no room to write {path}{needed} ({error.strerror})")
    return DataError(f"cannot write {path}: {error.strerror or error}")


def read_json_lines(path: Path, needed: Collection[str], what: str) -> list[dict[str, Any]]:
    """The records of a file that has one a line.

    Args:
        path: The file.
        needed: The names that every record has.
        what: What they are, for the message: "a record of a run".

    Raises:
        DataError: If the file cannot be read, or a line is no such record.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            raise DataError(f"{path}:{number} is not a line of JSON") from None
        check_names(f"{path}:{number}", record, needed, what)
        records.append(record)
    return records


def read_json(path: Path, needed: Collection[str], what: str, advice: str = "") -> dict[str, Any]:
    """A file that holds one object.

    Args:
        path: The file.
        needed: The names that the object has.
        what: What it is, for the message: "the record of a run".
        advice: What can be done where it is not, for the end of the message.

    Raises:
        DataError: If the file cannot be read, or is no such object.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except ValueError:
        raise DataError(f"{path} is not {what}: it is not JSON{advice}") from None
    check_names(path, found, needed, what, advice)
    return dict(found)


def check_names(
    place: Path | str, found: object, needed: Collection[str], what: str, advice: str = ""
) -> None:
    """Refuse what was found in a place, unless it is an object with these names; see ``read_json``.

    Raises:
        DataError: If it lacks some; the message names them.
    """
    missing = [name for name in needed if not isinstance(found, dict) or name not in found]
    if missing:
        raise DataError(f"{place} is not {what}: {', '.join(missing)} missing{advice}")


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a record's value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def put_between(text: str, begin: str, end: str, made: str) -> str:
    """A document with something else between two marks.

    Raises:
        DataError: If the marks are not there.
    """
    before, first, rest = text.partition(begin)
    _, last, after = rest.partition(end)
    if not (first and last):
        raise DataError(
            f"the document takes the lines {begin} and {end} around what is put there, found none"
        )
    return f"{before}{begin}\n{made}\n{end}{after}"
