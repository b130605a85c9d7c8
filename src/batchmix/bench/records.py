"""Records of the benchmark: one JSON file each, and the numbers that follow from it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from batchmix.bench.cases import size_text
from batchmix.bench.checks import NEEDED, WHAT, check_record
from batchmix.errors import DataError
from batchmix.files import read_json, write_whole

Record = Mapping[str, Any]
Row = Mapping[str, Any]

FORMAT = 1
CLASSES_BEFORE = 1000  # of the labels beside the images, in records whose options do not say "classes"
RESAMPLES = 2000
TURN = 4  # steps of an arm of the price in a row, in every record of this format


@dataclass(frozen=True)
class Spread:
    """A middle and how far the values lie around it."""

    middle: float
    low: float
    high: float


def write_record(path: Path, record: Record) -> None:
    """Write a record, a row of it to a line.

    Raises:
        DataError: If the file cannot be written.
    """
    rest = {name: value for name, value in record.items() if name != "rows"}
    head = json.dumps(rest, indent=1)[:-2]
    rows = ",\n  ".join(json.dumps(row) for row in record["rows"])
    write_whole(path, [f'{head},\n "rows": [\n  {rows}\n ]\n}}\n'.encode()])


def read_record(path: Path) -> dict[str, Any]:
    """A record that ``write_record`` wrote.

    Raises:
        DataError: If the file is missing or is no such record.
    """
    found = read_json(path, NEEDED, WHAT)
    if found["format"] != FORMAT:
        raise DataError(f"{path} is not {WHAT}, format {FORMAT}")
    check_record(path, found)
    for group in cases(found["rows"]):
        rounds = sorted({len(row["seconds"]) for row in group if "seconds" in row})
        if len(rounds) > 1:
            case = f"{group[0]['part']}, {size_text(group[0]['shape'])} {group[0]['dtype']}"
            counts = " and ".join(map(str, rounds))
            raise DataError(
                f"{path} is not {WHAT}: seconds takes as many for all of a case, got {counts} ({case})"
            )
    return found


# What a record says


def groups(rows: Sequence[Row], *names: str) -> list[list[Row]]:
    """The rows that agree in all of ``names``, in the order in which they come."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = tuple(tuple(row[name]) if isinstance(row[name], list) else row[name] for name in names)
        found.setdefault(key, []).append(row)
    return list(found.values())


def cases(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each case: contenders that did the same work in the same rounds."""
    return groups(rows, "part", "what", "shape", "dtype", "threads")


def find(rows: Sequence[Row], who: str, form: str) -> Row | None:
    """The row of a contender that could be timed, by the automatic choice of kernel."""
    for row in rows:
        if (row["who"], row["form"], row["kernel"]) == (who, form, None) and row.get("seconds"):
            return row
    return None


def spread_of(values: Sequence[float]) -> Spread:
    """Median and quartiles."""
    if len(values) < 2:
        return Spread(values[0], values[0], values[0])
    low, middle, high = quantiles(values, n=4, method="inclusive")
    return Spread(middle, low, high)


def times_of(row: Row, base: Row) -> Spread:
    """How often the time of ``base`` a contender took: median and quartiles over the rounds.

    The two are compared round by round, since both met whatever else the machine did then.
    """
    return spread_of([mine / other for mine, other in zip(row["seconds"], base["seconds"], strict=True)])


def change_of(row: Row, base: Row) -> Spread:
    """By which share the median time exceeds that of ``base``, with a 95% interval by the bootstrap.

    Whole turns of both arms are resampled: steps of one turn met the same machine, and are not independent.
    """
    draw = random.Random(0)
    mine, other = row["seconds"], base["seconds"]
    turns = [(mine[at : at + TURN], other[at : at + TURN]) for at in range(0, len(mine), TURN)]
    ratios = sorted(_change(draw.choices(turns, k=len(turns))) for _ in range(RESAMPLES))
    edge = round(0.025 * RESAMPLES)
    return Spread(_change(turns), ratios[edge], ratios[-1 - edge])


def _change(turns: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """The same of these turns, without an interval."""
    mine: float = median(chain.from_iterable(turn[0] for turn in turns))
    return mine / median(chain.from_iterable(turn[1] for turn in turns)) - 1
