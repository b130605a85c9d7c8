"""The goals that batchmix sets itself, held against a record: met or missed, with what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from batchmix.bench.cases import BLEND, size_text, threads_text
from batchmix.bench.records import Record, Row, Spread, cases, change_of, find, times_of

OF_COPY = 1.2
OF_CLONE = 1.1
OF_CHAINS = 5.0
OF_PLAIN = 1.0
OF_STEP = 0.01
OF_TRAINING = 0.01
OF_BANDWIDTH = 0.9
# Batches moved: a sample is read for itself and as a partner, and written; a copy reads one and writes one.
MOVED, MOVED_BY_COPY = 3, 2


@dataclass(frozen=True)
class Finding:
    """One measurement that a goal speaks of.

    Args:
        where: The case, in words.
        value: What was measured.
        met: Whether that is within the goal.
        shown: The value in words, if its number alone does not say it all.
    """

    where: str
    value: float
    met: bool
    shown: str


@dataclass(frozen=True)
class Goal:
    """A goal, and where a record says something of it.

    Args:
        text: What it asks for.
        findings: Every measurement of it.
        worst: The one that is farthest on the wrong side.
    """

    text: str
    findings: tuple[Finding, ...]
    worst: Finding

    @property
    def met(self) -> bool:
        """Whether every measurement is within the goal."""
        return all(finding.met for finding in self.findings)

    @property
    def verdict(self) -> str:
        """Met or missed, and in how many cases."""
        count = sum(finding.met for finding in self.findings)
        return "met" if self.met else f"missed ({count} of {len(self.findings)} cases within it)"


def goals_of(record: Record) -> list[Goal]:
    """Every goal of which the record has a measurement."""
    return [
        Goal(text, tuple(found), (min if lower_is_worse else max)(found, key=lambda finding: finding.value))
        for text, check, lower_is_worse in GOALS
        for found in [list(check(record))]
        if found
    ]


Check = Callable[[Record], Iterator[Finding]]


def _to_copy(record: Record) -> Iterator[Finding]:
    for group in _of(record, "blend", "mixup"):
        for form in ("into a buffer", "in place"):
            yield from _ratio(group, form, "copy", lambda value: value <= OF_COPY)


def _to_clone(record: Record) -> Iterator[Finding]:
    for group in _of(record, "blend", "mixup"):
        yield from _ratio(group, "fresh", "clone", lambda value: value <= OF_CLONE)


def _cutmix(record: Record) -> Iterator[Finding]:
    for group in _of(record, "blend", "cutmix"):
        yield from _ratio(group, "in place", "copy", lambda value: value < 1)


def _images(record: Record) -> Iterator[Finding]:
    """The fastest of all peers' chains, to bfloat16, as a multiple of our time."""
    for group in _of(record, "images", "mixup"):
        ours = find(group, "batchmix", "fresh")
        peers = [row for row in group if row["who"] not in ("batchmix", "torch") and row.get("seconds")]
        if ours is None or not peers or group[0]["dtype"] != "bfloat16":
            continue
        fastest = min(peers, key=lambda row: median(row["seconds"]))
        value = times_of(fastest, ours).middle
        where = f"{place(group)}, against {fastest['who']}, {fastest['form']}"
        yield Finding(where, value, value >= OF_CHAINS, f"{value:.1f} times")


def _loss(record: Record) -> Iterator[Finding]:
    for group in _of(record, "loss", "cross entropy"):
        yield from _ratio(group, "mixed target", "plain", lambda value: value <= OF_PLAIN)


def _sampling(record: Record) -> Iterator[Finding]:
    for group in _of(record, "sampling", "draw"):
        step = find(group, "torch", "training step")
        for row in group:
            if step is not None and row["who"] == "batchmix" and row.get("seconds"):
                value = median(row["seconds"]) / median(step["seconds"])
                yield Finding(f"{row['form']}, {place(group)}", value, value < OF_STEP, f"{value:.2%}")


def _price(record: Record) -> Iterator[Finding]:
    for group in cases([row for row in record["rows"] if row["part"] == "price"]):
        form = group[0]["form"]
        without, with_mixup = find(group, "none", form), find(group, "mixup", form)
        if without is None or with_mixup is None:
            continue
        change = change_of(with_mixup, without)
        where = f"{form}, {place(group)}"
        yield Finding(where, change.middle, change.middle <= OF_TRAINING, change_text(change))


def _bandwidth(record: Record) -> Iterator[Finding]:
    if record["options"]["device"] != "cuda":
        return
    for group in _of(record, "blend", "mixup"):
        copy = find(group, "torch", "copy")
        ours = [row for row in group if row["form"] == BLEND and row.get("seconds")]
        if ours and copy is not None:
            best = min(ours, key=lambda row: median(row["seconds"]))
            value = MOVED / MOVED_BY_COPY / times_of(best, copy).middle
            where = f"{best['kernel'] or 'automatic'}, {place(group)}"
            yield Finding(where, value, value >= OF_BANDWIDTH, f"{value:.0%}")


# What each asks for, its measurements, and whether the lowest of them is the worst.
GOALS: tuple[tuple[str, Check, bool], ...] = (
    (f"mixup into a buffer or in place takes at most {OF_COPY:g} of a copy", _to_copy, False),
    (f"mixup into new memory takes at most {OF_CLONE:g} of a clone", _to_clone, False),
    ("CutMix in place takes less than a copy", _cutmix, False),
    (f"uint8 to mixed bfloat16 is at least {OF_CHAINS:g} times faster than any peer's chain", _images, True),
    (f"the loss of a mixed target takes at most {OF_PLAIN:.1f} of the plain one", _loss, False),
    (f"a draw takes less than {OF_STEP:.0%} of a training step of ResNet-18 at batch 128", _sampling, False),
    (f"mixup adds at most {OF_TRAINING:.0%} to a training step", _price, False),
    (f"on a GPU the best kernel reaches at least {OF_BANDWIDTH:.0%} of a copy's bandwidth", _bandwidth, True),
)


def place(group: Sequence[Row]) -> str:
    """Shape, dtype and threads of a case, in words."""
    row = group[0]
    return f"{size_text(row['shape'])} {row['dtype']}, {threads_text(row['threads'])}"


def change_text(change: Spread) -> str:
    """A change in percent, with its interval.

    Example:
        >>> change_text(Spread(0.005, -0.001, 0.011))
        '+0.5% (-0.1% to +1.1%)'
    """
    return f"{change.middle:+.1%} ({change.low:+.1%} to {change.high:+.1%})"


def _of(record: Record, part: str, what: str) -> list[list[Row]]:
    return cases([row for row in record["rows"] if (row["part"], row["what"]) == (part, what)])


def _ratio(group: list[Row], form: str, base: str, within: Callable[[float], bool]) -> Iterator[Finding]:
    ours, other = find(group, "batchmix", form), find(group, "torch", base)
    if ours is not None and other is not None:
        value = times_of(ours, other).middle
        yield Finding(f"{form}, {place(group)}", value, within(value), f"{value:.2f}")
