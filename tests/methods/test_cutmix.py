from __future__ import annotations

import pytest
import torch

from batchmix import Choice, CutMix, MixError, Mixup, SmoothMix
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


def test_with_three_axes_a_cuboid_of_the_volume_is_cut() -> None:
    x = torch.rand(6, 1, 8, 10, 12, generator=torch.Generator().manual_seed(0))
    organs = torch.randint(4, (6, 8, 10, 12), generator=torch.Generator().manual_seed(1))
    cutmix = CutMix(1.0, axes=3, partner="roll", seed=0)
    plan = cutmix.plan(x)
    assert plan.mask.shape == (6, 1, 8, 10, 12)
    for place, mask in enumerate(plan.mask):
        cut = (~mask[0]).nonzero()
        sides = cut.amax(0) - cut.amin(0) + 1 if len(cut) else torch.zeros(3).long()
        assert len(cut) == sides.prod()  # a cuboid, nothing missing
        assert float(plan.lam[place]) == pytest.approx(1 - len(cut) / (8 * 10 * 12))
    assert any(0 < int((~mask[0]).any(1).any(1).sum()) < 8 for mask in plan.mask)  # of some slices alone
    mixed, masks = cutmix(x, organs, plan=plan)
    assert torch.equal(mixed, torch.where(plan.mask, x, x[plan.partner]))
    assert torch.equal(masks, torch.where(plan.mask[:, 0], organs, organs[plan.partner]))


def test_without_a_word_the_box_of_a_video_is_the_same_in_every_frame() -> None:
    x = torch.rand(6, 3, 8, 10, 12, generator=torch.Generator().manual_seed(0))
    frames = CutMix(1.0, seed=0)(x, torch.arange(6))[0]
    assert torch.equal(frames, CutMix(1.0, axes=2, seed=0)(x, torch.arange(6))[0])
    assert torch.equal(
        CutMix(1.0, seed=0)(x[..., 0, 0], Y[:6])[0], CutMix(1.0, axes=1, seed=0)(x[..., 0, 0], Y[:6])[0]
    )


def test_a_choice_cuts_boxes_and_cuboids_of_the_same_volumes() -> None:
    x = torch.rand(8, 1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    choice = Choice({CutMix(1.0, axes=3): 0.5, CutMix(1.0): 0.5}, per="sample", seed=0)
    plan = choice.plan(x)
    assert torch.equal(choice(x, Y, plan=plan)[0], torch.where(plan.mask, x, x[plan.partner]))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (3, r"^x takes \(B, C, D, H, W\), all >= 1, got "),
        (4, "^axes takes a whole number from 1 to 3, got 4"),
        (0, "^axes takes a whole number from 1 to 3, got 0"),
    ],
)
def test_a_box_has_the_axes_that_there_are(axes: int, message: str) -> None:
    with pytest.raises(MixError, match=message):
        CutMix(1.0, axes=axes, seed=0)(X, Y)


def test_sides_that_are_drawn_by_themselves_are_not_folded() -> None:
    with pytest.raises(MixError, match=r"^fold takes False where minmax draws [^\n]*, got True$"):
        CutMix(minmax=(0.2, 0.8), fold=True)
