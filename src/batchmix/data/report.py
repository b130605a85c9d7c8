"""What a user sees while data are fetched and checked."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


class Aside:
    """Standard error for what is said beside the work, which goes on where nobody reads.

    A pipe that is closed or a disk that is full ends nothing: from then on all goes nowhere, what Python
    writes as it ends too.
    """

    def __init__(self) -> None:
        self.stream = sys.stderr or io.StringIO()  # None where it was closed before the start

    def write(self, text: str) -> int:
        """Write to the stream, as long as it takes it."""
        try:
            return self.stream.write(text)
        except OSError:
            self._go_nowhere()
            return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self.stream.flush()
        except OSError:
            self._go_nowhere()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _go_nowhere(self) -> None:
        with suppress(OSError):  # a stream that is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def plain_console(*, stderr: bool = False) -> Console:
    """A console that shows text as it is: a path may hold ``[red]`` or ``:cat:``.

    Args:
        stderr: Standard error, as ``Aside`` has it, in place of standard output.
    """
    from rich.console import Console

    file: Any = Aside() if stderr else None
    return Console(file=file, markup=False, emoji=False, highlight=False)


@dataclass(frozen=True)
class Report:
    """Plain lines on standard error, and progress bars where a person watches.

    Lines are written in any case: they are rare, and each tells of minutes or of data replaced.

    Attributes:
        progress: False turns the bars off; they are off as well where standard error is no terminal.
    """

    progress: bool

    def line(self, text: str) -> None:
        """Write one line.

        Args:
            text: The line, without a line end.
        """
        Aside().write(f"batchmix: {text}\n")

    @contextmanager
    def bar(self, text: str, total: int | None) -> Iterator[Callable[[int], None]]:
        """Show a bar while the block runs.

        Args:
            text: What is being done.
            total: Bytes to come; None where nobody knows.

        Yields:
            A function that takes the number of further bytes done.
        """
        if not (self.progress and sys.stderr.isatty()):
            yield lambda _: None
            return
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=plain_console(stderr=True), transient=True) as progress:
            task = progress.add_task(text, total=total)
            yield lambda done: progress.advance(task, done)
