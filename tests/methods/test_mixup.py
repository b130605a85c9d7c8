from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from batchmix import MixError, Mixup, mixed_loss

X, Y = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8)


def test_unless_told_otherwise_each_sample_draws_a_folded_lam_at_alpha_04() -> None:
    mixup = Mixup(seed=0)
    assert (mixup.alpha, mixup.p, mixup.per, mixup.fold, mixup.partner) == (
        0.4,
        1.0,
        "sample",
        True,
        "shuffle",
    )
    lam = torch.cat([mixup.plan(X).lam for _ in range(50)])
    assert (lam >= 0.5).all()
    assert len(lam.unique()) > 100


@pytest.mark.parametrize("fold", [True, False])
def test_folding_keeps_the_larger_weight_with_the_sample(fold: bool) -> None:
    lam = torch.cat([Mixup(1.0, fold=fold, seed=seed).plan(X).lam for seed in range(30)])
    assert (lam < 0.5).any() == (not fold)


@pytest.mark.parametrize("partner", ["derangement", "roll"])
def test_partners_follow_the_policy(partner: str) -> None:
    for seed in range(20):
        plan = Mixup(1.0, partner=partner, seed=seed).plan(X)
        assert (plan.partner != torch.arange(8)).all()
        assert partner != "roll" or plan.partner.tolist() == [7, 0, 1, 2, 3, 4, 5, 6]


def test_pairs_are_mutual_and_share_their_lam() -> None:
    for size in (7, 8):
        plan = Mixup(1.0, per="pair", fold=False, seed=1).plan(X[:size])
        assert torch.equal(plan.partner[plan.partner], torch.arange(size))
        assert torch.equal(plan.lam, plan.lam[plan.partner])
        assert int((plan.partner == torch.arange(size)).sum()) == size % 2


def test_folded_mixes_of_one_batch_are_never_the_same_image() -> None:
    x = torch.eye(6, dtype=torch.float64)
    mixed, target = Mixup(1.0, per="pair", seed=0)(x, torch.arange(6))
    assert (target.lam > 0.5).all()
    assert len({tuple(row) for row in mixed.tolist()}) == 6


def test_a_sample_alone_with_itself_has_all_the_weight() -> None:
    for per in ("sample", "pair"):
        mixed, target = Mixup(1.0, per=per, seed=0)(X[:1], Y[:1])
        assert torch.equal(mixed, X[:1])
        assert target.lam.tolist() == [1.0]


def test_one_lam_holds_for_the_whole_batch() -> None:
    for seed in range(20):
        lam = Mixup(1.0, per="batch", seed=seed).plan(X).lam
        assert torch.equal(lam, lam[:1].expand(8))


def test_a_loss_that_returns_one_number_works_where_one_lam_holds() -> None:
    for seed in range(20):
        _, target = Mixup(1.0, per="batch", seed=seed)(X, Y)
        assert mixed_loss(lambda out, y: F.multi_margin_loss(out, y), torch.zeros(8, 8), target).dim() == 0


@pytest.mark.parametrize("alpha", [0, 0.0])
def test_alpha_zero_hands_the_batch_back(alpha: float) -> None:
    mixed, target = Mixup(alpha, seed=0)(X, Y)
    assert mixed is X
    assert torch.equal(target.lam, torch.ones(8))


def rate(mixup: Mixup, batches: int) -> float:
    return np.mean([bool((mixup.plan(X[:2]).lam < 1).any()) for _ in range(batches)])


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_p_is_the_share_of_mixed_batches(p: float) -> None:
    mixup = Mixup(1e3, p=p, partner="roll", seed=0)
    mixed = round(rate(mixup, 1000) * 1000)
    assert stats.binomtest(mixed, 1000, p).pvalue > 1e-3


def test_whether_a_batch_is_mixed_does_not_hang_on_the_batch_before() -> None:
    mixup = Mixup(1e3, p=0.5, partner="roll", seed=0)
    coins = [bool(mixup.plan(X[:2]).lam[0] < 1) for _ in range(1000)]
    same = sum(one == two for one, two in pairwise(coins))
    assert stats.binomtest(same, 999, 0.5).pvalue > 1e-3


def test_between_two_batches_is_the_papers_formula() -> None:
    generator = torch.Generator().manual_seed(2)
    x1, x2 = torch.rand(2, 6, 3, 4, generator=generator)
    y1, y2 = torch.randint(5, (2, 6), generator=generator)
    x, target = Mixup(1.0, per="batch", fold=False, seed=0).between((x1, y1), (x2, y2))
    (lam,) = target.lam.unique().tolist()
    assert 0 < lam < 1
    torch.testing.assert_close(x, lam * x1 + (1 - lam) * x2)
    y = lam * F.one_hot(y1, 5) + (1 - lam) * F.one_hot(y2, 5)
    torch.testing.assert_close(target.dense(5), y)


def test_between_draws_a_lam_per_sample_and_can_leave_the_first_batch_alone() -> None:
    one, two = (X, Y), (X.flip(0), Y + 10)
    x, target = Mixup(1.0, seed=0).between(one, two)
    assert len(target.lam.unique()) == 8
    rows = target.lam.view(8, 1, 1, 1)
    torch.testing.assert_close(x, rows * X + (1 - rows) * X.flip(0))
    assert torch.equal(target.b, Y + 10)
    x, target = Mixup(1.0, p=0, seed=0).between(one, two)
    assert x is X
    assert torch.equal(target.lam, torch.ones(8))


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("alpha", {"alpha": -1}),
        ("alpha", {"alpha": float("nan")}),
        ("alpha", {"alpha": float("inf")}),
        ("alpha", {"alpha": "0.4"}),
        ("p", {"p": 1.5}),
        ("p", {"p": -0.1}),
        ("p", {"p": float("nan")}),
        ("p", {"p": "1"}),
        ("per", {"per": "image"}),
        ("fold", {"fold": 1}),
        ("fold", {"fold": None}),
        ("partner", {"partner": "random"}),
        ("partner", {"partner": "roll", "per": "pair"}),
        ("schedule", {"schedule": 3}),
        ("schedule", {"schedule": {"lam": float}}),
        ("schedule", {"schedule": {"p": 0.5}}),
        ("seed", {"seed": -1}),
        ("seed", {"seed": 0.5}),
        ("seed", {"seed": "0"}),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(argument: str, options: dict[str, object]) -> None:
    with pytest.raises(MixError) as caught:
        Mixup(**options)
    message = str(caught.value)
    assert message.startswith(argument)
    assert " takes " in message
    assert ", got " in message
    assert "\n" not in message
