"""What a study says while it goes: a bar for all of it on a terminal, a line for each result."""

from __future__ import annotations

import time
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from batchmix.data.report import plain_console
from batchmix.study.plan import Run
from batchmix.study.records import Record


class StudyProgress:
    """Follows a study on standard error, so that standard output holds results alone.

    Args:
        shown: False for silence.

    Attributes:
        stopped: Whether the study was stopped before its end.
        interrupted: Whether a stop was asked for, if only after the last run had begun its test.
    """

    def __init__(self, *, shown: bool = True) -> None:
        self.shown = shown
        self.console = plain_console(stderr=True)
        self.stopped = self.interrupted = False
        self.bar: Progress | None = None
        self.shares: dict[Run, float] = {}  # of the steps of each run
        self.first: dict[Run, float] = {}  # what was done before, by a run that goes on
        self.total = self.count = 0
        self.work = 0.0
        self.begun = time.monotonic()

    def note(self, line: str) -> None:
        """Say one line, above the bar if there is one."""
        if self.shown:
            self.console.print(line, soft_wrap=True)

    def start(self, runs: list[Run], missing: list[Run]) -> None:
        """Announce a study: all its runs, and those to train now."""
        self.total, self.count = len(runs), len(runs) - len(missing)
        self.work = sum(run.work for run in missing)
        self.begun = time.monotonic()
        done = f", {self.count} of them done before" if self.count else ""
        self.note(f"{self.total} run{'' if self.total == 1 else 's'}{done}")
        if self.shown and self.console.is_terminal and missing:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
            self.bar = Progress(*columns, TimeElapsedColumn(), console=self.console)
            self.bar.add_task("", total=self.work, left="")
            self._show()

    def step(self, run: Run, share: float) -> None:
        """A run has done a share of its steps."""
        self.first.setdefault(run, share)
        self.shares[run] = share
        self._show()

    def ended(self, run: Run, record: Record) -> None:
        """A run is done, or has failed."""
        self.shares[run] = 1.0
        self.count += 1
        self.note(f"[{self.count}/{self.total}] {_name(run)}: {_result(record)}{self._plain_left()}")
        self._show()

    def left(self) -> str:
        """The time that is left, from what the images up to now have taken."""
        now = sum(run.work * (share - self.first.get(run, 0.0)) for run, share in self.shares.items())
        if not now:
            return ""
        seconds = (time.monotonic() - self.begun) * (self.work - self._done()) / now
        return f"about {_duration(seconds)} left" if seconds >= 1 else ""

    def __enter__(self) -> StudyProgress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

    def _done(self) -> float:
        """Images trained on, with those before a run went on."""
        return sum(run.work * share for run, share in self.shares.items())

    def _plain_left(self) -> str:
        left = "" if self.bar else self.left()
        return f" ({left})" if left else ""

    def _show(self) -> None:
        if self.bar:
            text = f"{self.count} of {self.total} runs"
            self.bar.update(self.bar.task_ids[0], description=text, completed=self._done(), left=self.left())


def _name(run: Run) -> str:
    epochs = "epoch" if run.epochs == 1 else "epochs"
    return f"{run.arm}, {run.epochs:g} {epochs}, seed {run.seed}"


def _result(record: Record) -> str:
    if record["status"] == "failed":
        return f"failed: {record['error']}"
    accuracy = "" if record["accuracy"] is None else f"{record['accuracy']:.2%}, "
    return f"{accuracy}loss {record['loss']:.4f}, {_duration(record['train_seconds'])}"


def _duration(seconds: float) -> str:
    """Seconds as people say them.

    Example:
        >>> _duration(70), _duration(4000)
        ('1 min 10 s', '1 h 06 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
