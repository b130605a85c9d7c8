"""One process at a time works on the folder of a study."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batchmix.errors import DataError
from batchmix.files import cannot_write


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder while the block runs.

    A process that was killed could not give it back: its lock is taken over.

    Args:
        folder: Exists.

    Raises:
        DataError: If another process holds it, or it cannot be written to.
    """
    path = folder / ".lock"
    while not _take(path):
        holder = _holder(path)
        if holder is not None:
            raise DataError(f"{folder} is in use by process {holder}; if that is not so, remove {path}")
        path.unlink(missing_ok=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _take(path: Path) -> bool:
    try:
        with path.open("x") as file:
            file.write(f"{os.getpid()} on {platform.node()}")
    except FileExistsError:
        return False
    except OSError as error:
        raise cannot_write(path, error) from error
    return True


def _holder(path: Path) -> str | None:
    """Who holds the lock; None where that process is no more."""
    import psutil

    try:
        holder = path.read_text()
    except FileNotFoundError:  # given back this moment
        return None
    number, _, machine = holder.partition(" on ")
    here = machine == platform.node() and number.isdecimal()
    return None if here and not psutil.pid_exists(int(number)) else holder or "unknown"
