"""lam follows Beta(alpha, alpha), and its folded form follows the folded law."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from batchmix import sample_lam, sample_partner

DRAWS = 200_000
# Within 1e-6 of the ends float32 cannot tell lam from 0 or 1; what lies there is counted, not ranked.
LOW, HIGH = 1e-6, 1 - 1e-6


def draws(alpha: float, seed: int, fold: bool, per: str = "sample") -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    partner = sample_partner(DRAWS, mutual=True, generator=generator) if per == "pair" else None
    lam = sample_lam(alpha, DRAWS, per=per, fold=fold, partner=partner, generator=generator)
    if partner is not None:
        lam = lam[torch.arange(DRAWS) < partner]  # one of each couple
    return lam.double().numpy()


def cdf(alpha: float, fold: bool, lam: np.ndarray | float) -> np.ndarray:
    below = stats.beta.cdf(lam, alpha, alpha)
    return below - stats.beta.cdf(1 - np.asarray(lam), alpha, alpha) if fold else below


@pytest.mark.parametrize("per", ["sample", "pair"])
@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("alpha", [0.2, 0.4, 1.0, 8.0])
def test_lam_has_the_law_of_beta(alpha: float, fold: bool, per: str) -> None:
    lam = draws(alpha, seed=0, fold=fold, per=per)
    low = 0.5 if fold else LOW
    inside = lam[(lam >= low) & (lam < HIGH)]
    start, end = cdf(alpha, fold, low), cdf(alpha, fold, HIGH)
    assert stats.binomtest(len(inside), len(lam), min(end - start, 1.0)).pvalue > 1e-3
    assert stats.kstest(inside, lambda x: (cdf(alpha, fold, x) - start) / (end - start)).pvalue > 1e-3


def test_one_lam_a_batch_has_the_law_of_beta() -> None:
    generator = torch.Generator().manual_seed(0)
    lam = [float(sample_lam(0.8, 2, per="batch", fold=False, generator=generator)[0]) for _ in range(2000)]
    assert stats.kstest(lam, stats.beta(0.8, 0.8).cdf).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.01, 0.2, 1.0, 5.0, 100.0])
def test_mean_and_variance_are_those_of_beta(alpha: float) -> None:
    lam = draws(alpha, seed=1, fold=False)
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(lam.mean() - 0.5) < 4.5 * (variance / DRAWS) ** 0.5
    fourth = stats.beta(alpha, alpha).moment(4) - 4 * 0.5 * stats.beta(alpha, alpha).moment(3)
    fourth += 6 * 0.25 * stats.beta(alpha, alpha).moment(2) - 3 * 0.5**4
    assert abs(lam.var() - variance) < 4.5 * ((fourth - variance**2) / DRAWS) ** 0.5 + 1e-6


def test_a_vanishing_alpha_keeps_or_takes_whole_samples() -> None:
    lam = draws(1e-8, seed=2, fold=False)
    between = (lam > LOW) & (lam < HIGH)
    assert between.mean() < 1e-4  # two uniform draws that are the same number
    assert stats.binomtest(int((lam > 0.5).sum()), DRAWS, 0.5).pvalue > 1e-3
