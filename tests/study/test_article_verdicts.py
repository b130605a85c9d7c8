"""The rules behind the words: against scipy, and on simulated studies whose truth is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from batchmix.errors import MixError
from batchmix.study.article.verdicts import (
    ACCURACY,
    HELD,
    OPEN,
    REFUTED,
    Comparison,
    Fact,
    Quantity,
    difference_text,
    judge,
    overall,
    p_of_level,
    pairs_for_level,
)
from batchmix.study.statistics import seeds_needed

TIME = Quantity("time", 0.05, ratio=True)


def compared(differences, expected="more", quantity=ACCURACY, says="a statement"):
    """A statement whose pairs differ by these amounts, beside a common part."""
    common = np.linspace(0.5, 0.6, len(differences))
    return Comparison(says, quantity, expected, (common + differences).tolist(), common.tolist())


@pytest.mark.parametrize("shift", [0.0, 0.003, -0.004])
def test_level_is_two_one_sided_tests(shift):
    differences = shift + 0.002 * np.random.default_rng(0).normal(size=7)
    above = stats.ttest_1samp(differences, -0.005, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, 0.005, alternative="less").pvalue
    assert p_of_level(differences.tolist(), 0.005) == pytest.approx(max(above, below))


@pytest.mark.parametrize("sign", [1, -1])
def test_beyond_the_margin_is_the_test_on_that_side_with_the_other_tail(sign):
    differences = sign * (0.008 + 0.002 * np.random.default_rng(1).normal(size=5))
    side = "greater" if sign > 0 else "less"
    expected = stats.ttest_1samp(differences, sign * 0.005, alternative=side).pvalue
    other = stats.ttest_1samp(differences, -sign * 0.005, alternative=side).pvalue
    assert p_of_level(differences.tolist(), 0.005) == pytest.approx(expected + other, rel=1e-12)


@pytest.mark.parametrize("margin", [0.01, 0.5])
def test_equal_ways_are_called_unequal_in_one_of_twenty_studies_at_most(margin):
    """However narrow the margin is beside what the pairs leave open."""
    draws = np.random.default_rng(7).normal(size=(4000, 10))
    shown = np.array([p_of_level(row.tolist(), margin) for row in draws]) < 0.05
    refuted = shown & (np.abs(draws.mean(1)) > margin)
    assert refuted.mean() < 0.05 + 4 * math.sqrt(0.05 * 0.95 / len(draws))


def test_the_pairs_needed_are_those_of_the_strictest_of_the_corrected_tests():
    rng = np.random.default_rng(8)
    same = Comparison("", Quantity("q", 0.8), "more", rng.normal(0, 1, 10).tolist(), [0.0] * 10)
    (alone,) = judge([same])
    of_ten = judge([same] * 10)[0]
    sd = np.std(same.first, ddof=1)
    assert alone.needed == f"{seeds_needed(sd, 0.8)} for 0.8"
    assert of_ten.needed == f"{seeds_needed(sd, 0.8, level=0.995)} for 0.8"
    level = judge([replace(same, expected="level")] * 2)[0]
    assert level.needed == f"{pairs_for_level(sd, 0.8, level=0.975)} for 0.8"


@pytest.mark.parametrize(("shift", "side"), [(0.02, "greater"), (-0.004, "greater"), (-0.009, "less")])
def test_no_less_is_the_test_at_the_lower_end(shift, side):
    differences = shift + 0.002 * np.random.default_rng(5).normal(size=6)
    expected = stats.ttest_1samp(differences, -0.005, alternative=side).pvalue
    assert p_of_level(differences.tolist(), 0.005, ends=1) == pytest.approx(expected)


@pytest.mark.parametrize("ends", [1, 2])
@pytest.mark.parametrize("differences", [[], [0.1], [0.2, 0.2, 0.2], [0.0, 0.0]])
def test_nothing_is_level_without_a_spread(ends, differences):
    assert math.isnan(p_of_level(differences, 0.5, ends=ends))


@pytest.mark.parametrize("expected", ["more", "less", "level", "no less"])
def test_the_rounding_of_scores_in_float32_decides_nothing(expected):
    common = np.linspace(0.5, 0.6, 3)
    first, second = (np.float32(scores).tolist() for scores in (common + 1e-4, common))
    (judged,) = judge([Comparison("", ACCURACY, expected, first, second)])
    assert judged.verdict == OPEN
    assert math.isnan(judged.p)


def test_at_the_edge_of_the_margin_level_and_beyond_are_said_in_one_of_twenty_studies_each():
    draws = 0.005 + 0.002 * np.random.default_rng(2).normal(size=(4000, 5))
    shown = np.array([p_of_level(row.tolist(), 0.005) for row in draws]) < 0.05
    inside = np.abs(draws.mean(1)) < 0.005
    error = 4 * math.sqrt(0.05 * 0.95 / len(draws))
    assert (shown & inside).mean() == pytest.approx(0.05, abs=error)
    assert (shown & ~inside).mean() == pytest.approx(0.05, abs=error)


@pytest.mark.parametrize(("sd", "margin"), [(0.5, 0.5), (0.3, 0.5), (1.0, 0.6)])
def test_so_many_pairs_show_level_in_four_of_five_studies(sd, margin):
    n = pairs_for_level(sd, margin)
    draws = sd * np.random.default_rng(3).normal(size=(20_000, n))
    inside = margin - np.abs(draws.mean(1))
    shown = (inside * math.sqrt(n) / draws.std(1, ddof=1) > stats.t.ppf(0.95, n - 1)).mean()
    fewer = sd * np.random.default_rng(4).normal(size=(20_000, n - 1))
    inside = margin - np.abs(fewer.mean(1))
    before = (inside * math.sqrt(n - 1) / fewer.std(1, ddof=1) > stats.t.ppf(0.95, n - 2)).mean()
    assert before - 0.01 < 0.8 < shown + 0.01
    assert pairs_for_level(sd, margin, power=0.99) > n > pairs_for_level(sd, 2 * margin)


def test_so_many_pairs_show_no_loss_in_four_of_five_studies():
    n = pairs_for_level(0.5, 0.5, ends=1)

    def shown(pairs: int) -> float:
        draws = 0.5 * np.random.default_rng(6).normal(size=(20_000, pairs))
        return (stats.ttest_1samp(draws, -0.5, axis=1, alternative="greater").pvalue < 0.05).mean()

    assert shown(n - 1) - 0.01 < 0.8 < shown(n) + 0.01
    assert n < pairs_for_level(0.5, 0.5)


def test_pairs_without_end_are_refused():
    with pytest.raises(MixError, match="more than 1,000,000 pairs"):
        pairs_for_level(1.0, 1e-9)


NOISE = np.array([-1.0, 1.0, 0.5, -0.5, 0.0]) / 1000


@pytest.mark.parametrize(
    ("differences", "expected", "verdict"),
    [
        (0.01 + NOISE, "more", HELD),
        (0.01 + NOISE, "less", REFUTED),
        (-0.01 + NOISE, "less", HELD),
        (-0.01 + NOISE, "more", REFUTED),
        (0.0001 + NOISE, "more", OPEN),
        (0.0001 + NOISE, "level", HELD),
        (0.001 + NOISE, "level", HELD),  # a difference, but one within the margin
        (0.02 + NOISE, "level", REFUTED),
        (0.005 + NOISE, "level", OPEN),
        (0.0001 + 50 * NOISE, "level", OPEN),  # a high p of a difference is no sign of none
        (0.02 + NOISE, "no less", HELD),  # more is no loss
        (-0.001 + NOISE, "no less", HELD),
        (-0.02 + NOISE, "no less", REFUTED),
        (-0.005 + NOISE, "no less", OPEN),
        (np.array([0.01]), "more", OPEN),
        (np.array([]), "more", OPEN),
        (np.zeros(5), "level", OPEN),
    ],
)
def test_the_word(differences, expected, verdict):
    (found,) = judge([compared(differences, expected)])
    assert found.verdict == verdict
    assert found.n == len(differences)
    assert bool(found.needed) == (verdict == OPEN)


def test_the_p_values_of_a_claim_are_corrected_together():
    rows = [0.002 + 1.2 * NOISE, 0.003 + NOISE, 0.0004 + NOISE]
    found = judge([Fact("a fact", "so", True), *(compared(row) for row in rows)])
    plain = [stats.ttest_1samp(row, 0).pvalue for row in rows]
    smallest, middle, largest = sorted(plain)
    expected = {smallest: 3 * smallest, middle: 2 * middle, largest: largest}
    assert found[0].p is None
    assert [one.p for one in found[1:]] == pytest.approx([expected[p] for p in plain])


def test_what_one_statement_shows_three_need_not():
    alone = 0.0012 + NOISE  # p a little below .05
    assert stats.ttest_1samp(alone, 0).pvalue < 0.05 < 3 * stats.ttest_1samp(alone, 0).pvalue
    assert judge([compared(alone)])[0].verdict == HELD
    assert judge([compared(alone), compared(NOISE + 1e-5), compared(NOISE - 1e-5)])[0].verdict == OPEN


def test_a_ratio_is_that_of_geometric_means():
    first, second = [1.0, 2.1, 4.0], [2.0, 4.0, 8.1]
    (found,) = judge([Comparison("faster", TIME, "less", first, second)])
    logs = np.log(first) - np.log(second)
    low, high = stats.t.interval(0.95, 2, logs.mean(), stats.sem(logs))
    assert found.found == f"{np.exp(logs.mean()):.2f} times [{np.exp(low):.2f}, {np.exp(high):.2f}]"
    assert found.verdict == HELD


@pytest.mark.parametrize(
    ("quantity", "ends", "text"),
    [
        (ACCURACY, (-0.011, -0.015, -0.007), "−1.10 points [−1.50, −0.70]"),
        (ACCURACY, (0.011, math.nan, math.nan), "+1.10 points"),
        (ACCURACY, (math.nan, math.nan, math.nan), "nothing measured"),
        (TIME, (math.log(0.5), math.log(0.4), math.log(0.6)), "0.50 times [0.40, 0.60]"),
    ],
)
def test_a_difference_in_words(quantity, ends, text):
    assert difference_text(quantity, *ends) == text


def test_how_many_pairs_would_do():
    noisy = 0.001 + 10 * NOISE
    needed = judge([compared(noisy)])[0].needed
    level = judge([compared(noisy, "level")])[0].needed
    assert level == f"{pairs_for_level(float(np.std(noisy, ddof=1)), 0.005)} for 0.5 points"
    assert needed.endswith(" for 0.5 points")
    no_less = judge([compared(noisy - 0.004, "no less")])[0].needed
    assert no_less == f"{pairs_for_level(float(np.std(noisy, ddof=1)), 0.005, ends=1)} for 0.5 points"
    assert judge([compared(np.zeros(3), "level")])[0].needed == "all pairs differ alike"
    assert judge([compared(np.array([0.1]))])[0].needed == "two or more"


@pytest.mark.parametrize(
    ("verdicts", "word"),
    [
        ([HELD, HELD], HELD),
        ([HELD, OPEN], OPEN),
        ([HELD, REFUTED], REFUTED),
        ([OPEN, REFUTED], REFUTED),
        ([], OPEN),
    ],
)
def test_the_word_for_a_claim(verdicts, word):
    assert overall(verdicts) == word


@pytest.mark.parametrize(("holds", "word"), [(True, HELD), (False, REFUTED), (None, OPEN)])
def test_a_fact(holds, word):
    assert judge([Fact("it is so", "found", holds)])[0].verdict == word
