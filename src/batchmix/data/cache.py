"""The folder that keeps data between runs, and files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from batchmix.errors import DataError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def cache_dir() -> Path:
    """Say where data are kept unless the user names a folder.

    Returns:
        ``$BATCHMIX_DATA`` where it is set, else ``$XDG_CACHE_HOME/batchmix``, else ``~/.cache/batchmix``.
    """
    if own := os.environ.get("BATCHMIX_DATA"):
        return Path(own).expanduser()
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification has relative paths ignored.
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "batchmix"


def prepare_folder(folder: Path, size: int) -> None:
    """Make a folder and look for room in it, before minutes go into a download.

    Args:
        folder: Made with its parents where it is missing.
        size: Bytes that are going to be written.

    Raises:
        DataError: If the folder cannot be made or written to, or its disk has less room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise _unwritable(folder, error) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    if free < size:
        raise DataError(f"no room in {folder}: {size:,} bytes needed, {free:,} free")


def write_whole(path: Path, chunks: Iterable[bytes | memoryview], size: int) -> None:
    """Write a file so that nobody ever sees a part of it under its name.

    The bytes go to a temporary file beside it, which then takes the name in one step; where anything
    stops the write, Ctrl-C included, the temporary file is removed and an older file stays as it was.

    Args:
        path: The file, replaced where it exists. Its folder exists.
        chunks: The contents.
        size: Bytes of the contents, for the message where they do not fit.

    Raises:
        DataError: If the disk is full or refuses the file.
    """
    # Not tempfile: its files are readable by their owner alone, and a cache may be shared.
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            for chunk in chunks:
                file.write(chunk)
        part.replace(path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        if error.errno in _NO_ROOM:
            raise DataError(f"no room to write {path}: {size:,} bytes needed ({error.strerror})") from error
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write {path}: {error.strerror or error}; name another folder with root or $BATCHMIX_DATA"
    )
