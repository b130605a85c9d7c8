"""The tables of races, as Markdown, made from their records and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from batchmix.bench.race.records import (
    Record,
    accuracy_of,
    extremes_of,
    flop_rate_of,
    mean_seconds_of,
    ratio_of,
    seconds_of,
)
from batchmix.files import put_between

BEGIN, END = "<!-- records:begin -->", "<!-- records:end -->"
NOTHING = (
    "No GPU was at hand: nothing has been measured yet, and this table is empty. "
    "`make race` on a machine with one fills it."
)
# What ours is measured against, the share of its time that is the goal, and the accuracy of both.
GOALS = (("gpu94", "airbench94_muon", 0.7, 0.94), ("gpu96", "airbench96_faster", 0.8, 0.96))
ENOUGH = 50  # runs of each
HEAD = (
    "| contender | runs | time, median | time, mean | fastest, slowest | accuracy | shown | not augmented "
    "| TFLOP | TFLOP/s | share of peak |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def page(records: Sequence[Record]) -> str:
    """A section for each race, the latest first; races of small nets are left out, they say nothing."""
    full = [record for record in records if not record["small"]]
    if not full:
        return NOTHING
    races = dict.fromkeys(record["race"] for record in reversed(full))
    return "\n\n".join(section([r for r in full if r["race"] == race]) for race in races)


def section(records: Sequence[Record]) -> str:
    """The table of one race, and what it says in words."""
    ran = [record for record in records if record["runs"]]
    lines = [HEAD, *map(_row, ran), ""]
    lines += [f"Missing: {r['contender']} ({r['missing']})." for r in records if r["missing"] is not None]
    lines += _goals(ran)
    return "\n".join([f"### {_title(records[0])}\n", *lines, _note(records[0])])


def insert(text: str, made: str) -> str:
    """Put a page between the two marks of a document.

    Raises:
        DataError: If the marks are not there.
    """
    return put_between(text, BEGIN, END, made)


def _title(record: Record) -> str:
    machine = record["machine"]
    where = (
        machine["device"] if machine["device"] != "cpu" else f"{machine['cores']} cores of {machine['cpu']}"
    )
    what = "Time against accuracy" if record["kind"] == "frontier" else "Race"
    tested = ", 45,000 images to train on and 5,000 to test on" if record["held_out"] else ""
    size = ", nets too small to say anything" if record["small"] else ""
    return f"{what} on {where}, {record['date']}{tested}{size}"


def _row(record: Record) -> str:
    interval, rate = accuracy_of(record), flop_rate_of(record)
    flop = "?" if record["flop"] is None else _tera(record["flop"])
    published = " (published)" if record["flop"] is not None and record["flop_from"] == "published" else ""
    cells = (
        record["contender"],
        str(record["n"]),
        f"{seconds_of(record):.3f} s",
        f"{mean_seconds_of(record):.3f} s",
        "{:.3f} s, {:.3f} s".format(*extremes_of(record)),
        f"{100 * interval.mean:.2f}{_half(100 * interval.half)} %",
        _shown(interval.low),
        _plain(record),
        flop + published,
        "?" if rate is None else _tera(rate),
        "?" if rate is None else f"{rate / record['matmul_rate']:.0%}",
    )
    return f"| {' | '.join(cells)} |"


def _goals(records: Iterable[Record]) -> list[str]:
    """What the race says of the goals that it can judge."""
    by_name = {record["contender"]: record for record in records if record["kind"] == "race"}
    lines = []
    for ours, theirs, share, target in GOALS:
        if ours in by_name and theirs in by_name:
            mine, other = by_name[ours], by_name[theirs]
            (ratio, low, high), runs = ratio_of(mine, other), min(mine["n"], other["n"])
            accurate = accuracy_of(mine).low >= target
            reached = high <= share and accurate and runs >= ENOUGH
            few = "" if runs >= ENOUGH else f", which are fewer than {ENOUGH}"
            fastest = extremes_of(other)[0]
            lines.append(
                f"The goal, {target:.0%} in at most {share:g} of the time of {theirs} over {ENOUGH} runs of "
                f"each, {'is' if reached else 'is not'} reached: {ratio:.3f} [{low:.3f}, {high:.3f}] of its "
                f"time over {runs} runs{few}, and the lower end of the interval of the mean accuracy "
                f"{'is' if accurate else 'is not'} {target:.0%} or more. Of its fastest run, "
                f"{fastest:.3f} s, the median of {ours} is {seconds_of(mine) / fastest:.2f}.\n"
            )
    return lines


def _note(record: Record) -> str:
    machine = record["machine"]
    return (
        "Time from images on the device to the accuracy: whitening, training and test-time augmentation are "
        "in it; compilation, in a first run that does not count, is not. Accuracy: mean and its 95% interval "
        "by Student's t; *shown* is the whole percentage that its lower end reaches. Peak: "
        f"{record['matmul_rate'] / 1e12:,.3g} TFLOP/s of a bfloat16 matrix product there. "
        f"torch {machine['torch']}, `{record['command']}`."
    )


def _shown(low: float) -> str:
    return "nothing" if math.isnan(low) else f"{math.floor(100 * low + 1e-9)} %"


def _half(half: float) -> str:
    return "" if math.isnan(half) else f" ± {half:.2f}"


def _tera(flop: float) -> str:
    return f"{flop / 1e12:,.0f}" if flop >= 1e15 else f"{flop / 1e12:.4g}"


def _plain(record: Record) -> str:
    mean = accuracy_of(record, "accuracy").mean
    return "?" if math.isnan(mean) else f"{100 * mean:.2f} %"
