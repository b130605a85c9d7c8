"""A plain sentence for each comparison: what was shown, or that nothing was, and the seeds it would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batchmix.errors import MixError
from batchmix.study import words
from batchmix.study.comparisons import SHOWN_AT, Comparison, cells, of, scores_of
from batchmix.study.records import Budget, Study
from batchmix.study.statistics import mean_interval, seeds_needed

# A difference of the main score that is worth knowing of, and how it is said.
WORTH = {"accuracy": (0.005, "half a point"), "loss": (0.01, "0.01")}
BESIDE = ("loss", "confidence", "ece")
POWER = 0.8  # chance of finding such a difference that a number of seeds is worth running for


@dataclass(frozen=True)
class Sentence:
    """What the report says of one arm at one budget.

    Attributes:
        arm: The arm.
        budget: Training images and epochs.
        verdict: Of the main score, as `Comparison.verdict` has it.
        text: Of the main score.
        beside: Of the other scores; may be empty.
    """

    arm: str
    budget: Budget
    verdict: str
    text: str
    beside: str

    def __str__(self) -> str:
        return f"{self.arm}: {self.text}." + (f" {self.beside}." if self.beside else "")


def write_sentences(study: Study, comparisons: Sequence[Comparison]) -> list[Sentence]:
    """One for each arm and budget; for a study of one arm, what it reached.

    Args:
        study: The study.
        comparisons: All of it, from `compare_all`.

    Returns:
        In the order of the arms, then of the budgets.
    """
    if len(study.arms) < 2:
        return [_alone(study, budget) for budget in study.budgets]
    return [
        _sentence(of(comparisons, arm=arm, budget=budget), words.budget(budget, study.budgets))
        for arm in study.arms
        for budget in study.budgets
        if of(comparisons, arm=arm, budget=budget)
    ]


def _alone(study: Study, budget: Budget) -> Sentence:
    (cell,) = cells(study, budget)
    when = words.budget(budget, study.budgets)
    reached = [
        f"{score.name} {words.value(score, cell.scores[score.key])}"
        for score in scores_of(study)
        if score.key in ("accuracy", *BESIDE)
    ]
    text = f"{', '.join(reached) or 'no score'} at {when} (n = {len(cell.seeds)}{_failures(cell.failed)})"
    return Sentence(cell.arm, budget, "not tested", f"{text}; a comparison takes a second arm", "")


def _sentence(scores: Sequence[Comparison], when: str) -> Sentence:
    """One arm at one budget, from its comparisons in all scores; the first is the main one."""
    main = scores[0]
    beside = [one for one in scores[1:] if one.score.key in BESIDE and one.paired.n]
    said = f"Also: {', '.join(map(_short, beside))}" if beside else ""
    return Sentence(main.arm, main.budget, main.verdict, _main(main, when) + _left_out(main), said)


def _main(main: Comparison, when: str) -> str:
    found, name = main.paired, main.score.name
    gap = f"{words.gap(main.score, found)} {'of' if main.score.gap_unit else 'in'} {name}"
    if not found.n:
        return f"nothing to compare at {when}, no seed has an ended run of both it and {main.baseline}"
    if found.n == 1:
        return f"{gap} at {when}, from 1 seed: no interval, and nothing is shown"
    if main.verdict == "not tested":
        if main.constant:
            return f"{gap} at {when}, the same in {found.n} seeds: seeds that change nothing show nothing"
        return f"{gap} at {when}, the same difference in all {found.n} seeds: no spread to judge it by"
    if found.mean == 0 == found.sd:
        return f"exactly the {name} of {main.baseline} at {when}, in each of {found.n} seeds"
    if main.shown:
        return f"{gap} at {when} (n = {found.n}, {_p(main)})"
    return (
        f"no difference in {name} could be shown at {when} with {found.n} seeds "
        f"({words.gap(main.score, found)}, {_p(main)}); {_needed(main)}"
    )


def _needed(main: Comparison) -> str:
    """How many seeds it would take, at the level the correction leaves to each comparison at worst.

    Where so many have run, the interval at that level says whether there can be such a difference: the number
    comes from a standard deviation that is a guess of few seeds, and not from where their mean lies.
    """
    worth, spoken = WORTH.get(main.score.key, (0.01, "0.01"))
    level = 1 - SHOWN_AT / main.family
    try:
        needed = seeds_needed(main.paired.sd, worth, level=level, power=POWER)
    except MixError:  # more than anybody would run
        return f"no number of seeds within reason would do for {spoken}"
    if needed > main.paired.n:
        return f"about {needed:,} in all would be needed for {spoken}"
    interval = mean_interval(list(main.differences.values()), level)
    if -worth < interval.low and interval.high < worth:
        return f"{spoken} would most likely have been seen with so many"
    return f"a difference of {spoken} is not ruled out"


def _short(one: Comparison) -> str:
    gap = words.gap(one.score, one.paired)
    if one.verdict == "not tested":
        return f"{one.score.name} {gap} (not tested)"
    if one.shown:
        return f"{one.score.name} {gap} (p {words.p_value(one.p)})"
    return f"no difference in {one.score.name} shown ({gap}, p {words.p_value(one.p)})"


def _p(one: Comparison) -> str:
    corrected = f" corrected for {one.family} comparisons" if one.family > 1 else ""
    return f"p {words.p_value(one.p)}{corrected}"


def _left_out(main: Comparison) -> str:
    """Seeds that were not compared, and why."""
    if not main.left_out or not main.paired.n:
        return _failures(main.failed)
    seeds = "seed" if len(main.left_out) == 1 else "seeds"
    return (
        f"; only seeds that both have are compared, {seeds} {words.listed(main.left_out)} left out"
        f"{_failures(main.failed)}"
    )


def _failures(failed: int) -> str:
    return f"; {words.count(failed, 'run')} of it failed" if failed else ""
