from __future__ import annotations

import pytest
import torch

from batchmix import CutMix, MixError, Mixup, SmoothMix
from batchmix.mixer import Mixer

X = torch.rand(8, 3, 16, 24, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8)


def test_unless_told_otherwise_each_sample_has_a_box_at_alpha_1() -> None:
    cutmix = CutMix(seed=0)
    assert (cutmix.alpha, cutmix.per, cutmix.fold, cutmix.minmax, cutmix.partner, cutmix.p) == (
        1.0,
        "sample",
        False,
        None,
        "shuffle",
        1.0,
    )


def test_every_pixel_is_one_of_the_two_bit_for_bit() -> None:
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        x = (X * 1e3).to(dtype)
        x[0, 0, :4] = torch.tensor(float("nan"))  # a paste does no arithmetic
        x[1, 0, :4] = float("inf")
        mixer = CutMix(1.0, seed=1)
        plan = mixer.plan(x)
        mixed, _ = mixer(x, Y, plan=plan)
        for i, j in enumerate(plan.partner.tolist()):
            own = plan.mask[i].expand_as(x[i])
            assert torch.equal(mixed[i][own].nan_to_num(7), x[i][own].nan_to_num(7))
            assert torch.equal(mixed[i][~own].nan_to_num(7), x[j][~own].nan_to_num(7))


def test_what_is_cut_is_one_box_of_the_images_shape() -> None:
    for seed in range(20):
        plan = CutMix(1.0, seed=seed).plan(X)
        for mask, lam in zip(plan.mask[:, 0], plan.lam.tolist(), strict=True):
            cut = ~mask
            high, wide = int(cut.any(1).sum()), int(cut.any(0).sum())
            assert int(cut.sum()) == high * wide  # a full rectangle, or nothing
            assert lam == pytest.approx(1 - high * wide / (16 * 24))


def test_sides_between_limits_lie_inside_the_image_and_ignore_alpha() -> None:
    plans = [CutMix(alpha, minmax=(0.5, 0.75), seed=3).plan(X) for alpha in (0.1, 1.0, 9.0)]
    assert all(torch.equal(plan.mask, plans[0].mask) for plan in plans)
    for mask in plans[0].mask[plans[0].lam < 1]:
        assert 8 <= int((~mask[0]).any(1).sum()) <= 12
        assert 12 <= int((~mask[0]).any(0).sum()) <= 18


def test_the_share_that_stays_is_a_beta_draw_before_it_is_clipped() -> None:
    plan = CutMix(1.0, partner="roll", seed=5).plan(torch.zeros(4000, 1, 64, 64))
    cut = ~plan.mask[:, 0]
    rows, columns = cut.any(2), cut.any(1)
    whole = ~(rows[:, 0] | rows[:, -1] | columns[:, 0] | columns[:, -1])  # not at an edge, so not clipped
    high, wide = rows[whole].sum(1), columns[whole].sum(1)
    assert torch.equal(high, wide)  # of a square image, a square
    assert int(whole.sum()) > 300


def test_integer_and_boolean_masks_are_pasted_with_the_pixels() -> None:
    y = torch.randint(5, (8, 16, 24), generator=torch.Generator().manual_seed(1))
    mixer = CutMix(1.0, seed=0)
    plan = mixer.plan(X)
    _, mixed = mixer(X, y, plan=plan)
    assert torch.equal(mixed, torch.where(plan.mask[:, 0], y, y[plan.partner]))


@pytest.mark.parametrize("mixer", [CutMix(seed=0), SmoothMix(seed=0)], ids=["paste", "soft"])
def test_between_two_batches_masks_of_places_are_refused_where_images_are_pasted(mixer: Mixer) -> None:
    one, two = ((torch.full((2, 3, 8, 8), float(k)), torch.full((2, 8, 8), k)) for k in (0, 1))
    with pytest.raises(
        MixError, match=r"^first takes one target a sample .*: mix both batches as one, mixer\("
    ):
        mixer.between(one, two)
    assert Mixup(0.4, seed=0).between(one, two)[1].shape == (2, 8, 8)
