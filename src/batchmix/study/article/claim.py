"""What a claim is on the page, and what the claims have in common: pairs of runs, tables of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from batchmix.study.article.verdicts import Comparison, Direction, Judged, Quantity, judge
from batchmix.study.comparisons import SCORES, values
from batchmix.study.records import Budget, Study
from batchmix.study.statistics import mean_interval
from batchmix.study.words import count, value

Table = tuple[tuple[str, ...], Sequence[tuple[str, ...]]]  # head and rows


@dataclass(frozen=True)
class Claim:
    """A claim, its experiment and its verdict.

    Attributes:
        title: In a few words.
        said: What the article says, in other words.
        experiment: What was done.
        judged: Its statements with their verdicts.
        verdict: That of the claim.
        tables: What was measured.
        notes: What else there is to say, a paragraph each.
        pictures: Names of the pictures that belong to it.
    """

    title: str
    said: str
    experiment: str
    judged: list[Judged]
    verdict: str
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    pictures: tuple[str, ...] = ()


def of_runs(
    study: Study,
    first: str,
    second: str,
    says: str,
    quantity: Quantity,
    expected: Direction,
    budget: Budget | None = None,
) -> Comparison:
    """A statement on two arms of a study, paired by the seeds that both have."""
    budget = budget or study.budgets[0]
    found = [values(study, arm, budget, quantity.name) for arm in (first, second)]
    both = sorted(found[0].keys() & found[1].keys())
    return Comparison(says, quantity, expected, *([own[seed] for seed in both] for own in found))


def scores_table(study: Study, arms: Sequence[str], budget: Budget | None = None) -> Table:
    """Mean and interval of the main scores of some arms."""
    budget = budget or study.budgets[0]
    shown = [score for score in SCORES if score.key in ("accuracy", "loss", "confidence", "ece")]
    rows = []
    for arm in arms:
        found = [mean_interval(list(values(study, arm, budget, score.key).values())) for score in shown]
        cells = [value(score, interval) for score, interval in zip(shown, found, strict=True)]
        rows.append((f"`{arm}`", str(found[0].n), *cells))
    return ("arm", "seeds", *(score.name for score in shown)), rows


def training_of(study: Study, arms: Sequence[str]) -> str:
    """What was trained, as the beginning of a sentence; a seed counts where each of the arms has its run."""
    budget = images, epochs = study.budgets[0]
    asked = len(study.asked["seeds"])
    ended = len(set.intersection(*(set(study.done(arm, budget)) for arm in arms)))
    of_them = "" if ended == asked else f"{ended} of "
    return f"{of_them}{count(asked, 'seed')}, {images:,} training images, {epochs:g} epochs"


def earlier_seeds(comparisons: Sequence[Comparison]) -> str:
    """What the study of all arms said where more seeds decide, in a sentence."""
    judged = judge(comparisons)
    said = "; ".join(f"{one.found}, {one.verdict}" for one in judged)
    return (
        f"The {judged[0].n} seeds of the study of all arms, none of which is in the table above, said {said}."
    )


def budget_text(budget: Budget) -> str:
    """A budget in words.

    Example:
        >>> budget_text((5000, 40.0))
        '5,000 images, 40 epochs'
    """
    return f"{budget[0]:,} images, {budget[1]:g} epoch" + ("" if budget[1] == 1 else "s")
