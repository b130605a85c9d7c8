"""What a handful of runs can say: intervals, paired differences, corrected p-values, seeds needed.

The runs of a study are few, so that everything here is Student's t. ``scipy.special`` holds its distribution
as plain functions, quick enough for thousands of simulated studies; tests hold them against ``scipy.stats``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from batchmix.errors import MixError

MOST_SEEDS = 1_000_000  # beyond this nobody counts
_ROUNDING = 1e-6  # differences that agree to this share of the scores are the same: scores may be float32


@dataclass(frozen=True)
class Interval:
    """A mean and where it may lie.

    Attributes:
        n: How many values.
        mean: Their mean; nan without any.
        low: Lower end of the interval; nan for fewer than two values.
        high: Upper end.
    """

    n: int
    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width, what stands behind the ±."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Paired(Interval):
    """The mean difference of pairs.

    Attributes:
        p: Two-sided p-value of the paired t test; nan where there is nothing to test.
        sd: Standard deviation of the differences; nan for fewer than two.
    """

    p: float
    sd: float


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The mean and its interval by Student's t.

    Args:
        values: Independent values, such as the accuracies of runs with different seeds.
        level: Share of such intervals that hold the true mean, in (0, 1).

    Returns:
        The interval; its ends are nan for fewer than two values.

    Raises:
        MixError: If ``level`` is not in (0, 1).

    Example:
        >>> mean_interval([1.0, 2.0, 3.0])
        Interval(n=3, mean=2.0, low=-0.484..., high=4.484...)
    """
    _check_share("level", level)
    n = len(values)
    if n < 2:
        return Interval(n, fmean(values) if n else math.nan, math.nan, math.nan)
    mean, half = fmean(values), _quantile(n - 1, level) * _stdev(values) / math.sqrt(n)
    return Interval(n, mean, mean - half, mean + half)


def paired_difference(treated: Sequence[float], baseline: Sequence[float], level: float = 0.95) -> Paired:
    """The mean of ``treated - baseline`` over pairs, with its interval and the paired t test.

    Pairs that are all the same give a difference of 0 with p = 1. Pairs that differ all by the very same
    amount have no spread to judge it by (a seed that changes nothing, as a rule): interval and p are nan,
    where the formula would say p = 0. Both are meant up to the rounding of scores in float32.

    Args:
        treated: One value a pair.
        baseline: The other one, in the same order.
        level: Of the interval, in (0, 1).

    Returns:
        The difference; interval, p and sd are nan for fewer than two pairs.

    Raises:
        MixError: If the lengths differ, or ``level`` is not in (0, 1).

    Example:
        >>> found = paired_difference([0.82, 0.84, 0.83], [0.80, 0.81, 0.82])
        >>> print(f"{found.mean:+.3f}, p = {found.p:.3f}")
        +0.020, p = 0.074
    """
    if len(treated) != len(baseline):
        raise MixError(f"treated takes one value for each of baseline's {len(baseline)}, got {len(treated)}")
    differences = [a - b for a, b in zip(treated, baseline, strict=True)]
    interval = mean_interval(differences, level)
    n, mean = interval.n, interval.mean
    if n < 2:
        return Paired(n, mean, math.nan, math.nan, p=math.nan, sd=math.nan)
    sd = _stdev(differences)
    rounding = _ROUNDING * max(map(abs, (*treated, *baseline)))
    if sd <= rounding:
        if max(map(abs, differences)) <= rounding:
            return Paired(n, 0.0, 0.0, 0.0, p=1.0, sd=0.0)
        return Paired(n, mean, math.nan, math.nan, p=math.nan, sd=0.0)
    from scipy.special import stdtr

    p = float(2 * stdtr(n - 1, -abs(mean) / (sd / math.sqrt(n))))
    return Paired(n, mean, interval.low, interval.high, p=p, sd=sd)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, by Holm's step-down method.

    If all of these differences were nil, the chance that any corrected value falls to 0.05 or below is at
    most 5%, however the comparisons hang together.

    Args:
        p_values: One for each comparison, in any order; nan (nothing to test) stays nan and does not count.

    Returns:
        The corrected values, in the same order.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6.
    """
    tested = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    corrected = [math.nan] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        corrected[place] = largest
    return corrected


def seeds_needed(sd: float, difference: float, level: float = 0.95, power: float = 0.8) -> int:
    """How many pairs a paired t test takes to show a difference.

    Args:
        sd: Standard deviation of the differences of pairs, >= 0.
        difference: The true mean difference that is to be found, > 0, in the unit of ``sd``.
        level: One minus the p-value asked for, in (0, 1).
        power: Chance of finding it, and with its own sign, in (0, 1).

    Returns:
        The smallest number of pairs, at least 2.

    Raises:
        MixError: If an argument is out of its range, or it would take more than a million pairs.

    Example:
        >>> seeds_needed(sd=0.5, difference=0.5)
        10

    Source: the noncentral t distribution; Cohen 1988, "Statistical Power Analysis", chapter 2.
    """
    _check_share("level", level)
    _check_share("power", power)
    if not (math.isfinite(sd) and sd >= 0):
        raise MixError.of("sd", sd, "a number >= 0")
    if not (math.isfinite(difference) and difference > 0):
        raise MixError.of("difference", difference, "a number > 0")
    effect = difference / sd if sd > 0 else math.inf
    enough = 2
    while _power(enough, effect, level) < power:
        enough *= 2
        if enough > MOST_SEEDS:
            raise MixError(f"{difference:g} at an sd of {sd:g} takes more than {MOST_SEEDS:,} pairs to show")
    return _first(lambda n: _power(n, effect, level) >= power, max(2, enough // 2), enough)


def _power(n: int, effect: float, level: float) -> float:
    """Chance that a paired t test of n pairs shows a true difference of ``effect`` standard deviations."""
    from scipy.special import chdtr, nctdtr

    quantile, centre = _quantile(n - 1, level), effect * math.sqrt(n)
    if effect > 100:  # where nctdtr loses its way, the noise left is that of the standard deviation alone
        return float(chdtr(n - 1, (n - 1) * (centre / quantile) ** 2))
    return 1.0 - float(nctdtr(n - 1, centre, quantile))


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The smallest number in [low, high] from which on ``holds``; it holds at ``high``."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _stdev(values: Sequence[float]) -> float:
    """Standard deviation of a sample; `statistics.stdev` is exact to the last bit, and slow for it."""
    mean = fmean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


@functools.cache
def _quantile(df: int, level: float) -> float:
    """Where the middle ``level`` of Student's t ends."""
    from scipy.special import stdtrit

    return float(stdtrit(df, (1 + level) / 2))


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise MixError.of(name, value, "a number between 0 and 1")
