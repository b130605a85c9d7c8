"""The table that airbench prints while it trains, read line by line: a time and an accuracy for each run."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass

AUGMENTED, PLAIN, TIME = "tta_val_acc", "val_acc", "time_seconds"  # names of its columns
LAST = "eval"  # what the last row of a run has for its epoch


@dataclass(frozen=True)
class PrintedRun:
    """What a run printed of itself; accuracies are shares, nan without augmentation if not printed."""

    seconds: float
    accuracy_tta: float
    accuracy: float


class RunReader(io.TextIOBase):
    """Stands in for standard output; calls ``on_run`` at the last row of each run, before the next begins.

    Args:
        on_run: Told of each run; while it does not return, whoever prints does not go on.
    """

    def __init__(self, on_run: Callable[[PrintedRun], None]) -> None:
        self.on_run = on_run
        self.names: list[str] = []
        self.plain = math.nan
        self._rest = ""

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Take printed text, of which only rows of the table count."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._read(line.strip())
        return len(text)

    def _read(self, line: str) -> None:
        if not (line.startswith("|") and line.endswith("|")):
            return
        cells = [cell.strip() for cell in line[1:-1].split("|")]
        if AUGMENTED in cells:
            self.names = cells
            return
        row = dict(zip(self.names, cells, strict=False))
        self.plain = _number(row.get(PLAIN), self.plain)
        if LAST in cells:
            seconds = next((_number(row[name], math.nan) for name in row if TIME in name), math.nan)
            run = PrintedRun(seconds, _number(row.get(AUGMENTED), math.nan), self.plain)
            self.plain = math.nan
            if math.isnan(run.seconds) or math.isnan(run.accuracy_tta):
                raise ValueError(f"no time or no accuracy in the row {line!r}")
            self.on_run(run)


def _number(cell: str | None, otherwise: float) -> float:
    try:
        return float(cell or "")
    except ValueError:
        return otherwise
