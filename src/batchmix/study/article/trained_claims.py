"""The claims that trained nets decide: (a), (d) and (f)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from batchmix.study.article.claim import Claim, budget_text, earlier_seeds, of_runs, scores_table, training_of
from batchmix.study.article.curves import epochs_to, goal_of
from batchmix.study.article.evidence import Evidence
from batchmix.study.article.presets import MIXUP, NONE, PER_BATCH
from batchmix.study.article.verdicts import (
    ACCURACY,
    CONFIDENCE,
    HELD,
    LOSS,
    REFUTED,
    SCALED_LOSS,
    Comparison,
    Quantity,
    judge,
    overall,
)
from batchmix.study.curve import GLANCE, POINTS
from batchmix.study.records import Budget, Study
from batchmix.study.statistics import mean_interval
from batchmix.study.words import NOTHING, listed, minus


def better_accuracy(evidence: Evidence) -> Claim:
    """(a) More accurate, at a higher loss and a lower confidence."""
    study = evidence.more or evidence.claims
    judged = judge(_better_accuracy(study))
    return Claim(
        title="Better accuracy, at a higher loss and a lower confidence",
        said="A net trained with mixup ends with a higher loss, even on the validation images, and yet "
        "with a much better accuracy: it predicts a bit less confidently.",
        experiment=f"{training_of(study, (NONE, MIXUP))}, with mixup (a weight for each image, folded, "
        "alpha 0.4, to the end of the training) and without. Loss and confidence (the mean of the largest "
        "probability) are those of all test images, unmixed.",
        judged=judged,
        verdict=overall([one.verdict for one in judged]),
        tables=[scores_table(study, (NONE, MIXUP))],
        notes=[*told_by_temperature(study), *_earlier(evidence, _better_accuracy)],
        pictures=("arms",),
    )


def _better_accuracy(study: Study) -> list[Comparison]:
    return [
        of_runs(study, MIXUP, NONE, "mixup is more accurate than none", ACCURACY, "more"),
        of_runs(study, MIXUP, NONE, "its test loss is higher", LOSS, "more"),
        of_runs(study, MIXUP, NONE, "its predictions are less confident", CONFIDENCE, "less"),
    ]


def _earlier(evidence: Evidence, compared: Callable[[Study], list[Comparison]]) -> list[str]:
    """What the study of all arms, which is drawn, had said where more seeds decide."""
    if evidence.more is None:
        return []
    return [f"{earlier_seeds(compared(evidence.claims))} The picture shows those."]


def told_by_temperature(study: Study) -> list[str]:
    """A sentence where a loss that is higher for want of confidence is lower once confidence is put right."""
    (higher,) = judge([of_runs(study, MIXUP, NONE, "its loss is higher", LOSS, "more")])
    (scaled,) = judge([of_runs(study, MIXUP, NONE, "its scaled loss is lower", SCALED_LOSS, "less")])
    if {higher.verdict, scaled.verdict} != {HELD} or _too_confident(study, MIXUP, study.budgets[0]) >= 0:
        return []
    return [
        "Seen afterwards, and not tested: with logits divided by the temperature that fits best, for each "
        f"half of the test images that of the other half, mixup has the lower loss, {scaled.found}. What "
        "makes it the higher one is that the net is too little confident."
    ]


def weight_per_image(evidence: Evidence) -> Claim:
    """(d) A weight for each image trains faster than one for the batch, to the same accuracy."""
    study = evidence.more or evidence.claims
    goal = goal_of(study, study.budgets[0])
    taken, missed = _epochs_taken(study)
    judged = judge(_weight_per_image(study))
    table = scores_table(study, (MIXUP, PER_BATCH))
    rows = [(*row, _interval(taken[arm])) for row, arm in zip(table[1], taken, strict=True)]
    never = f"{missed} of these runs never reached it and count with all of their epochs."
    return Claim(
        title="A weight for each image trains faster than one for the batch",
        said="With a t of its own for every image the net trains faster than with one t for the batch; "
        "both end at the same accuracy.",
        experiment=f"{training_of(study, (MIXUP, PER_BATCH))}, `{MIXUP}` against `{PER_BATCH}`. The goal was "
        "set before any run by a rule: the median accuracy of the runs without mixup at two thirds of their "
        f"training, here {goal:.1%}. Curves have up to {POINTS} points, of {GLANCE:,} test images at equal "
        "distances among all, the last one of all of them, and straight lines between the points.",
        judged=judged,
        verdict=overall([one.verdict for one in judged]),
        tables=[((*table[0], f"epochs to {goal:.1%}"), rows)],
        notes=[*([never] if missed else []), *_earlier(evidence, _weight_per_image)],
        pictures=("curves",),
    )


def _weight_per_image(study: Study) -> list[Comparison]:
    budget = study.budgets[0]
    epochs = Quantity(f"epochs to {goal_of(study, budget):.1%}", budget[1] / 20, " epochs", digits=1)
    taken, _ = _epochs_taken(study)
    sooner = "a weight for each image takes fewer epochs to the goal"
    return [
        Comparison(sooner, epochs, "less", taken[MIXUP], taken[PER_BATCH]),
        of_runs(study, MIXUP, PER_BATCH, "both end at the same accuracy", ACCURACY, "level"),
    ]


def _epochs_taken(study: Study) -> tuple[dict[str, list[float]], int]:
    """Epochs to the goal of both arms, for the seeds that both have, and how many runs never reached it.

    Those count with all of their epochs.
    """
    budget = study.budgets[0]
    goal = goal_of(study, budget)
    reached = {
        arm: {seed: epochs_to(record["curve"], goal) for seed, record in study.done(arm, budget).items()}
        for arm in (MIXUP, PER_BATCH)
    }
    both = sorted(reached[MIXUP].keys() & reached[PER_BATCH].keys())
    missed = sum(found[seed] is None for found in reached.values() for seed in both)
    return {arm: [found[seed] or budget[1] for seed in both] for arm, found in reached.items()}, missed


def budget_from_which(evidence: Evidence) -> Claim:
    """(f) From which budget on mixup pays, on few images and on many."""
    few, many = evidence.claims.budgets[0][0], evidence.many.budgets[0][0]
    studies: dict[Budget, Study] = {
        **dict.fromkeys(evidence.few.budgets, evidence.few),
        evidence.claims.budgets[0]: evidence.claims,
        **dict.fromkeys(evidence.many.budgets, evidence.many),
    }
    budgets = sorted(studies)
    comparisons = [
        of_runs(studies[budget], MIXUP, NONE, f"ahead at {budget_text(budget)}", ACCURACY, "more", budget)
        for budget in budgets
    ]
    judged = judge(comparisons)
    verdicts = dict(zip(budgets, (one.verdict for one in judged), strict=True))
    longest = [
        max(budget for budget in budgets if budget[0] == images) for images in dict.fromkeys((few, many))
    ]
    tables = [scores_table(studies[budget], (NONE, MIXUP), budget) for budget in budgets]
    rows = [
        (budget_text(budget), *row) for budget, (_, own) in zip(budgets, tables, strict=True) for row in own
    ]
    return Claim(
        title="Given enough epochs, mixup pays: from which budget on?",
        said="The article tells of fewer epochs to 94% than without mixup. It does not say how short a "
        "training may be.",
        experiment=f"mixup against none at {len(budgets)} budgets, on {few:,} images (every class in its "
        f"share) and on {many:,}. Every budget is a training of its own, its learning rate falling to 0 "
        "at its end. Decided by the longest budget of each; the others say where the change is.",
        judged=judged,
        verdict=overall([verdicts[budget] for budget in longest]),
        tables=[(("budget", *tables[0][0]), rows)],
        notes=[
            *(
                pays_from({e: verdicts[n, e] for n, e in budgets if n == images}, images)
                for images, _ in longest
            ),
            *told_by_confidence({b: _too_confident(studies[b], NONE, b) for b in budgets}, verdicts),
        ],
        pictures=("budgets",),
    )


def _too_confident(study: Study, arm: str, budget: Budget) -> float:
    """By how much the nets of an arm are more confident than right, in points."""
    records = study.done(arm, budget).values()
    return 100 * fmean(r["confidence"] - r["accuracy"] for r in records) if records else math.nan


def told_by_confidence(gaps: dict[Budget, float], verdicts: dict[Budget, str]) -> list[str]:
    """A sentence where the budgets at which mixup is ahead are those of the nets too sure of themselves.

    Args:
        gaps: By how much the nets without mixup are more confident than right, in points.
        verdicts: Whether mixup is ahead.

    Example:
        >>> gaps = {(5000, 10.0): -1.0, (5000, 40.0): 4.79, (5000, 80.0): 6.0}
        >>> print(*told_by_confidence(gaps, dict(zip(gaps, ("did not hold", "held", "held")))))
        Seen afterwards, and not tested: ... by 4.8 and 6.0 points, ... by −1.0 points.
    """
    ahead, behind = (
        sorted(gaps[budget] for budget, verdict in verdicts.items() if verdict == wanted)
        for wanted in (HELD, REFUTED)
    )
    if not (ahead and behind and ahead[0] > max(0, behind[-1])):
        return []
    return [
        "Seen afterwards, and not tested: mixup is ahead where the nets without it are more confident than "
        f"right, by {_points(ahead)}, and behind where they are less so, by {_points(behind)}."
    ]


def _points(numbers: Sequence[float]) -> str:
    return f"{listed(minus(f'{number:.1f}') for number in numbers)} points"


def pays_from(verdicts: dict[float, str], images: int) -> str:
    """From which number of epochs on mixup is ahead at every one that was tried, in a sentence.

    Example:
        >>> pays_from({10.0: "not shown", 20.0: "held", 40.0: "held"}, 5000)
        'On 5,000 images mixup is ahead from 20 epochs on (tried: 10, 20, 40).'
    """
    tried = f"(tried: {', '.join(f'{epochs:g}' for epochs in sorted(verdicts))})"
    first = None
    for epochs in sorted(verdicts, reverse=True):
        if verdicts[epochs] != HELD:
            break
        first = epochs
    if first is None:
        found = "behind" if verdicts[max(verdicts)] == REFUTED else "not shown to be ahead"
        return f"On {images:,} images mixup is {found} at the longest budget {tried}."
    return f"On {images:,} images mixup is ahead from {first:g} epoch{'' if first == 1 else 's'} on {tried}."


def _interval(numbers: Sequence[float]) -> str:
    found = mean_interval(numbers)
    if not found.n:
        return NOTHING
    return f"{found.mean:.1f}" + ("" if found.n < 2 else f" ± {found.half:.1f}")
