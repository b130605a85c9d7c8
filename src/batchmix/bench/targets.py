"""Files that are to be written once minutes have been spent: what is wrong with them is said before."""

from __future__ import annotations

import tempfile
from pathlib import Path

from batchmix.errors import DataError, MixError
from batchmix.files import cannot_write


def check_target(flag: str, path: Path) -> None:
    """Refuse a file that could not be written later.

    Args:
        flag: Which the user gave it by.
        path: The file; one that is there would be replaced.

    Raises:
        MixError: If it is a folder, or would lie in one that does not exist.
        DataError: If its folder takes no files.
    """
    folder = path.absolute().parent
    if path.is_dir() or not folder.is_dir():
        raise MixError.of(flag, str(path), "a file in a folder that exists")
    try:
        with tempfile.TemporaryFile(dir=folder):  # os.access allows root what a file system refuses
            pass
    except OSError as error:
        raise cannot_write(path, error) from error


def text_of(page: Path) -> str:
    """The text of a page that is there.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        return page.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot read {page}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {page}: it is no text in UTF-8") from error
