"""The folder that keeps data between runs."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from batchmix.errors import DataError, MixError
from batchmix.files import cannot_write, expanded

KEPT = ("cifar10.bin", "cifar100.bin", "fashion-mnist.bin")
"""Names under which fetched data are kept; a folder that holds one of them is a cache folder of ours."""

_OF_THE_SYSTEM = (".DS_Store", "Thumbs.db", "desktop.ini", "lost+found")  # which the user never put there


def cache_dir() -> Path:
    """Say where data are kept unless the user names a folder.

    Returns:
        ``$BATCHMIX_DATA`` where it is set, else ``$XDG_CACHE_HOME/batchmix``, else ``~/.cache/batchmix``.
    """
    if own := os.environ.get("BATCHMIX_DATA"):
        return expanded(own)
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification has relative paths ignored.
    return (xdg if xdg.is_absolute() else Path.home() / ".cache") / "batchmix"


def data_folder(root: Path | str | None) -> Path:
    """Say where data are looked for and kept.

    Args:
        root: The folder the user names, or None for the cache folder.

    Returns:
        The folder, which need not exist.

    Raises:
        MixError: If ``root`` is no path, empty, or a file.
    """
    if root is None:
        return cache_dir()
    if not isinstance(root, (str, os.PathLike)) or not os.fspath(root):
        raise MixError.of("root", root, "the path of a folder, or None")
    folder = expanded(root)
    if folder.exists() and not folder.is_dir():
        raise MixError.of("root", os.fspath(root), "a folder, not a file")
    return folder


def may_keep(folder: Path) -> bool:
    """Say whether data may be written to a folder that a user names.

    Args:
        folder: Need not exist.

    Returns:
        True where it is new, or empty but for what a killed fetch or the system left, or has been our cache
        before.
    """
    if not folder.exists():
        return True
    names = [path.name for path in folder.iterdir() if path.name not in _OF_THE_SYSTEM]
    return all(map(_is_part, names)) or any((folder / name).is_file() for name in KEPT)


def _is_part(name: str) -> bool:
    """Whether it is a temporary file or folder of a fetch, as ``write_whole`` and ``fetch_npm`` name them."""
    return name.startswith((".npm-", *(f".{kept}." for kept in KEPT))) and name.endswith(".part")


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
        raise cannot_write(folder, error) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise cannot_write(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    if free < size:
        raise DataError(f"no room in {folder}: {size:,} bytes needed, {free:,} free")
