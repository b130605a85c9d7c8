"""What users of other libraries found missing or wrong for series, audio and tables, one test each.

MixText#3 (attention masks) is in tests/methods/test_tokencutmix.py, fastai#2112 (tables) here and in
tests/methods/test_tabularcutmix.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from batchmix import CutMix, MixError, MixPlan, Mixup, blend
from batchmix.methods import discover

SERIES = torch.rand(8, 2, 50, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])


@pytest.mark.parametrize("method", [Mixup, CutMix])
def test_tsai_791_labels_of_a_mixed_series_are_mixed_too(method: type) -> None:
    # tsai#791: series were mixed, and the targets that the loss saw were not.
    y = torch.arange(8.0)
    x = y.view(8, 1, 1).expand(8, 2, 50)  # every value is its own label
    mixed, target = method(1.0, partner="roll", seed=0)(x, y)
    assert not torch.equal(mixed, x)
    wanted = target.lam * y + (1 - target.lam) * y.roll(1)
    torch.testing.assert_close(mixed.mean((1, 2)), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        F.mse_loss(torch.zeros(8), target, reduction="none"),
        target.lam * y**2 + (1 - target.lam) * y.roll(1) ** 2,
    )


def test_partners_of_the_same_class_leave_the_labels_of_a_series_as_they_are() -> None:
    for seed in range(20):
        mixed, (a, b, lam) = CutMix(1.0, partner="same-class", seed=seed)(SERIES, CLASSES)
        assert torch.equal(a, CLASSES)
        assert torch.equal(b, CLASSES)
        logits = torch.rand(8, 3, generator=torch.Generator().manual_seed(seed))
        target = CutMix(1.0, partner="same-class", seed=seed)(SERIES, CLASSES)[1]
        torch.testing.assert_close(F.cross_entropy(logits, target), F.cross_entropy(logits, CLASSES))
        changed = (mixed != SERIES).any(1).float().mean(1)
        torch.testing.assert_close(changed, 1 - lam, rtol=0, atol=1e-6)
    assert (lam < 1).any()


def tsai_intra_class(x: Tensor, partner: Tensor, lam: float, middle: int) -> Tensor:
    """A stretch of every series replaced by the same of another of its class, sample by sample.

    The stretch is ``round(T*(1-lam))`` long, half of it (rounded down) to each side of the middle.
    """
    half = round(x.shape[2] * (1 - lam)) // 2
    start, end = max(0, middle - half), min(x.shape[2], middle + half)
    mixed = x.clone()
    for i, j in enumerate(partner.tolist()):
        for place in range(start, end):
            mixed[i, :, place] = x[j, :, place]
    return mixed


@pytest.mark.parametrize(("lam", "middle"), [(0.5, 20), (0.1, 3), (0.9, 49), (1.0, 7), (0.0, 25)])
def test_tsais_draw_of_intra_class_cutmix_replays_as_a_plan(lam: float, middle: int) -> None:
    partner = torch.arange(8)
    for label in range(3):  # a shuffle of every class
        members = (label == CLASSES).nonzero().flatten()
        partner[members] = members.roll(1)
    half = round(50 * (1 - lam)) // 2
    place = torch.arange(50)
    mask = ~((place >= max(0, middle - half)) & (place < min(50, middle + half))).view(1, 1, 50)
    plan = MixPlan(partner, mask.float().mean().expand(8).contiguous(), mask)
    assert torch.equal(blend(SERIES, plan), tsai_intra_class(SERIES, partner, lam, middle))
    _, target = CutMix(1.0, seed=0)(SERIES, CLASSES, plan=plan)
    assert torch.equal(target.a, target.b)


def test_torch_audiomentations_177_what_mixes_audio_can_be_reached() -> None:
    # torch-audiomentations#177: Mix was there, but not among the public names.
    methods = discover()
    audio, y = torch.randn(4, 1, 800, generator=torch.Generator().manual_seed(0)), torch.arange(4)
    for name, x in (("energymixup", audio), ("cutmix", audio), ("specmix", audio.view(4, 1, 20, 40))):
        mixed, target = methods[name](partner="roll", seed=1)(x, y)
        assert mixed.shape == x.shape
        assert not torch.equal(mixed, x)
        assert torch.equal(target.b, y.roll(1))


def test_fastai_2112_a_batch_of_categories_and_numbers_is_mixed_or_refused_in_one_line() -> None:
    # fastai#2112: mixup of a tabular learner ended in "'list' object has no attribute 'new'".
    categories = torch.randint(9, (8, 3), generator=torch.Generator().manual_seed(1))
    numbers, y = torch.rand(8, 4, generator=torch.Generator().manual_seed(2)), torch.rand(8)
    with pytest.raises(
        MixError, match=r"^x\.0 takes floating point samples.*'pass'.*, got int64 tensor \(8, 3\)$"
    ):
        Mixup(0.4, seed=0)([categories, numbers], y)
    (kept, mixed), target = Mixup(0.4, seed=0)([categories, numbers], y, kinds={"x.0": "pass"})
    assert kept is categories
    torch.testing.assert_close(mixed, blend(numbers, Mixup(0.4, seed=0).plan(numbers)))
    x, target = discover()["tabularcutmix"](partner="roll", seed=0)([categories, numbers], y)
    assert [part.dtype for part in x] == [torch.int64, torch.float32]
    own = torch.cat([x[0] == categories, x[1] == numbers], 1)
    theirs = torch.cat([x[0] == categories.roll(1, 0), x[1] == numbers.roll(1, 0)], 1)
    assert (own | theirs).all()
    assert torch.equal(target.b, y.roll(1))
