"""What a run says while it goes: a progress bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections import deque
from statistics import fmean
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from batchmix.data.report import plain_console
from batchmix.recipe.training import StepReport

REPORTS = 10  # of which the accuracy shown is the mean: a twentieth of a run, where it has 200 of them


class Progress:
    """Follows one run on standard error, so that standard output holds results alone.

    Args:
        shown: False for nothing but how to go on with a run that was stopped.
    """

    def __init__(self, *, shown: bool = True) -> None:
        self.shown = shown
        self.console = plain_console(stderr=True)
        self.bar: Bar | None = None
        self.accuracies: deque[float] = deque(maxlen=REPORTS)
        self.said = time.monotonic()
        self.total = 0

    def note(self, line: str, *, always: bool = False) -> None:
        """Say one line, beside the bar if there is one; even where nothing else is shown if ``always``."""
        if self.shown or always:
            self.console.print(line, soft_wrap=True)

    def start(self, title: str, total: int) -> None:
        """Announce a run of ``total`` steps."""
        self.total = total
        if not self.shown:
            return
        self.note(title)
        if self.console.is_terminal:
            self.bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[state]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.bar.add_task("training", total=total, state="")
            self.bar.start()

    def step(self, report: StepReport) -> None:
        """Show a step."""
        self.accuracies.append(report.accuracy)
        state = f"loss {report.loss:.3f}  accuracy {fmean(self.accuracies):.1%}  {report.size} px"
        if self.bar:
            self.bar.update(self.bar.task_ids[0], completed=report.step + 1, state=state)
        elif self.shown and time.monotonic() - self.said > 20:
            self.said = time.monotonic()
            self.note(f"step {report.step + 1} of {self.total}: {state}")

    def say(self, what: str) -> None:
        """Name what goes on now."""
        if self.bar:
            self.bar.update(self.bar.task_ids[0], description=what)

    def done(self) -> None:
        """End the bar, and leave the terminal as it was."""
        if self.bar:
            self.bar.stop()
            self.bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self.done()
