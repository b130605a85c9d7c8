from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from batchmix import Mixup, sample_lam, sample_partner
from refusals import assert_named

ALPHAS = [0, 1e-8, 0.01, 0.4, 1, 1e3]
PER = ["batch", "pair", "sample"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def couples(batch_size: int) -> Tensor:
    return torch.arange(batch_size - 1, -1, -1)


def draw(alpha: float, batch_size: int, seed: int = 0, **options: object) -> Tensor:
    options.setdefault("partner", couples(batch_size))
    return sample_lam(alpha, batch_size, generator=seeded(seed), **options)


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("per", PER)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_lam_is_a_finite_float32_weight_for_each_sample(alpha: float, per: str, fold: bool) -> None:
    for batch_size in (1, 2, 7, 64):
        lam = draw(alpha, batch_size, per=per, fold=fold)
        assert (lam.shape, lam.dtype, lam.device.type) == ((batch_size,), torch.float32, "cpu")
        assert lam.isfinite().all()
        assert (lam >= (0.5 if fold else 0)).all()
        assert (lam <= 1).all()


@pytest.mark.parametrize(
    "alpha",
    [1e-300, 1e-45, 1e-37, 1e30, 1e300],
)
def test_lam_is_finite_for_any_alpha_that_is(alpha: float) -> None:
    lam = draw(alpha, 256)
    assert lam.isfinite().all()
    assert torch.equal(lam, torch.full((256,), 1.0 if alpha < 1 else 0.5))


@pytest.mark.parametrize("per", PER)
@pytest.mark.parametrize("fold", [True, False])
def test_alpha_zero_mixes_nothing(per: str, fold: bool) -> None:
    assert torch.equal(draw(0, 6, per=per, fold=fold), torch.ones(6))


def test_a_whole_number_is_an_alpha() -> None:
    assert torch.equal(draw(2, 9), draw(2.0, 9))


@pytest.mark.parametrize("per", PER)
@pytest.mark.usefixtures("unmoved_global_rng")
def test_same_generator_same_draw_and_no_other_is_touched(per: str) -> None:
    assert torch.equal(draw(0.4, 8, seed=3, per=per), draw(0.4, 8, seed=3, per=per))
    assert not torch.equal(draw(0.4, 8, seed=3, per=per), draw(0.4, 8, seed=4, per=per))
    assert torch.equal(
        sample_partner(64, generator=seeded(3)),
        sample_partner(64, generator=seeded(3)),
    )


def test_without_a_generator_the_draw_follows_torchs_global_one() -> None:
    draws = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            torch.manual_seed(11)
            draws.append((sample_lam(1.0, 8), sample_partner(8)))
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])


def test_one_lam_for_the_batch_is_one_lam() -> None:
    lam = draw(1.0, 16, per="batch", fold=False)
    assert torch.equal(lam, lam[:1].repeat(16))
    lam[0] = 2.0  # its own memory, not one number seen sixteen times
    assert lam[1] != 2.0


def test_both_members_of_a_pair_share_lam_and_pairs_differ() -> None:
    partner = sample_partner(9, mutual=True, generator=seeded(1))
    lam = draw(1.0, 9, per="pair", partner=partner)
    assert torch.equal(lam, lam[partner])
    assert len(lam.unique()) == 5


def test_samples_are_drawn_apart() -> None:
    lam = torch.stack([draw(1.0, 4, seed=seed, fold=False) for seed in range(2000)])
    correlation = torch.corrcoef(lam.T)[~torch.eye(4, dtype=torch.bool)]
    assert correlation.abs().max() < 4.5 / 2000**0.5


@pytest.mark.parametrize("batch_size", [*range(1, 10), 64])
@pytest.mark.parametrize(
    ("policy", "mutual"), [("shuffle", False), ("shuffle", True), ("derangement", False), ("roll", False)]
)
def test_partners_are_a_permutation(batch_size: int, policy: str, mutual: bool) -> None:
    own = torch.arange(batch_size)
    for seed in range(20):
        partner = sample_partner(batch_size, policy, mutual=mutual, generator=seeded(seed))
        assert (partner.shape, partner.dtype) == ((batch_size,), torch.int64)
        assert torch.equal(partner.sort().values, own)
        alone = int((partner == own).sum())
        if batch_size == 1:
            assert alone == 1
        elif mutual:
            assert torch.equal(partner[partner], own)
            assert alone == batch_size % 2
        elif policy != "shuffle":
            assert alone == 0


def test_roll_takes_the_previous_sample() -> None:
    assert sample_partner(5, "roll").tolist() == [4, 0, 1, 2, 3]


def frequencies(policy: str, batch_size: int, draws: int, **options: bool) -> dict[tuple[int, ...], int]:
    generator = seeded(5)
    counts = dict.fromkeys(itertools.permutations(range(batch_size)), 0)
    for _ in range(draws):
        counts[tuple(sample_partner(batch_size, policy, generator=generator, **options).tolist())] += 1
    return counts


def test_shuffle_is_uniform_over_permutations() -> None:
    counts = frequencies("shuffle", 3, 3000)
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_derangement_is_uniform_over_the_cyclic_permutations() -> None:
    counts = [count for count in frequencies("derangement", 4, 3000).values() if count]
    assert len(counts) == 6  # (4-1)! cycles through all four
    assert stats.chisquare(counts).pvalue > 1e-3


def test_couples_are_uniform_over_the_ways_to_pair_up() -> None:
    counts = [count for count in frequencies("shuffle", 4, 3000, mutual=True).values() if count]
    assert len(counts) == 3
    assert stats.chisquare(counts).pvalue > 1e-3


LABELS = torch.tensor([0, 1, 1, 2, 2, 2])


def by_class(policy: str, labels: Tensor, seed: int = 0) -> Tensor:
    return sample_partner(len(labels), policy, labels=labels, generator=seeded(seed))


@pytest.mark.parametrize("policy", ["other-class", "same-class"])
def test_partners_by_class_are_of_the_class_asked_for(policy: str) -> None:
    for seed in range(200):
        partner = by_class(policy, LABELS, seed)
        assert (partner.shape, partner.dtype) == ((6,), torch.int64)
        same = LABELS[partner] == LABELS
        if policy == "other-class":
            assert not same.any()
        else:
            assert same.all()
            alone = partner == torch.arange(6)
            assert alone.tolist() == [True, False, False, False, False, False]  # the only one of its class


@pytest.mark.parametrize("policy", ["other-class", "same-class"])
def test_every_allowed_partner_is_as_likely_as_another(policy: str) -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    drawn = torch.stack([by_class(policy, labels, seed) for seed in range(3000)])
    for i, label in enumerate(labels):
        allowed = labels == label if policy == "same-class" else labels != label
        allowed[i] = False
        counts = torch.bincount(drawn[:, i], minlength=7)
        assert counts[~allowed].sum() == 0
        assert stats.chisquare(counts[allowed].tolist()).pvalue > 1e-3
    first, second = drawn[:, 0], drawn[:, 1]  # samples choose apart
    table = torch.zeros(7, 7).index_put_((first, second), torch.ones(3000), accumulate=True)
    table = table[table.sum(1) > 0][:, table.sum(0) > 0]
    assert stats.chi2_contingency(table.numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    ("policy", "labels"),
    [
        ("other-class", torch.zeros(5, dtype=torch.int64)),
        ("same-class", torch.arange(5)),
        ("other-class", torch.tensor([3])),
        ("same-class", torch.tensor([3])),
    ],
)
def test_without_an_allowed_partner_a_sample_is_its_own(policy: str, labels: Tensor) -> None:
    assert torch.equal(by_class(policy, labels), torch.arange(len(labels)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.bool])
def test_class_ids_are_of_any_whole_dtype(dtype: torch.dtype) -> None:
    labels = torch.tensor([0, 1, 0, 1])
    assert torch.equal(by_class("other-class", labels.to(dtype)), by_class("other-class", labels))


@pytest.mark.parametrize("policy", ["other-class", "same-class"])
def test_a_mixer_hands_its_targets_to_the_policy(policy: str) -> None:
    x = torch.rand(6, 3, generator=seeded())
    for seed in range(20):
        _, (a, b, lam) = Mixup(1.0, partner=policy, seed=seed)(x, LABELS)
        assert (a == b).all() if policy == "same-class" else (a != b).all()
        assert torch.equal(lam == 1, torch.tensor([policy == "same-class"] + [False] * 5))


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("alpha", lambda: sample_lam(-0.1, 4)),
        ("alpha", lambda: sample_lam(float("nan"), 4)),
        ("alpha", lambda: sample_lam(float("inf"), 4)),
        ("alpha", lambda: sample_lam("0.4", 4)),
        ("alpha", lambda: sample_lam(True, 4)),
        ("alpha", lambda: sample_lam(None, 4)),
        ("batch_size", lambda: sample_lam(1.0, 0)),
        ("batch_size", lambda: sample_lam(1.0, 2.5)),
        ("batch_size", lambda: sample_partner(0)),
        ("batch_size", lambda: sample_partner(-1)),
        ("per", lambda: sample_lam(1.0, 4, per="image")),
        ("partner", lambda: sample_lam(1.0, 4, per="pair")),
        ("partner", lambda: sample_lam(1.0, 4, per="pair", partner=[1, 0, 3, 2])),
        ("partner", lambda: sample_lam(1.0, 4, per="pair", partner=torch.tensor([1, 0]))),
        ("policy", lambda: sample_partner(4, "random")),
        ("policy", lambda: sample_partner(4, "roll", mutual=True)),
        ("y", lambda: sample_partner(4, "same-class")),
        ("y", lambda: sample_partner(4, "same-class", labels=torch.rand(4))),
        ("y", lambda: sample_partner(4, "other-class", labels=torch.zeros(4, 2, dtype=torch.int64))),
        ("y", lambda: sample_partner(4, "other-class", labels=torch.arange(5))),
        ("y", lambda: Mixup(1.0, partner="other-class", seed=0).plan(torch.rand(4, 3))),
        ("generator", lambda: sample_lam(1.0, 4, generator=seeded(), device="meta")),
        ("generator", lambda: sample_partner(4, generator=seeded(), device="meta")),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(argument: str, call: Callable[[], object]) -> None:
    assert_named(argument, call)
