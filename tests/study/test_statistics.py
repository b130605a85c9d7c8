"""The statistics against SciPy's own, and against simulated runs whose truth is known."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from batchmix.errors import MixError
from batchmix.study.statistics import holm, mean_interval, paired_difference, seeds_needed

stats = pytest.importorskip("scipy.stats")
STUDIES = 4000


def within_binomial_error(share, expected, trials):
    """Whether a share of so many trials is what chance allows, in all but 1 of 100,000 cases."""
    low, high = stats.binom.interval(1 - 1e-5, trials, expected)
    return low <= share * trials <= high


def simulated(n, effect, arms=1, seed=0):
    """Accuracies of ``STUDIES`` studies: (studies, arms, n) and the baseline's (studies, n), paired."""
    generator = np.random.default_rng(seed)
    common = generator.normal(0.9, 0.01, (STUDIES, n))
    plain = common + generator.normal(0, 0.003, (STUDIES, n))
    return common[:, None] + effect + generator.normal(0, 0.003, (STUDIES, arms, n)), plain


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_intervals_are_those_of_scipy(n, level):
    values = np.random.default_rng(n).normal(3, 2, n).tolist()
    found = mean_interval(values, level)
    expected = stats.t.interval(level, n - 1, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)
    assert (found.n, found.mean) == (n, pytest.approx(np.mean(values)))
    assert found.half == pytest.approx((found.high - found.low) / 2)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("seed", range(5))
def test_paired_differences_are_those_of_scipy(n, seed):
    treated, plain = np.random.default_rng(seed).normal(0.5, 0.1, (2, n))
    found = paired_difference(treated.tolist(), plain.tolist(), level=0.9)
    expected = stats.ttest_rel(treated, plain)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.9)), rel=1e-9)
    assert found.sd == pytest.approx(np.std(treated - plain, ddof=1))


def test_a_tiny_p_value_is_kept():
    treated, plain = np.random.default_rng(0).normal([[0.9], [0.1]], 1e-4, (2, 20))
    expected = stats.ttest_rel(treated, plain).pvalue
    assert 0 < expected < 1e-60
    assert paired_difference(treated.tolist(), plain.tolist()).p == pytest.approx(expected, rel=1e-6)


def test_fewer_than_two_have_no_interval():
    none, one = mean_interval([]), mean_interval([0.5])
    assert (none.n, one.n, one.mean) == (0, 1, 0.5)
    assert all(map(math.isnan, (none.mean, none.low, none.high, one.low, one.high, one.half)))
    pair = paired_difference([0.5], [0.25])
    assert (pair.n, pair.mean) == (1, 0.25)
    assert all(map(math.isnan, (pair.low, pair.high, pair.p, pair.sd)))
    assert paired_difference([], []).n == 0


def test_identical_pairs_differ_by_nothing_with_p_one():
    found = paired_difference([0.81, 0.82, 0.8], [0.81, 0.82, 0.8])
    assert (found.mean, found.low, found.high, found.p, found.sd) == (0, 0, 0, 1, 0)


def test_pairs_that_differ_all_by_the_same_have_no_test():
    found = paired_difference([0.81, 0.82, 0.83], [0.80, 0.81, 0.82])  # up to rounding
    assert found.mean == pytest.approx(0.01)
    assert all(map(math.isnan, (found.p, found.low, found.high)))


def as_float32(*shares):
    return np.float32(shares).tolist()


def test_the_rounding_of_scores_in_float32_is_no_spread():
    found = paired_difference(as_float32(0.91, 0.9133, 0.912), as_float32(0.9101, 0.9134, 0.9121))
    assert found.mean == pytest.approx(-1e-4, rel=1e-3)
    assert found.sd == 0
    assert all(map(math.isnan, (found.p, found.low, found.high)))
    # A run of before, whose accuracy went through float32, and the same accuracy of a run of today.
    found = paired_difference(as_float32(0.91, 0.9133, 0.912), [0.91, 0.9133, 0.912])
    assert (found.mean, found.low, found.high, found.p, found.sd) == (0, 0, 0, 1, 0)


def test_one_image_of_a_million_is_a_spread():
    found = paired_difference([0.5, 0.5, 0.500002], [0.5, 0.5, 0.5])
    assert found.p == pytest.approx(stats.ttest_rel([0.5, 0.5, 0.500002], [0.5] * 3).pvalue)


def test_identical_constants_leave_an_interval_of_no_width():
    assert mean_interval([0.5, 0.5, 0.5]).half == 0


@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_cover_the_true_difference_in_95_of_100_studies(n):
    effect = 0.004
    (treated,), plain = np.moveaxis(simulated(n, effect)[0], 1, 0), simulated(n, effect)[1]
    found = [paired_difference(t, p) for t, p in zip(treated.tolist(), plain.tolist(), strict=True)]
    covered = np.mean([one.low <= effect <= one.high for one in found])
    assert within_binomial_error(covered, 0.95, STUDIES)
    single = [mean_interval(row) for row in plain.tolist()]
    assert within_binomial_error(np.mean([one.low <= 0.9 <= one.high for one in single]), 0.95, STUDIES)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_no_effect_gives_false_alarms_in_5_of_100_studies(n):
    treated, plain = simulated(n, 0.0, seed=1)
    alarms = [
        paired_difference(t, p).p <= 0.05 for (t,), p in zip(treated.tolist(), plain.tolist(), strict=True)
    ]
    assert within_binomial_error(np.mean(alarms), 0.05, STUDIES)


@pytest.mark.parametrize("arms", [3, 6])
def test_after_correction_one_false_alarm_among_all_arms_is_as_rare(arms):
    treated, plain = simulated(5, 0.0, arms, seed=2)
    raw = [
        [paired_difference(arm, p).p for arm in study]
        for study, p in zip(treated.tolist(), plain.tolist(), strict=True)
    ]
    limit = stats.binom.ppf(1 - 1e-5, STUDIES, 0.05) / STUDIES
    assert np.mean([min(holm(p)) <= 0.05 for p in raw]) <= limit
    assert np.mean([min(p) <= 0.05 for p in raw]) > limit  # without it, it is not


def holm_by_definition(p_values):
    """The largest, over all p-values up to this one, of that p times the number of those not below it."""
    m = len(p_values)
    return [
        max(min(1.0, (m - sum(other < q for other in p_values)) * q) for q in p_values if q <= p)
        for p in p_values
    ]


def test_holm_by_its_definition():
    generator = np.random.default_rng(0)
    for count in (1, 2, 3, 7):
        p_values = generator.uniform(0, 0.4, count).tolist()
        assert holm(p_values) == pytest.approx(holm_by_definition(p_values))
    assert holm([]) == []


def test_holm_keeps_the_order_and_does_not_count_what_was_not_tested():
    p_values = [0.04, 0.01, 0.02]
    for order in itertools.permutations(range(3)):
        given = [p_values[i] for i in order]
        assert holm(given) == pytest.approx([[0.04, 0.03, 0.04][i] for i in order])
    first, missing, second = holm([0.01, math.nan, 0.04])
    assert math.isnan(missing)
    assert (first, second) == (0.02, 0.04)


def simulated_power(n, sd, difference, level):
    generator = np.random.default_rng(n)
    gaps = generator.normal(difference, sd, (40_000, n))
    found = stats.ttest_1samp(gaps, 0, axis=1)
    return np.mean((found.pvalue <= 1 - level) & (found.statistic > 0))


@pytest.mark.parametrize(
    ("sd", "level", "power"),
    [
        (0.005, 0.95, 0.8),
        (0.003, 0.95, 0.8),
        (0.01, 0.95, 0.9),
        (0.005, 1 - 0.05 / 4, 0.8),
        (0.02, 0.95, 0.5),
    ],
)
def test_the_seeds_needed_have_the_power_and_one_less_has_not(sd, level, power):
    n = seeds_needed(sd, 0.005, level, power)
    error = 4.5 * math.sqrt(power * (1 - power) / 40_000)
    assert simulated_power(n, sd, 0.005, level) >= power - error
    assert simulated_power(n - 1, sd, 0.005, level) <= power + error


@pytest.mark.parametrize("effect", [0.01, 0.1, 0.5, 1, 3, 20, 99, 101, 1000])
@pytest.mark.parametrize("level", [0.95, 0.9999])
def test_the_seeds_needed_are_the_first_by_the_noncentral_t(effect, level):
    n = seeds_needed(1.0, effect, level)

    def power(pairs):
        return stats.nct.sf(stats.t.ppf((1 + level) / 2, pairs - 1), pairs - 1, effect * math.sqrt(pairs))

    assert power(n) >= 0.8
    assert n == 2 or power(n - 1) < 0.8


def test_seeds_that_do_not_vary_show_anything_in_two():
    assert seeds_needed(0.0, 1e-9) == 2


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: mean_interval([1, 2], 1.0), "level takes a number between 0 and 1, got 1.0"),
        (lambda: paired_difference([1, 2], [1]), "treated takes one value for each of baseline's 1, got 2"),
        (lambda: seeds_needed(-1, 1), "sd takes a number >= 0, got -1"),
        (lambda: seeds_needed(math.nan, 1), "sd takes a number >= 0, got nan"),
        (lambda: seeds_needed(1, 0), "difference takes a number > 0, got 0"),
        (lambda: seeds_needed(1, 1, power=0), "power takes a number between 0 and 1, got 0"),
        (lambda: seeds_needed(1, 1e-6), "1e-06 at an sd of 1 takes more than 1,000,000 pairs to show"),
    ],
)
def test_a_wrong_call_gets_one_line(call, line):
    with pytest.raises(MixError) as caught:
        call()
    assert str(caught.value) == line
