from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import reference
from batchmix.methods.kmixup import KMixup, match
from refusals import assert_named

X = torch.rand(12, 2, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12)


def groups_of(kmixup: KMixup, x: Tensor) -> list[tuple[list[int], list[int]]]:
    """Rows and partners of each group, told by the lam that its members share."""
    plan = kmixup.plan(x)
    assert len(plan.lam.unique()) == -(-len(x) // kmixup.k)
    found = []
    for lam in plan.lam.unique():
        rows = (plan.lam == lam).nonzero().flatten()
        found.append((rows.tolist(), plan.partner[rows].tolist()))
    return found


@pytest.mark.parametrize(("size", "k"), [(12, 4), (12, 3), (11, 3), (10, 4), (7, 2)])
def test_partners_of_a_group_are_the_nearest_assignment(size: int, k: int) -> None:
    for seed in range(5):
        for rows, partners in groups_of(KMixup(1.0, k=k, seed=seed), X[:size]):
            assert len(rows) in (k, size % k)
            assert not set(rows) & set(partners)
            cost = sum(float((X[i] - X[j]).square().sum()) for i, j in zip(rows, partners, strict=True))
            least = reference.transport_cost(X, X, rows, partners)
            assert cost == pytest.approx(least, rel=1e-5)


def test_larger_groups_mix_nearer_samples() -> None:
    def distance(k: int) -> float:
        plans = [KMixup(1.0, k=k, seed=seed).plan(X) for seed in range(100)]
        return sum(float((X - X[plan.partner]).square().sum()) for plan in plans)

    assert distance(1) > 1.1 * distance(3) > 1.1 * distance(6)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_k_is_at_most_half_of_the_batch(size: int) -> None:
    for seed in range(10):
        plan = KMixup(1.0, k=100, seed=seed).plan(X[:size])
        assert torch.equal(plan.partner == torch.arange(size), torch.full((size,), size == 1))


def test_each_sample_or_the_batch_can_have_a_lam_of_its_own() -> None:
    assert len(KMixup(1.0, k=4, per="sample", seed=0).plan(X).lam.unique()) == 12
    assert len(KMixup(1.0, k=4, per="batch", seed=0).plan(X).lam.unique()) == 1
    assert (KMixup(1.0, k=4, fold=True, seed=0).plan(X).lam >= 0.5).all()


def test_between_two_batches_groups_are_random_and_matched() -> None:
    other = torch.rand(12, 2, 3, generator=torch.Generator().manual_seed(1))
    kmixup = KMixup(1.0, k=12, per="sample", seed=0)
    mixed, (a, b, lam) = kmixup.between((X, Y), (other, Y + 100))
    assert torch.equal(a, Y)
    assert torch.equal(b.sort().values, Y + 100)
    rows = lam.view(12, 1, 1)
    torch.testing.assert_close(mixed, rows * X + (1 - rows) * other[b - 100])
    everything = match(X, other, torch.arange(12), torch.arange(12), 12)
    assert torch.equal(b - 100, everything)  # one group of all: the draw of groups does not matter
    drawn = {
        tuple(KMixup(1.0, k=3, seed=seed).between((X, Y), (other, Y))[1].b.tolist()) for seed in range(5)
    }
    assert len(drawn) == 5


@pytest.mark.parametrize(("size", "k"), [(12, 4), (11, 3), (6, 100)])
def test_between_two_batches_a_group_that_is_matched_has_one_lam(size: int, k: int) -> None:
    one, other = X[:size], torch.rand(12, 2, 3, generator=torch.Generator().manual_seed(1))[:size]
    for seed in range(5):
        kmixup = KMixup(1.0, k=k, seed=seed)
        for _ in range(2):  # of every step
            (_, partners, lam) = kmixup.between((one, Y[:size]), (other, Y[:size]))[1]
            assert len(lam.unique()) == -(-size // k)
            for value in lam.unique():
                rows = (lam == value).nonzero().flatten().tolist()
                theirs = partners[rows].tolist()
                cost = sum(
                    float((one[i] - other[j]).square().sum()) for i, j in zip(rows, theirs, strict=True)
                )
                assert cost == pytest.approx(reference.transport_cost(one, other, rows, theirs), rel=1e-5)


def test_small_distances_between_large_values_count_in_large_groups() -> None:
    order = torch.arange(40)
    x = 1e4 + order.view(40, 1) / 16  # above 25 rows a matrix product would take their distances for 0
    other = x.flip(0) + 1 / 64
    assert torch.equal(match(x, other, order, order, 40), order.flip(0))


def test_matching_takes_any_scale_dtype_and_one_number_a_sample() -> None:
    x = torch.tensor([0.0, 10.0, 20.0, 30.0])
    assert match(x, x.flip(0) + 1, torch.arange(4), torch.arange(4), 4).tolist() == [3, 2, 1, 0]
    assert match(x.bfloat16(), x.flip(0).bfloat16(), torch.arange(4), torch.arange(4), 4).tolist() == [
        3,
        2,
        1,
        0,
    ]


@pytest.mark.usefixtures("unmoved_global_rng")
def test_without_scipy_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ModuleNotFoundError, match=r"^this needs scipy: pip install"):
        KMixup(seed=0).plan(X)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("k", lambda: KMixup(k=0)),
        ("k", lambda: KMixup(k=2.0)),
        ("k", lambda: KMixup(k=True)),
        ("per", lambda: KMixup(per="pair")),
        ("fold", lambda: KMixup(fold=1)),
        ("alpha", lambda: KMixup(-1)),
        ("x", lambda: KMixup(k=2, seed=0).plan(X * float("nan"))),
        ("first", lambda: KMixup(seed=0).between(X, X)),
        ("second", lambda: KMixup(seed=0).between((X, Y), (X[:, :1], Y))),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(argument: str, call: Callable[[], object]) -> None:
    assert_named(argument, call)
