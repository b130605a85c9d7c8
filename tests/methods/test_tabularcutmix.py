from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import reference
from batchmix import MixError, Mixup
from batchmix.methods.tabularcutmix import TabularCutMix
from refusals import assert_named

NUMBERS = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
IDS = torch.randint(100, (8, 3), generator=torch.Generator().manual_seed(1))
Y = torch.arange(8)


@pytest.mark.parametrize("table", [NUMBERS, IDS, NUMBERS.half(), IDS > 50])
def test_columns_are_the_rows_own_or_the_partners(table: torch.Tensor) -> None:
    for seed in range(10):
        plan = TabularCutMix(seed=seed).plan(table)
        mixed, (a, b, lam) = TabularCutMix(seed=seed)(table, Y)
        assert mixed.dtype == table.dtype
        assert torch.equal(mixed, reference.paste(table, plan.partner, plan.mask))
        assert torch.equal(lam, plan.mask.float().mean(1))
        assert torch.equal(a, Y)
        assert torch.equal(b, Y[plan.partner])


def test_tables_of_different_dtypes_are_mixed_by_one_draw() -> None:
    x = {"ids": IDS, "numbers": NUMBERS}
    before = IDS.clone(), NUMBERS.clone()
    mixed, (_, b, lam) = TabularCutMix(partner="roll", seed=3)(x, Y)
    own = torch.cat([mixed["ids"] == IDS, mixed["numbers"] == NUMBERS], 1)
    theirs = torch.cat([mixed["ids"] == IDS.roll(1, 0), mixed["numbers"] == NUMBERS.roll(1, 0)], 1)
    assert (own | theirs).all()
    torch.testing.assert_close(lam, own.float().mean(1), rtol=0, atol=1 / 7 + 1e-6)  # ids can agree by chance
    assert torch.equal(b, Y.roll(1))
    assert torch.equal(IDS, before[0])
    assert torch.equal(NUMBERS, before[1])
    pair, _ = TabularCutMix(partner="roll", seed=3)((IDS, NUMBERS), Y)
    assert torch.equal(pair[0], mixed["ids"])
    assert torch.equal(pair[1], mixed["numbers"])


def test_a_plan_of_all_columns_replays_on_several_tables() -> None:
    cutmix = TabularCutMix(seed=0)
    plan = cutmix.plan(torch.zeros(8, 7))
    (ids, numbers), target = cutmix((IDS, NUMBERS), Y, plan=plan)
    assert torch.equal(ids, reference.paste(IDS, plan.partner, plan.mask[:, :3]))
    assert torch.equal(numbers, reference.paste(NUMBERS, plan.partner, plan.mask[:, 3:]))
    assert torch.equal(target.lam, plan.lam)


def test_columns_of_a_group_move_together() -> None:
    one_hot = torch.eye(8)[torch.arange(8)]
    x = torch.cat([one_hot[:, :5], NUMBERS, one_hot[:, 5:]], 1)  # 5 + 4 + 3 columns
    seen = set()
    for seed in range(50):
        plan = TabularCutMix(groups=[[0, 1, 2, 3, 4], [11, 9, 10]], partner="roll", seed=seed).plan(x)
        for group in (plan.mask[:, :5], plan.mask[:, 9:]):
            assert (group == group[:, :1]).all()
        seen |= {tuple(row) for row in plan.mask[:, [0, 5, 6, 9]].tolist()}
        assert torch.equal(plan.lam, plan.mask.float().mean(1))
    assert len(seen) == 16  # groups and single columns are drawn apart


def test_lam_counts_the_users_weights() -> None:
    weights = [0.5, 3.0, 0.0, 1.5]
    for seed in range(20):
        plan = TabularCutMix(weights=weights, partner="roll", seed=seed).plan(NUMBERS)
        for own, lam in zip(plan.mask.tolist(), plan.lam.tolist(), strict=True):
            assert lam == pytest.approx(sum(w for w, o in zip(weights, own, strict=True) if o) / 5, abs=1e-6)
            assert any(own) or lam == 0
            assert not all(own) or lam == 1


@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_a_rate_is_the_probability_of_each_column(rate: float) -> None:
    plans = [TabularCutMix(rate=rate, partner="roll", seed=seed).plan(NUMBERS) for seed in range(100)]
    taken = sum(int((~plan.mask).sum()) for plan in plans)
    assert stats.binomtest(taken, 3200, rate).pvalue > 1e-3


@given(
    size=st.integers(1, 6),
    columns=st.integers(1, 7),
    alpha=st.floats(0.05, 8),
    seed=st.integers(0, 2**32),
    policy=st.sampled_from(["shuffle", "derangement", "roll"]),
)
def test_the_labels_weight_is_the_share_of_columns(
    size: int, columns: int, alpha: float, seed: int, policy: str
) -> None:
    y = torch.arange(size)
    x = y.view(-1, 1).expand(size, columns)
    mixed, (a, b, lam) = TabularCutMix(alpha, partner=policy, seed=seed)(x, y)
    torch.testing.assert_close(
        mixed.double().mean(1), lam.double() * a + (1 - lam.double()) * b, rtol=0, atol=1e-5
    )
    assert (lam[a == b] == 1).all()


def test_integers_are_refused_by_what_blends() -> None:
    # fastai#2112: mixup of a tabular learner's category ids, which have no mean.
    with pytest.raises(MixError, match=r"^x takes floating point samples"):
        Mixup(seed=0)(IDS, Y)
    with pytest.raises(MixError, match=r"^x\.0 takes floating point samples"):
        Mixup(seed=0)((IDS, NUMBERS), Y)


@pytest.mark.parametrize("y", [Y, IDS, IDS.unsqueeze(1)])
def test_columns_are_no_positions_for_class_ids(y: torch.Tensor) -> None:
    with pytest.raises(MixError, match=r"^y: class ids of positions take [^\n]*, got [^\n]*$"):
        TabularCutMix(seed=0)(NUMBERS, y, kinds={"y": "segmentation"})


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("x", lambda: TabularCutMix(seed=0)(torch.rand(8, 3, 4), Y)),
        ("x.1", lambda: TabularCutMix(seed=0)((NUMBERS, torch.rand(8)), Y)),
        ("x.1", lambda: TabularCutMix(seed=0)((NUMBERS, IDS[:7]), Y)),
        ("plan", lambda: TabularCutMix(seed=0)(NUMBERS, Y, plan=Mixup(seed=0).plan(NUMBERS))),
        ("plan", lambda: TabularCutMix(seed=0)(NUMBERS, Y, plan=3)),
        ("groups", lambda: TabularCutMix(groups=[[0, 9]], seed=0)(NUMBERS, Y)),
        ("groups", lambda: TabularCutMix(groups=[[0, 1], [1, 2]])),
        ("groups", lambda: TabularCutMix(groups=[0, 1])),
        ("groups", lambda: TabularCutMix(groups=[[-1]])),
        ("groups", lambda: TabularCutMix(groups=[[]])),
        ("weights", lambda: TabularCutMix(weights=[1, 2], seed=0)(NUMBERS, Y)),
        ("weights", lambda: TabularCutMix(weights=[0, 0])),
        ("weights", lambda: TabularCutMix(weights=[-1, 2])),
        ("weights", lambda: TabularCutMix(weights=1.0)),
        ("rate", lambda: TabularCutMix(rate=2)),
        ("alpha", lambda: TabularCutMix(-1)),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(argument: str, call: Callable[[], object]) -> None:
    assert_named(argument, call)


def test_the_default_device_is_not_asked_about_groups_and_weights() -> None:
    x, y = torch.rand(4, 3), torch.arange(4)
    with torch.device("meta"):
        mixed, target = TabularCutMix(groups=[[0, 1]], weights=[1, 2, 3], seed=0)(x, y)
    assert {mixed.device.type, target.lam.device.type} == {"cpu"}
