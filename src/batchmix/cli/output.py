"""Standard output, whose errors are told apart from those of the work: a full disk, a pipe that is closed."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any


class OutputError(Exception):
    """Standard output does not take what is written; the line that says so, empty where nobody reads."""


class Output:
    """A stream whose errors are ``OutputError``; all else is as the stream has it.

    Args:
        stream: Where it is written to.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write to the stream."""
        with _told_apart():
            written: int = self.stream.write(text)
        return written

    def flush(self) -> None:
        """Flush the stream."""
        with _told_apart():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def checked_output() -> Iterator[None]:
    """Inside, whoever writes to standard output learns that it fails, at the latest as the block ends.

    Raises:
        OutputError: If it fails. What was not written goes nowhere: else Python tries again as it ends.
    """
    stream = sys.stdout or io.StringIO()  # None where it was closed before the start
    try:
        with contextlib.redirect_stdout(Output(stream)):
            yield
            sys.stdout.flush()
    except OutputError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise


@contextlib.contextmanager
def _told_apart() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:  # as head leaves it
        raise OutputError from error
    except OSError as error:
        raise OutputError(f"cannot write the output: {error.strerror}") from error
    except UnicodeEncodeError as error:
        letter = error.object[error.start]
        raise OutputError(f"the output has {letter!r}, which is not in {error.encoding}") from error
