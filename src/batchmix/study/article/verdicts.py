"""From pairs of numbers to a word: held, did not hold, not shown. The rules are ``RULES``, as on the page."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

import numpy as np

from batchmix.errors import MixError
from batchmix.study.statistics import MOST_SEEDS, holm, paired_difference, seeds_needed
from batchmix.study.words import minus

HELD, REFUTED, OPEN = "held", "did not hold", "not shown"
ALPHA = 0.05  # a corrected p-value below counts as shown
_ROUNDING = 1e-12  # differences that agree to this share of their size are the same

Direction = Literal["more", "less", "level", "no less"]
ENDS = {"level": 2, "no less": 1}  # of the margin that count; what is more or less has none

RULES = (
    "Runs are compared in pairs of the same seed, which differ in the mixing alone; the interval is that "
    "of the mean difference, 95% by Student's t. All p-values of one claim are corrected together, by "
    "Holm's method.",
    "**A difference** (more, less): *held* where the corrected p of the paired t test is below .05 and "
    "the difference has the sign that the claim gives it; *did not hold* where p is below .05 and the "
    "sign is the other one; *not shown* otherwise.",
    "**Level** (no difference): a high p shows nothing, so that a margin was set before any run. *Held* "
    "where two one-sided t tests show that the difference lies within the margin; *did not hold* where a "
    "one-sided t test shows that it lies beyond (corrected p below .05 for both); *not shown* otherwise.",
    "**No loss** (no less, where more would do as well): the same with the lower end of the margin alone.",
    "**A count or a size** that has no chance in it: *held* or *did not hold*.",
    "**A claim** of several statements has *held* where all of them have; one that did not hold decides "
    "it; otherwise it is *not shown*.",
    "Beside *not shown* stands the number of pairs (seeds, repeats or batches) that would show the "
    "difference named with it, or that the two are level (or nothing is lost) to within it, in at least "
    "four of five studies, at the strictest level that Holm's method can ask of one of so many statements.",
)


@dataclass(frozen=True)
class Quantity:
    """Something that is measured, and what difference of it is worth knowing.

    Attributes:
        name: In a sentence.
        worth: The difference worth knowing, in the unit of the records; the margin for "level" and "no less".
        unit: Behind a difference.
        scale: Factor from the records to what is shown.
        digits: Decimals of a difference.
        ratio: Whether two values are compared by their ratio; then ``worth`` is a share.
    """

    name: str
    worth: float
    unit: str = ""
    scale: float = 1.0
    digits: int = 2
    ratio: bool = False


ACCURACY = Quantity("accuracy", 0.005, " points", 100)
CONFIDENCE = Quantity("confidence", 0.005, " points", 100)
LOSS = Quantity("loss", 0.01, "", 1, 3)
SCALED_LOSS = Quantity("loss_scaled", 0.01, "", 1, 3)


@dataclass(frozen=True)
class Comparison:
    """What a claim says of two ways to do something, with a value of each for every pair.

    Attributes:
        says: The statement, as a line of the page's table.
        quantity: What is compared.
        expected: How the first is said to differ from the second.
        first: One value a pair.
        second: The other one, in the same order.
    """

    says: str
    quantity: Quantity
    expected: Direction
    first: Sequence[float]
    second: Sequence[float]


@dataclass(frozen=True)
class Fact:
    """A statement without chance: a count, a size, an equality.

    Attributes:
        says: The statement.
        found: What was found, in words.
        holds: Whether it is so; None where nothing was measured.
    """

    says: str
    found: str
    holds: bool | None


@dataclass(frozen=True)
class Judged:
    """A statement and its verdict.

    Attributes:
        says: The statement.
        found: The difference with its interval, in words.
        n: Number of pairs; None for a fact.
        p: The p-value corrected for the statements of the claim; None for a fact.
        verdict: ``held``, ``did not hold`` or ``not shown``.
        needed: Where not shown, what number of pairs would do; else "".
    """

    says: str
    found: str
    n: int | None
    p: float | None
    verdict: str
    needed: str = ""


def judge(statements: Sequence[Comparison | Fact]) -> list[Judged]:
    """Decide the statements of one claim, their p-values corrected together.

    Example:
        >>> better = Comparison("a above b", ACCURACY, "more", [0.82, 0.84, 0.83], [0.80, 0.81, 0.815])
        >>> judge([better])[0].verdict, judge([better])[0].found
        ('held', '+2.17 points [+0.27, +4.06]')
    """
    tests = [p_value(s) if isinstance(s, Comparison) else math.nan for s in statements]
    corrected = holm(tests)
    family = max(1, sum(not math.isnan(p) for p in tests))
    return [
        _judge_comparison(s, p, family) if isinstance(s, Comparison) else _judge_fact(s)
        for s, p in zip(statements, corrected, strict=True)
    ]


def overall(verdicts: Sequence[str]) -> str:
    """The verdict of a claim from those of its statements."""
    if REFUTED in verdicts:
        return REFUTED
    return HELD if verdicts and set(verdicts) == {HELD} else OPEN


def p_value(comparison: Comparison) -> float:
    """The p-value of the test that the statement calls for; nan where there is nothing to test.

    For "level" it is that of the two one-sided tests where the mean lies within the margin, and that of the
    test for a difference beyond the margin where it does not; for "no less" the lower end alone counts.
    """
    first, second = _values(comparison)
    paired = paired_difference(first, second)
    if comparison.expected not in ENDS:
        return paired.p
    if not paired.sd:  # the very same results, up to the rounding of scores
        return math.nan
    differences = [a - b for a, b in zip(first, second, strict=True)]
    return p_of_level(differences, _margin(comparison.quantity), ends=ENDS[comparison.expected])


def p_of_level(differences: Sequence[float], margin: float, *, ends: int = 2) -> float:
    """The p-value of "within the margin" or, where the mean is not, of "beyond the margin".

    Args:
        differences: One a pair.
        margin: Half the width of the range of differences that count as none, > 0.
        ends: Of that range that count: 1, the lower, where more would do as well.

    Returns:
        The p-value; nan for fewer than two differences, or where all are the same: two ways that give the
        very same results with every seed are one way, as a rule by mistake.

    Example:
        >>> round(p_of_level([0.1, -0.1, 0.2, 0.0], margin=0.5), 4)
        0.003
        >>> round(p_of_level([0.9, 1.1, 0.8, 1.0], margin=0.5, ends=1), 4)
        0.0001

    Source: Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach"; one
    end is the test of non-inferiority, Blackwelder 1982, "Proving the null hypothesis in clinical trials";
    beyond both ends, Hodges and Lehmann 1954, "Testing the approximate validity of statistical hypotheses".
    """
    if len(differences) < 2 or stdev(differences) <= _ROUNDING * max(map(abs, differences)):
        return math.nan
    from scipy.special import stdtr

    n, mean = len(differences), fmean(differences)
    errors = math.sqrt(n) / stdev(differences)
    inside = _inside(mean, margin, ends)
    p = stdtr(n - 1, -abs(inside) * errors)
    if ends == 2 and inside < 0:  # equal ways can come out as far off on the other side
        p += stdtr(n - 1, -(abs(mean) + margin) * errors)
    return float(p)


def _inside(mean: float, margin: float, ends: int) -> float:
    """How far from the nearest end, which decides: its test is passed only where the other one's is."""
    return margin - abs(mean) if ends == 2 else margin + mean


def pairs_for_level(
    sd: float, margin: float, level: float = 1 - ALPHA, power: float = 0.8, *, ends: int = 2
) -> int:
    """How many pairs show that two ways are level to within a margin, where they are equal.

    Args:
        sd: Standard deviation of the differences of pairs, >= 0.
        margin: As for ``p_of_level``.
        level: One minus the p-value asked for.
        power: Chance of success.
        ends: As for ``p_of_level``.

    Raises:
        MixError: If it would take more than a million pairs.

    Source: the power of Schuirmann's two tests, averaged over the standard deviations that pairs can have.

    Example:
        >>> pairs_for_level(sd=0.5, margin=0.5)
        11

    """
    if sd == 0:
        return 2
    effect = margin / sd
    n = bisect_left(range(MOST_SEEDS + 1), power, lo=2, key=lambda n: _power_of_level(n, effect, level, ends))
    if n > MOST_SEEDS:
        raise MixError(f"{margin:g} at an sd of {sd:g} takes more than {MOST_SEEDS:,} pairs to show")
    return n


def _power_of_level(n: int, margin: float, level: float, ends: int) -> float:
    """Chance that n pairs without a difference show it; the margin in standard deviations of a pair."""
    from scipy.special import chdtri, ndtr, stdtrit

    beyond = (np.arange(400) + 0.5) / 400  # evenly spaced chances, each standing for its share of studies
    spread = np.sqrt(chdtri(n - 1, beyond) / (n - 1))  # standard deviations that are found where it is 1
    room = margin * math.sqrt(n) - stdtrit(n - 1, level) * spread
    return float(np.maximum(1 - ends * ndtr(-room), 0).mean())


def difference_text(quantity: Quantity, mean: float, low: float, high: float) -> str:
    """A difference or a ratio with its interval; ``nan`` ends are left out.

    Example:
        >>> difference_text(ACCURACY, 0.011, 0.007, 0.015)
        '+1.10 points [+0.70, +1.50]'
        >>> difference_text(Quantity("time", 0.05, ratio=True), math.log(2), math.nan, math.nan)
        '2.00 times'
    """
    if math.isnan(mean):
        return "nothing measured"
    if quantity.ratio:
        texts, unit = [f"{math.exp(value):.{quantity.digits}f}" for value in (mean, low, high)], " times"
    else:
        texts = [f"{quantity.scale * value:+.{quantity.digits}f}" for value in (mean, low, high)]
        unit = quantity.unit
    ends = "" if math.isnan(low) else f" [{texts[1]}, {texts[2]}]"
    return minus(f"{texts[0]}{unit}{ends}")


def _judge_comparison(comparison: Comparison, p: float, family: int) -> Judged:
    quantity = comparison.quantity
    paired = paired_difference(*_values(comparison))
    verdict = _verdict(comparison.expected, paired.mean, _margin(quantity), p)
    return Judged(
        comparison.says,
        difference_text(quantity, paired.mean, paired.low, paired.high),
        paired.n,
        p,
        verdict,
        needed=_needed(comparison, paired.sd, family) if verdict == OPEN else "",
    )


def _judge_fact(fact: Fact) -> Judged:
    verdict = {True: HELD, False: REFUTED, None: OPEN}[fact.holds]
    return Judged(fact.says, fact.found, None, None, verdict)


def _verdict(expected: Direction, mean: float, margin: float, p: float) -> str:
    if not p < ALPHA:  # nan, too
        return OPEN
    if expected in ENDS:
        return HELD if _inside(mean, margin, ENDS[expected]) > 0 else REFUTED
    return HELD if (mean > 0) == (expected == "more") else REFUTED


def _needed(comparison: Comparison, sd: float, family: int) -> str:
    """Number of pairs that would show the difference worth knowing as the first of ``family`` statements."""
    quantity = comparison.quantity
    if math.isnan(sd):
        return "two or more"
    if sd == 0:
        return "all pairs differ alike"
    margin, level = _margin(quantity), 1 - ALPHA / family
    try:
        if comparison.expected in ENDS:
            n = pairs_for_level(sd, margin, level, ends=ENDS[comparison.expected])
        else:
            n = seeds_needed(sd, margin, level)
    except MixError:
        return f"more than {MOST_SEEDS:,}"
    worth = (
        f"{quantity.worth:.0%}" if quantity.ratio else f"{quantity.scale * quantity.worth:g}{quantity.unit}"
    )
    return f"{n:,} for {worth}"


def _values(comparison: Comparison) -> tuple[Sequence[float], Sequence[float]]:
    """Both sides, as logarithms where their ratio counts."""
    if not comparison.quantity.ratio:
        return comparison.first, comparison.second
    return [math.log(v) for v in comparison.first], [math.log(v) for v in comparison.second]


def _margin(quantity: Quantity) -> float:
    return math.log1p(quantity.worth) if quantity.ratio else quantity.worth
