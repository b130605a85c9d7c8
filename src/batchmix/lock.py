"""One process at a time works on the folder of a run or a study; open to every module."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from batchmix.errors import DataError
from batchmix.files import cannot_write

# By another process; all else says that there are no locks in this place.
_HELD = errno.EACCES, errno.EAGAIN


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder while the block runs.

    The lock is the system's, which takes it back from a process that ends, however it does. A file system
    that has no locks lets everybody in.

    Args:
        folder: Exists.

    Raises:
        DataError: If another process holds it, or it cannot be written to.
    """
    path = folder / ".lock"
    try:
        file = _held(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        yield
    finally:
        # Away before it is free: whoever has it open by then sees that it is not there any more.
        with contextlib.suppress(OSError):  # Windows keeps what is open
            path.unlink()
        file.close()


def _held(path: Path) -> TextIO:
    """The file of that name, locked, with a line that says by whom."""
    while True:
        file = path.open("a+")  # which does not empty what the holder wrote
        try:
            if not _lock(file):
                file.seek(0)
                raise DataError(f"{path.parent} is in use by {file.read() or 'another process'}")
            if _is_there(path, file):
                file.truncate(0)
                file.write(f"process {os.getpid()} on {platform.node()}")
                file.flush()
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: TextIO) -> bool:
    """Whether the file is this process's from now on."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(2**30)  # what is locked cannot be read there
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            # Not flock(), which a forked worker would hold on to for a while after its parent was killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD
    return True


def _is_there(path: Path, file: TextIO) -> bool:
    """Whether the name is this file's yet: who held it may have removed it while it was opened here."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
