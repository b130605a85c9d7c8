"""OpenMixup's published formulas, written out: their draws, replayed through a plan made by hand.

It is not installed; CutMix's box, the same in all that follow its authors, is in test_cutmix_parity.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from batchmix import MixedTarget, MixPlan, blend
from batchmix.core.boxes import box_masks

B = 6


def batch(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(B, 3, height, width, generator=generator)
    return x, torch.arange(B), torch.randperm(B, generator=generator)


def test_mixup_has_one_weight_of_the_sample_itself() -> None:
    x, y, partner = batch(6, 8)
    lam = float(np.random.RandomState(3).beta(1.0, 1.0))
    plan = MixPlan(partner, torch.full((B,), lam))
    torch.testing.assert_close(blend(x, plan), lam * x + (1 - lam) * x[partner])
    target = MixedTarget.from_plan(y, plan)
    assert torch.equal(target.b, y[partner])
    assert target.lam.tolist() == pytest.approx([lam] * B)


def test_smoothmix_weighs_the_labels_the_wrong_way_round() -> None:
    # openmixup/models/augments/smoothmix.py: lam is the mean of the bell, which is the partner's share of the
    # image; it is handed on as the weight of the sample's own label. The images are ours, the labels swapped.
    side = 8
    x, y, partner = batch(side, side)
    sigma, row, column = 0.3 * side, 2.0, 5.0
    place = torch.arange(side)
    bell = torch.exp(-((place - row).square()[:, None] + (place - column).square()) / (2 * sigma**2))
    theirs, their_lam = x * (1 - bell) + x[partner] * bell, float(bell.sum() / side**2)

    mask = (1 - bell).view(1, 1, side, side)
    plan = MixPlan(partner, mask.mean().expand(B).contiguous(), mask)
    torch.testing.assert_close(blend(x, plan), theirs)
    own = y.double().view(B, 1, 1, 1).expand(B, 1, side, side).contiguous()  # all of it is its own label
    seen, target = blend(own, plan).mean((1, 2, 3)), MixedTarget.from_plan(y, plan)
    torch.testing.assert_close(seen, target.lam * y + (1 - target.lam.double()) * target.b, rtol=0, atol=1e-6)
    assert target.lam.tolist() == pytest.approx([1 - their_lam] * B)
    assert (seen - (their_lam * y + (1 - their_lam) * y[partner])).abs().max() > 0.1


def test_resizemix_makes_the_partner_small_and_counts_its_pixels() -> None:
    # openmixup/models/augments/resizemix.py draws the box's rows from the width: of images that are not
    # square it is another box, or leaves the image. Square ones, at whole scales, are ours.
    side, top, left, small = 8, 1, 3, 4
    x, y, partner = batch(side, side)
    theirs = x.clone()
    theirs[:, :, top : top + small, left : left + small] = F.avg_pool2d(x[partner], 2)
    their_lam = 1 - small * small / side**2

    box = torch.tensor([[top, top + small, left, left + small]]).expand(B, 4).contiguous()
    mask, lam = box_masks(box, (side, side))
    plan = MixPlan(partner, lam, mask, box)
    torch.testing.assert_close(blend(x, plan), theirs)  # bilinear at half the size is the mean of four
    assert MixedTarget.from_plan(y, plan).lam.tolist() == pytest.approx([their_lam] * B)
