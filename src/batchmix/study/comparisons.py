"""From the records of a study to its numbers: a cell for each arm, and its comparison with the baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from batchmix.files import is_number
from batchmix.study.records import Budget, Study
from batchmix.study.statistics import Interval, Paired, holm, mean_interval, paired_difference

SHOWN_AT = 0.05  # a corrected p-value up to here counts as shown


@dataclass(frozen=True)
class Score:
    """One number of a run, and how it is written.

    Attributes:
        key: Its name in a record.
        name: Its name in a sentence.
        scale: Factor from the record to what is shown.
        unit: Behind a value.
        gap_unit: Behind a difference.
        digits: Decimals of a difference.
        better: "higher" or "lower"; "" where neither is.
    """

    key: str
    name: str
    scale: float = 1.0
    unit: str = ""
    gap_unit: str = ""
    digits: int = 3
    better: str = "lower"

    @property
    def label(self) -> str:
        """Name and unit, for an axis of values."""
        return f"{self.name} ({self.unit.strip()})" if self.unit else self.name

    def drawn(self, value: float) -> float:
        """A value, or an end of its interval, where a chart has it: no share lies beyond 0 or 1."""
        return self.scale * (min(max(value, 0.0), 1.0) if self.scale == 100 else value)


SCORES = (
    Score("accuracy", "accuracy", 100, " %", " points", 1, "higher"),
    Score("loss", "loss"),
    Score("confidence", "confidence", 100, " %", " points", 1, ""),
    Score("ece", "ECE"),
    Score("ece_scaled", "ECE after scaling"),
    Score("brier", "Brier score"),
    Score("loss_scaled", "loss after scaling"),
    Score("temperature", "temperature", 1, "", "", 3, ""),
)
TIME = Score("train_seconds", "training", 1, " s", " s", 0)


@dataclass(frozen=True)
class Comparison:
    """One arm against the baseline, in one score at one budget, by the seeds that both have.

    Attributes:
        arm: The arm.
        baseline: The arm it is compared with.
        budget: Training images and epochs.
        score: What is compared.
        differences: Arm minus baseline for each common seed, as in the records (not scaled).
        paired: The statistics of ``differences``.
        p: The p-value corrected for ``family`` comparisons.
        family: How many comparisons of this score the report holds.
        left_out: Seeds that only one of the two has, or that have no such score.
        failed: Runs of the arm at this budget that failed.
        constant: Whether the score is the same with every one of these seeds, in each of the two.
    """

    arm: str
    baseline: str
    budget: Budget
    score: Score
    differences: Mapping[int, float]
    paired: Paired
    p: float
    family: int
    left_out: tuple[int, ...]
    failed: int
    constant: bool

    @property
    def shown(self) -> bool:
        """Whether the corrected p-value shows a difference."""
        return self.p <= SHOWN_AT  # False for nan

    @property
    def verdict(self) -> str:
        """One word or two: better, worse, higher, lower, not shown, not tested."""
        if math.isnan(self.p):
            return "not tested"
        if not self.shown:
            return "not shown"
        direction = "higher" if self.paired.mean > 0 else "lower"
        if not self.score.better:
            return direction
        return "better" if direction == self.score.better else "worse"


@dataclass(frozen=True)
class Cell:
    """What the runs of one arm at one budget gave.

    Attributes:
        arm: The arm.
        budget: Training images and epochs.
        seeds: Of the runs that ended.
        failed: How many did not.
        scores: By the key of a score: mean and interval over the seeds.
    """

    arm: str
    budget: Budget
    seeds: tuple[int, ...]
    failed: int
    scores: Mapping[str, Interval]


def values(study: Study, arm: str, budget: Budget, key: str) -> dict[int, float]:
    """A number of each ended run, by seed; runs where it is null or not finite are left out."""
    found = {seed: record.get(key) for seed, record in sorted(study.done(arm, budget).items())}
    return {seed: float(value) for seed, value in found.items() if is_number(value)}


def scores_of(study: Study) -> list[Score]:
    """The scores that any run has: a task without classes has no accuracy."""
    return [
        score
        for score in SCORES
        if any(is_number(record.get(score.key)) for record in study.records if record["status"] == "done")
    ]


def cells(study: Study, budget: Budget) -> list[Cell]:
    """One for each arm, in the order asked."""
    keys = [score.key for score in (*SCORES, TIME)]
    return [
        Cell(
            arm,
            budget,
            seeds=tuple(sorted(study.done(arm, budget))),
            failed=_failures(study, arm, budget),
            scores={key: mean_interval(list(values(study, arm, budget, key).values())) for key in keys},
        )
        for arm in study.arms
    ]


def compare_all(study: Study) -> list[Comparison]:
    """Every arm against the baseline, at every budget, in every score; p-values corrected within each score.

    A report is read as a whole: the family that Holm's method corrects for is all arms at all budgets.
    """
    found: list[Comparison] = []
    for score in scores_of(study):
        family = [
            _compare(study, arm, budget, score)
            for budget in study.budgets
            for arm in study.arms
            if arm != study.baseline
        ]
        corrected = holm([comparison.paired.p for comparison in family])
        tested = sum(not math.isnan(p) for p in corrected)
        found += [replace(one, p=p, family=tested) for one, p in zip(family, corrected, strict=True)]
    return found


def of(
    comparisons: Sequence[Comparison],
    *,
    arm: str | None = None,
    budget: Budget | None = None,
    key: str | None = None,
) -> list[Comparison]:
    """Those of an arm, a budget, a score."""
    return [
        one
        for one in comparisons
        if arm in (None, one.arm) and budget in (None, one.budget) and key in (None, one.score.key)
    ]


def _compare(study: Study, arm: str, budget: Budget, score: Score) -> Comparison:
    treated, plain = (values(study, name, budget, score.key) for name in (arm, study.baseline))
    both = sorted(treated.keys() & plain.keys())
    ended = study.done(arm, budget).keys() | study.done(study.baseline, budget).keys()
    paired = paired_difference([treated[seed] for seed in both], [plain[seed] for seed in both])
    return Comparison(
        arm,
        study.baseline,
        budget,
        score,
        differences={seed: treated[seed] - plain[seed] for seed in both},
        paired=paired,
        p=paired.p,
        family=1,
        left_out=tuple(sorted(ended - set(both))),
        failed=_failures(study, arm, budget),
        constant=all(len({found[seed] for seed in both}) <= 1 for found in (treated, plain)),
    )


def _failures(study: Study, arm: str, budget: Budget) -> int:
    return sum((r["arm"], (r["images"], r["epochs"])) == (arm, budget) for r in study.failed)
