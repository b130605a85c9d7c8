"""Duplicates of a mixed batch, against a comparison of all pairs of mixes."""

from __future__ import annotations

import pytest
import torch

import batchmix as bm
from batchmix.core.plan import MixPlan
from batchmix.study.article.duplicates import count_duplicates, measure_duplicates


def count_all_pairs(plan, tolerance):
    """Every pair of rows of the matrix of weights, compared by half the sum of absolute differences."""
    size = len(plan)
    weights = torch.zeros(size, size, dtype=torch.float64)
    for i in range(size):
        weights[i, i] += plan.lam[i].item()
        weights[i, plan.partner[i]] += 1 - plan.lam[i].item()
    pairs = swapped = 0
    for i in range(size):
        for j in range(i):
            if 0.5 * (weights[i] - weights[j]).abs().sum() <= tolerance:
                pairs += 1
                swapped += int(plan.partner[i] == j and plan.partner[j] == i)
    return pairs, swapped


@pytest.mark.parametrize("tolerance", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 12])
def test_as_a_comparison_of_all_pairs(size, fold, tolerance):
    mixup = bm.Mixup(0.4, fold=fold, seed=7)
    for _ in range(25):
        plan = mixup.plan(torch.empty(size, 1))
        assert count_duplicates(plan, tolerance) == count_all_pairs(plan, tolerance)


def test_pairs_that_mix_one_another():
    plan = MixPlan(torch.tensor([1, 0, 3, 2]), torch.tensor([0.1, 0.9, 0.5, 0.6]))
    assert count_duplicates(plan, 0.05) == (1, 1)
    assert count_duplicates(plan, 0.11) == (2, 2)


def test_a_sample_that_became_its_partner():
    plan = MixPlan(torch.tensor([1, 2, 0]), torch.tensor([0.0, 1.0, 0.7]))
    assert count_duplicates(plan, 0.0) == (1, 0)


def test_the_same_image_twice_is_what_is_counted():
    plan = MixPlan(torch.tensor([1, 0, 3, 4, 2]), torch.tensor([0.2, 0.8, 0.0, 1.0, 0.5]))
    mixed = bm.blend(torch.rand(5, 3, 4, 4), plan)
    same = sum(torch.allclose(mixed[i], mixed[j]) for i in range(5) for j in range(i))
    assert count_duplicates(plan, 1e-6)[0] == same == 2


def test_folding_leaves_next_to_none(unmoved_global_rng):
    found = measure_duplicates(batches=60, seed=3)
    counts = {(row["batch_size"], row["fold"]): row["pairs"] for row in found["counts"]}
    for size in {size for size, _ in counts}:
        assert len(counts[size, False]) == found["batches"] == 60
        assert sum(counts[size, False]) > 20 * max(1, sum(counts[size, True]))
    assert measure_duplicates(batches=60, seed=3) == found


def test_half_a_pair_a_batch_mixes_one_another_whatever_the_batch():
    everything = 0.499  # any two that mix one another count as long as their weights are not opposite
    mixup = bm.Mixup(0.4, fold=False, seed=0)
    plans = [mixup.plan(torch.empty(40, 1)) for _ in range(800)]
    mutual = [
        int((p.partner[p.partner] == torch.arange(40)).logical_and(p.partner != torch.arange(40)).sum())
        for p in plans
    ]
    assert sum(mutual) / 2 / len(plans) == pytest.approx(0.5, abs=0.1)
    assert all(
        2 * count_duplicates(p, everything)[1] <= pairs for p, pairs in zip(plans, mutual, strict=True)
    )
