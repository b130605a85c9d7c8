"""What CutMix, ResizeMix, FMix, GridMix and SmoothMix have in common."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from batchmix import CutMix, MixError, MixPlan
from batchmix.methods.fmix import FMix
from batchmix.methods.gridmix import GridMix
from batchmix.methods.resizemix import ResizeMix
from batchmix.methods.smoothmix import SmoothMix
from refusals import assert_named

KINDS = [CutMix, ResizeMix, FMix, GridMix, SmoothMix]
FOLDING = [CutMix, FMix, GridMix]  # those with alpha

pytestmark = pytest.mark.usefixtures("unmoved_global_rng")


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type:
    return request.param


def test_every_sample_has_a_mask_of_its_own(kind: type) -> None:
    plan = kind(partner="derangement", seed=1).plan(noise(8, 3, 16, 24))
    assert plan.mask.shape == (8, 1, 16, 24)
    assert len({mask.numpy().tobytes() for mask in plan.mask}) == 8
    assert len(plan.lam.unique()) > 4


def test_one_mask_can_hold_for_the_batch(kind: type) -> None:
    for seed in range(5):
        plan = kind(per="batch", seed=seed).plan(noise(8, 3, 16, 24))
        assert plan.mask.shape == (1, 1, 16, 24)
        assert torch.equal(plan.lam, plan.lam[:1].expand(8))
        torch.testing.assert_close(plan.lam[0], plan.mask.float().mean())
        if plan.window is not None:
            assert torch.equal(plan.window, plan.window[:1].expand(8, 4))


@pytest.mark.parametrize("size", [7, 8])
def test_pairs_are_mutual_and_share_their_mask(kind: type, size: int) -> None:
    plan = kind(per="pair", seed=1).plan(noise(size, 3, 16, 24))
    own = torch.arange(size)
    assert torch.equal(plan.partner[plan.partner], own)
    assert torch.equal(plan.lam, plan.lam[plan.partner])
    assert torch.equal(plan.mask, plan.mask[plan.partner])
    assert int((plan.partner == own).sum()) == size % 2
    assert len(plan.lam.unique()) > 2


def test_a_pair_that_pastes_exchanges_its_pixels() -> None:
    x = noise(6, 3, 8, 8)
    mixed, (_, _, lam) = CutMix(1.0, per="pair", seed=2)(x, torch.arange(6))
    torch.testing.assert_close(mixed.sum(0), x.sum(0))
    assert (lam < 1).any()


def test_who_has_only_itself_stays_as_it_is(kind: type) -> None:
    x = noise(5, 3, 8, 12)
    found = 0
    for seed in range(10):
        mixer = kind(seed=seed)
        plan = mixer.plan(x)
        alone = plan.partner == torch.arange(5)
        found += int(alone.sum())
        assert torch.equal(plan.lam[alone], torch.ones(int(alone.sum())))
        mixed, _ = mixer(x, torch.arange(5), plan=plan)
        assert torch.equal(mixed[alone], x[alone])
    assert found


def test_a_batch_of_one_is_the_identity(kind: type) -> None:
    x = noise(1, 3, 8, 12)
    for per in ("sample", "pair", "batch"):
        mixed, target = kind(per=per, seed=0)(x, torch.tensor([3]))
        assert torch.equal(mixed, x)
        assert target.lam.tolist() == [1.0]


@pytest.mark.parametrize("shape", [(6, 3, 40), (6, 3, 5, 9, 12), (6, 1, 1, 1), (6, 2, 1, 13)])
def test_series_videos_and_thin_images_are_mixed(kind: type, shape: tuple[int, ...]) -> None:
    y = torch.arange(6)
    x = y.double().view(-1, *[1] * (len(shape) - 1)).expand(shape).contiguous()
    for seed in range(5):
        mixer = kind(seed=seed)
        plan = mixer.plan(x)
        assert plan.mask.shape == (6, 1, *(shape[2:] if len(shape) == 3 else shape[-2:]))
        mixed, (a, b, lam) = mixer(x, y, plan=plan)
        share = mixed.flatten(1).mean(1)
        torch.testing.assert_close(share, lam * a + (1 - lam.double()) * b, rtol=0, atol=1e-6)
        if len(shape) == 5:
            frames = mixed.movedim(2, 0)
            assert all(torch.equal(frame, frames[0]) for frame in frames)


def test_samples_without_positions_are_named(kind: type) -> None:
    with pytest.raises(
        MixError, match=r"^x takes images \(B, C, H, W\) or series .*got float32 tensor \(4, 3\)"
    ):
        kind(seed=0)(noise(4, 3), torch.arange(4))


def test_two_batches_are_mixed_sample_by_sample(kind: type) -> None:
    one, two = noise(6, 3, 8, 12), 1 + noise(6, 3, 8, 12)
    mixed, (_, b, lam) = kind(seed=3).between((one, torch.arange(6)), (two, torch.arange(6) + 10))
    assert torch.equal(b, torch.arange(6) + 10)
    assert (lam < 1).sum() >= 5
    seen = (mixed > 1).flatten(1).double().mean(1)
    if kind is not SmoothMix:
        torch.testing.assert_close(seen, 1 - lam.double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("folding", FOLDING, ids=lambda kind: kind.__name__)
def test_folding_leaves_at_least_half_of_every_image(folding: type) -> None:
    x = noise(8, 1, 16, 16)
    for fold in (True, False):
        lam = torch.cat([folding(1.0, fold=fold, seed=seed).plan(x).lam for seed in range(30)])
        # A side is rounded down by a pixel at most, half of the cells and of the pixels is a whole number.
        assert bool((lam < 0.5).any()) == (not fold)


@pytest.mark.parametrize("folding", FOLDING, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("alpha", [1e-8, 0.5, 1, 1e6])
def test_lam_follows_alpha(folding: type, alpha: float) -> None:
    x = noise(64, 1, 16, 16)
    plan = folding(alpha, partner="derangement", seed=0).plan(x)
    assert plan.lam.isfinite().all()
    assert ((plan.lam >= 0) & (plan.lam <= 1)).all()
    if folding is CutMix:  # whose boxes are clipped at the edges
        return
    if alpha == 1e6:
        torch.testing.assert_close(plan.lam, torch.full((64,), 0.5), rtol=0, atol=0.05)
    if alpha == 1e-8:
        assert set(plan.lam.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("folding", FOLDING, ids=lambda kind: kind.__name__)
def test_alpha_zero_hands_the_batch_back(folding: type) -> None:
    x = noise(4, 3, 8, 8)
    assert folding(0, seed=0)(x, torch.arange(4))[0] is x


def test_a_schedule_and_p_sample_reach_it(kind: type) -> None:
    x = noise(8, 3, 8, 12)
    off = kind(schedule=lambda step: float(step < 1), seed=0)
    assert (off.plan(x).lam < 1).any()
    assert torch.equal(off.plan(x).lam, MixPlan.identity(8).lam)
    some = kind(partner="derangement", p_sample=0.5, seed=0)
    assert 0 < int((torch.cat([some.plan(x).lam for _ in range(4)]) < 1).sum()) < 30


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("per", {"per": "image"}),
        ("partner", {"partner": "random"}),
        ("partner", {"partner": "roll", "per": "pair"}),
        ("p", {"p": 2}),
        ("schedule", {"schedule": {"size": float}}),
        ("seed", {"seed": -1}),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(kind: type, argument: str, options: dict[str, object]) -> None:
    assert_named(argument, lambda: kind(**options))


@pytest.mark.parametrize(
    ("kind_of_mix", "argument", "options"),
    [
        *[(found, "alpha", {"alpha": alpha}) for found in FOLDING for alpha in (-1, "1", float("nan"), True)],
        *[(found, "fold", {"fold": 1}) for found in FOLDING],
        *[(CutMix, "minmax", {"minmax": value}) for value in (0.5, (0.5,), (0.5, 0.2), (0, 2), ("a", "b"))],
        *[(CutMix, "minmax", {"minmax": value}) for value in ((0.1, float("nan")), (True, True))],
        *[(ResizeMix, "scale", {"scale": value}) for value in (0.5, (0.5, 0.2), (0, 1), (0.5, 1.1), None)],
        *[(SmoothMix, "spread", {"spread": value}) for value in (0.5, (0.5, 0.2), (0, 1), None)],
        *[(GridMix, "cells", {"cells": value}) for value in (0, 2.0, True, None)],
        *[(FMix, "decay", {"decay": value}) for value in (-1, None, float("inf"))],
    ],
)
def test_an_argument_of_its_own_is_named_in_one_line(
    kind_of_mix: type, argument: str, options: dict[str, object]
) -> None:
    assert_named(argument, lambda: kind_of_mix(**options))
