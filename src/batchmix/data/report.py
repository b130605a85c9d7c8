"""What a user sees while data are fetched and checked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def plain_console(*, stderr: bool = False) -> Console:
    """A console that shows text as it is: a path may hold ``[red]`` or ``:cat:``.

    Args:
        stderr: Standard error in place of standard output.
    """
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


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
        sys.stderr.write(f"batchmix: {text}\n")

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
