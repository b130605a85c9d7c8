from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

import batchmix as bm
import reference
from batchmix.methods.cmixup import CMixup, sample_near
from refusals import assert_named

Y = torch.tensor([0.0, 0.3, 1.0, 1.1, 4.0])
X = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("y", [Y, Y.double(), Y.unsqueeze(1), torch.stack([Y, Y.flip(0)], 1)])
def test_partners_are_drawn_by_the_papers_probabilities(y: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(1)
    drawn = torch.stack([sample_near(y, 0.7, generator=generator) for _ in range(4000)])
    for i in range(5):
        wanted = reference.near_probabilities(y, i, 0.7)
        counts = torch.bincount(drawn[:, i], minlength=5)
        assert counts[i] == 0
        likely = [j for j in range(5) if wanted[j] * 4000 >= 5]  # chi-square needs five of each
        rest = 1 - sum(wanted[j] for j in likely)
        observed = [int(counts[j]) for j in likely]
        expected = [4000 * wanted[j] for j in likely]
        if rest > 1e-9:
            observed.append(4000 - sum(observed))
            expected.append(4000 * rest)
        if min(expected) < 1:  # too rare to be ranked
            observed, expected = (
                observed[:-1],
                [e * sum(observed[:-1]) / sum(expected[:-1]) for e in expected[:-1]],
            )
        if len(observed) > 1:
            assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_a_narrow_kernel_takes_the_nearest_and_a_wide_one_anyone() -> None:
    for seed in range(20):
        near = CMixup(sigma=1e-6, seed=seed).plan(X, Y)
        assert near.partner.tolist() == [1, 0, 3, 2, 3]
    wide = torch.stack([CMixup(sigma=1e9, seed=seed).plan(X, Y).partner for seed in range(1000)])
    assert stats.chisquare(torch.bincount(wide[:, 4], minlength=5)[:4].tolist()).pvalue > 1e-3


def test_who_has_no_label_is_nobodys_partner() -> None:
    y = torch.tensor([[0.0], [float("nan")], [1.0], [float("inf")], [2.0]])
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([sample_near(y, 1.0, generator=generator) for _ in range(200)])
    assert set(drawn[:, [0, 2, 4]].flatten().tolist()) == {0, 2, 4}


def test_small_distances_between_large_values_count() -> None:
    y = torch.tensor([0.0, 1.0, 1.5], dtype=torch.float64) + 1e9
    assert CMixup(sigma=1e-3, seed=0).plan(X[:3], y).partner.tolist() == [1, 2, 1]


def test_targets_are_values_and_the_loss_stays() -> None:
    cmixup = CMixup(alpha=2.0, sigma=1.0, seed=0)
    x, target = cmixup(X, Y.unsqueeze(1))
    loss = F.mse_loss(x.sum(1, keepdim=True), target)
    a, b, lam = target
    output, rows = x.sum(1, keepdim=True), lam.unsqueeze(1)
    torch.testing.assert_close(loss, (rows * (output - a) ** 2 + (1 - rows) * (output - b) ** 2).mean())


def test_the_published_form_of_any_loss_is_that_of_blended_labels_as_the_card_says() -> None:
    mixer = CMixup(alpha=2.0, sigma=1.0, seed=0)
    expected, (a, b, lam) = CMixup(alpha=2.0, sigma=1.0, seed=0)(X, Y)
    plan = mixer.plan(X, Y)
    x, y = bm.blend(X, plan), bm.blend(Y, plan)
    torch.testing.assert_close(x, expected)
    torch.testing.assert_close(y, lam * a + (1 - lam) * b)
    grid = torch.linspace(float(Y.min()), float(Y.max()), 4001).unsqueeze(1)
    pair = lam * (grid - a).abs() + (1 - lam) * (grid - b).abs()  # the other form, of an absolute error
    torch.testing.assert_close(grid[pair.argmin(0), 0], torch.where(lam > 0.5, a, b), rtol=0, atol=2e-3)
    output = torch.zeros(len(Y), requires_grad=True)
    (two,) = torch.autograd.grad(F.mse_loss(output, bm.MixedTarget(a, b, lam)), output)
    (one,) = torch.autograd.grad(F.mse_loss(output, y), output)
    torch.testing.assert_close(two, one)


def test_lam_is_of_each_sample_or_of_the_batch() -> None:
    assert len(CMixup(seed=0).plan(X, Y).lam.unique()) == 5
    assert len(CMixup(per="batch", seed=0).plan(X, Y).lam.unique()) == 1
    assert CMixup(per="batch", seed=0).plan(X[:1], Y[:1]).lam.tolist() == [1.0]


def test_between_two_batches_the_labels_choose_nothing() -> None:
    x, (_, b, lam) = CMixup(seed=0).between((X, Y), (X.flip(0), Y.flip(0)))
    assert torch.equal(b, Y.flip(0))
    rows = lam.unsqueeze(1)
    torch.testing.assert_close(x, rows * X + (1 - rows) * X.flip(0))


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("y", lambda: CMixup(seed=0).plan(X)),
        ("y", lambda: CMixup(seed=0)(X, torch.arange(5))),
        ("y", lambda: CMixup(seed=0)(X, torch.rand(5, 2, 2))),
        ("y", lambda: CMixup(seed=0)(X, (Y, Y))),
        ("sigma", lambda: CMixup(sigma=0)),
        ("sigma", lambda: CMixup(sigma=np.float32("nan"))),
        ("sigma", lambda: CMixup(sigma=float("inf"))),
        ("sigma", lambda: CMixup(sigma="1")),
        ("per", lambda: CMixup(per="pair")),
        ("fold", lambda: CMixup(fold=None)),
        ("alpha", lambda: CMixup(-1)),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(argument: str, call: Callable[[], object]) -> None:
    assert_named(argument, call)
