"""The tables of a record, as texts in rows: the page and the terminal show the same ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from batchmix.bench.cases import BYTES, size_text, threads_text
from batchmix.bench.goals import change_text, goals_of
from batchmix.bench.records import Record, Row, Spread, cases, change_of, find, groups, times_of
from batchmix.bench.words import TITLES

METHOD = {"mixup": "mixup", "cutmix": "CutMix"}


@dataclass(frozen=True)
class Table:
    """A table whose cells are text; ``ours`` are the rows to mark."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    ours: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()
    words: int = 1  # columns of text, which stand to the left; those after them are numbers

    def markdown(self) -> str:
        """The table as Markdown, ours in bold; the notes alone where nothing could be measured."""
        if not self.rows:
            return "\n\n".join(self.notes)
        lines = [f"**{self.title}**", ""] if self.title else []
        lines.append(f"| {' | '.join(self.headings)} |")
        lines.append("|" + "---|" * self.words + "---:|" * (len(self.headings) - self.words))
        for index, row in enumerate(self.rows):
            cells = [f"**{cell}**" if index in self.ours and cell else cell for cell in row]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)])


def goal_table(record: Record) -> Table:
    """Every goal: met or missed, and the worst that was measured."""
    rows = [(goal.text, goal.verdict, goal.worst.shown, goal.worst.where) for goal in goals_of(record)]
    return Table("", ("goal", "verdict", "worst measured", "where"), tuple(rows), words=4)


def parts_of(record: Record) -> list[str]:
    """The parts that a record has rows of, in the order of the page."""
    measured = {row["part"] for row in record["rows"]}
    return [part for part in TITLES if part in measured]


def tables_of(record: Record, part: str) -> list[Table]:
    """All tables of a part, none where it was not measured."""
    rows = [row for row in record["rows"] if row["part"] == part]
    if part in ("blend", "images"):
        grouped = groups(rows, "what", "dtype", "threads")
        return [_by_column(_mixing_title(group), group, "copy") for group in grouped]
    if part == "loss":
        grouped = groups(rows, "dtype", "threads")
        return [_by_column(f"{_dtype(group)}, {_threads(group)}", group, "plain") for group in grouped]
    makers = {"sampling": _sampling, "price": _price}
    return [makers[part](rows)] if rows else []


# Ratios: a row for each contender, a column for each shape


def _by_column(title: str, rows: Sequence[Row], base: str) -> Table:
    columns = cases(rows)
    names = list(dict.fromkeys(contender(row) for row in rows))
    ours = {contender(row) for row in rows if row["who"] == "batchmix" and row["kernel"] is None}
    cells = [(name, *(_cell(name, column, base) for column in columns)) for name in names]
    return Table(
        title,
        ("", *(_column_heading(column[0]) for column in columns)),
        tuple(cells),
        frozenset(index for index, name in enumerate(names) if name in ours),
        tuple(dict.fromkeys(f"{contender(row)}: {row['failed']}" for row in rows if "failed" in row)),
    )


def contender(row: Row) -> str:
    """Who, and how, in words."""
    who = row["who"] if row["kernel"] is None else f"{row['who']} ({row['kernel']})"
    return f"{who}, {row['form']}"


def _column_heading(row: Row) -> str:
    return f"K = {row['shape'][1]:,}" if row["part"] == "loss" else size_text(row["shape"])


def _cell(name: str, column: Sequence[Row], base: str) -> str:
    """A contender's ratio; what all are measured against has its time, and a copy its bandwidth."""
    row = next((row for row in column if contender(row) == name), None)
    measured_against = find(column, "torch", base)
    if row is None or measured_against is None or not row.get("seconds"):
        return "-"
    if row is measured_against:
        taken = median(row["seconds"])
        moved = "" if base != "copy" else f", {_moved_by_copy(row) / taken / 1e9:.1f} GB/s"
        return f"{duration(taken)}{moved}"
    clone = find(column, "torch", "clone")
    shown = spread_text(times_of(row, measured_against))
    if row["fresh"] and clone is not None and row is not clone:
        shown += f" / {times_of(row, clone).middle:.2f}"
    return shown


def _moved_by_copy(row: Row) -> int:
    written = BYTES[row["dtype"]]
    return math.prod(row["shape"]) * (written + (1 if row["part"] == "images" else written))


def _mixing_title(group: Sequence[Row]) -> str:
    row = group[0]
    into = f"uint8 to {row['dtype']}" if row["part"] == "images" else _dtype(group)
    return f"{METHOD.get(row['what'], row['what'])}, {into}, {_threads(group)}"


def _dtype(group: Sequence[Row]) -> str:
    return str(group[0]["dtype"])


def _threads(group: Sequence[Row]) -> str:
    return threads_text(group[0]["threads"])


# The parts with a table of their own


def _sampling(rows: Sequence[Row]) -> Table:
    step = find(rows, "torch", "training step")
    cells = []
    for row in rows:
        if row.get("seconds") and step is not None:
            taken = median(row["seconds"])
            share = "" if row is step else f"{taken / median(step['seconds']):.3%}"
            cells.append((contender(row), duration(taken), share))
    ours = frozenset(index for index, row in enumerate(cells) if row[0].startswith("batchmix"))
    return Table(_threads(rows), ("", "time", "share of the step"), tuple(cells), ours)


def _price(rows: Sequence[Row]) -> Table:
    cells, notes = [], []
    for group in cases(rows):
        form, shape = group[0]["form"], size_text(group[0]["shape"])
        without, with_mixup = find(group, "none", form), find(group, "mixup", form)
        if without is None or with_mixup is None:
            notes.append(f"{form}, {shape}: {group[0].get('failed', 'not measured')}")
            continue
        times = [duration(median(row["seconds"])) for row in (without, with_mixup)]
        change = change_of(with_mixup, without)
        cells.append((f"{form}, {shape}", *times, str(len(without["seconds"])), change_text(change)))
    headings = ("", "step without", "step with mixup", "steps of each", "change")
    return Table(_threads(rows), headings, tuple(cells), notes=tuple(notes))


# Numbers in words


def duration(seconds: float) -> str:
    """A time with three figures and its unit.

    Example:
        >>> duration(0.01234), duration(2.5e-05)
        ('12.3 ms', '25 µs')
    """
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= 0.9995 * scale:  # what rounds to 1,000 of a unit is 1 of the next
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def spread_text(spread: Spread) -> str:
    """Median and quartiles of a ratio.

    Example:
        >>> spread_text(Spread(1.04, 1.0, 1.1))
        '1.04 (1.00-1.10)'
    """
    return f"{spread.middle:.2f} ({spread.low:.2f}-{spread.high:.2f})"
