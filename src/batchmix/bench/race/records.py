"""Records of races: a line of JSON for each contender of each race, and what follows from them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from batchmix._version import __version__
from batchmix.bench.race.turns import Entry
from batchmix.files import cannot_write, read_json_lines, write_whole
from batchmix.kernels import selected
from batchmix.study.statistics import Interval, mean_interval

Record = Mapping[str, Any]

FORMAT = 1
RESAMPLES = 10_000  # of the rounds of a race
NEEDED = ("race", "kind", "contender", "runs", "missing", "machine", "command", "date", "small", "held_out")


def records_of(
    entries: Sequence[Entry],
    *,
    kind: str,
    race: str,
    machine: Mapping[str, Any],
    rate: float,
    options: Mapping[str, Any],
    command: str,
) -> list[dict[str, Any]]:
    """What is kept of a race.

    Args:
        entries: Who took part, and what they did.
        kind: ``"race"`` or ``"frontier"``.
        race: What all records of the race have in common: only they may be compared.
        machine: As ``describe_machine`` gives it.
        rate: FLOP per second of a bfloat16 matrix product there.
        options: Those of ``turns.race``.
        command: As typed.
    """
    shared = {"format": FORMAT, "race": race, "kind": kind}
    rest = {
        "small": options["small"],
        "held_out": options["held_out"],
        "machine": dict(machine),
        "matmul_rate": rate,
        "kernel": selected.current(),
        "batchmix": __version__,
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
    }
    return [{**shared, **_of_entry(entry), **rest} for entry in entries]


def append_records(path: Path, records: Sequence[Record]) -> None:
    """Add records to a file, all or none of them.

    Raises:
        DataError: If the file cannot be read or written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise cannot_write(path, error) from error
    write_whole(path, [before, *((json.dumps(record) + "\n").encode() for record in records)])


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a file, none where there is no file.

    Raises:
        DataError: If a line is not such a record.
    """
    if not path.exists():
        return []
    return read_json_lines(path, NEEDED, "a record of a race")


# What a record says


def seconds_of(record: Record) -> float:
    """The median time of a run."""
    return float(median(run["seconds"] for run in record["runs"]))


def mean_seconds_of(record: Record) -> float:
    """The mean time of a run."""
    return fmean(run["seconds"] for run in record["runs"])


def extremes_of(record: Record) -> tuple[float, float]:
    """The times of the fastest run and of the slowest."""
    seconds = [run["seconds"] for run in record["runs"]]
    return min(seconds), max(seconds)


def ratio_of(ours: Record, theirs: Record) -> tuple[float, float, float]:
    """The ratio of the median times, and the 95% interval that resampled rounds give it.

    Both are of the rounds that both ran: one may have ended before the other. Rounds are drawn whole, as
    contenders of a round share the state of the machine.
    """
    rounds = min(ours["n"], theirs["n"])
    seconds = np.array([[run["seconds"] for run in record["runs"][:rounds]] for record in (ours, theirs)])
    drawn = np.random.default_rng(0).integers(rounds, size=(RESAMPLES, rounds))
    mine, other = np.median(seconds[:, drawn], axis=2)
    low, high = np.quantile(mine / other, (0.025, 0.975))
    ratio = np.median(seconds[0]) / np.median(seconds[1])
    return float(ratio), float(low), float(high)


def accuracy_of(record: Record, name: str = "accuracy_tta") -> Interval:
    """Mean accuracy and its 95% interval, of the runs that have it."""
    values = [run[name] for run in record["runs"]]
    return mean_interval([value for value in values if not math.isnan(value)])


def flop_rate_of(record: Record) -> float | None:
    """FLOP per second, over the median run; None where the FLOP of a run are not known."""
    return None if record["flop"] is None else float(record["flop"]) / seconds_of(record)


def _of_entry(entry: Entry) -> dict[str, Any]:
    contender = entry.contender
    counted = entry.ready.get("flop")
    return {
        "contender": contender.name,
        "missing": entry.missing,
        "n": len(entry.runs),
        "warm_up_seconds": entry.ready.get("warm_up_seconds"),
        "flop": contender.flop if counted is None else counted,
        "flop_from": "counted" if counted is not None else "published",
        "config": None if contender.config is None else contender.config.as_dict(),
        "runs": entry.runs,
    }
