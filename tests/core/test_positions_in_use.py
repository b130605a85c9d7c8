"""Masks of the positions in use: what becomes of them, and what labels count of padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from batchmix import CutMix, Mixer, MixError, MixPlan, Mixup, ResizeMix, blend

G = torch.Generator().manual_seed(0)
B = 4
IMAGE = torch.rand(B, 3, 6, 8, generator=G)
LABEL = torch.tensor([3, 1, 0, 2])
MAP = torch.randint(5, (B, 6, 8), generator=G)


def plan_of(mixer: Mixer) -> MixPlan:
    """What a mixer of this kind draws for the images."""
    return type(mixer)(1.0, seed=3).plan(IMAGE)


def test_attention_masks_are_united_and_known_by_their_name() -> None:
    used = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]])
    plan = MixPlan(torch.tensor([1, 2, 2, 0]), torch.tensor([0.5, 0.5, 1.0, 0.5]))
    embeddings = torch.rand(B, 3, 5, generator=G)
    x, _ = Mixup()({"inputs_embeds": embeddings, "attention_mask": used}, LABEL, plan=plan)
    assert x["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 0]]
    assert torch.equal(x["inputs_embeds"], blend(embeddings, plan))


def test_an_attention_mask_has_nothing_of_a_sample_without_weight() -> None:
    used = torch.tensor([[1, 1, 1], [1, 0, 0]])
    plan = MixPlan(torch.tensor([1, 0]), torch.tensor([0.0, 1.0]))
    x, _ = Mixup()({"embeds": torch.rand(2, 3, 5, generator=G), "attention_mask": used}, LABEL[:2], plan=plan)
    assert x["attention_mask"].tolist() == [[1, 0, 0], [1, 0, 0]]


def test_attention_masks_are_pasted_with_their_series() -> None:
    used = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
    mask = torch.ones(2, 1, 5, dtype=torch.bool)
    mask[0, 0, 1:3] = False
    plan = MixPlan(torch.tensor([1, 0]), torch.tensor([0.6, 1.0]), mask)
    x = {"series": torch.rand(2, 3, 5), "attention_mask": used}
    pasted = CutMix()(x, torch.tensor([0, 1]), plan=plan)[0]["attention_mask"]
    assert pasted.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]


def test_labels_are_weighed_by_the_positions_in_use() -> None:
    """Padding that is pasted or pasted over does not count; where there is none the plan's weight stays."""
    rows = (  # partner; what is in use; what stays; what is in use then; the weight
        (1, "11111", "10011", "11011", 3 / 4),
        (0, "11000", "10011", "11100", 1 / 3),
        (1, "11000", "11100", "11000", 1.0),
        (3, "00000", "10111", "00000", 0.3),  # nothing to count: the plan's own
        (0, "11111", "01111", "11111", 0.77),
    )
    partners, used, stays, after, weights = zip(*rows, strict=True)

    def places(texts: tuple[str, ...]) -> Tensor:
        return torch.tensor([[int(place) for place in text] for text in texts])

    lam = torch.tensor([0.6, 0.6, 0.6, 0.3, 0.77])
    plan = MixPlan(torch.tensor(partners), lam, places(stays).bool().unsqueeze(1))
    x = {"series": torch.rand(5, 3, 5), "attention_mask": places(used)}
    x, y = CutMix()(x, torch.arange(5), plan=plan)
    assert torch.equal(x["attention_mask"], places(after))
    assert torch.equal(y.lam, torch.tensor(weights))


def test_pixels_in_use_are_resized_with_their_image() -> None:
    """The partner uses its left half; resized into the right half, that is the third quarter."""
    used = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0]] * 2).unsqueeze(1).expand(2, 6, 8)
    window = torch.tensor([[0, 6, 4, 8]] * 2)
    mask = (torch.arange(8) < 4).expand(2, 1, 6, 8)
    plan = MixPlan(torch.tensor([1, 0]), torch.tensor([0.5, 0.5]), mask, window)
    x, y = ResizeMix()({"pixel_values": IMAGE[:2], "pixel_mask": used}, LABEL[:2], plan=plan)
    assert x["pixel_mask"][0, 0].tolist() == [1, 1, 1, 1, 1, 1, 0, 0]
    assert torch.equal(y.lam, torch.tensor([2 / 3, 2 / 3]))


def test_objects_below_padding_that_is_pasted_are_gone() -> None:
    """The label is all the sample's own, since nothing else is in use; its object is covered all the same."""
    used = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0, 0, 0]]).unsqueeze(1).expand(2, 6, 8)
    mask = (torch.arange(8) < 4).expand(2, 1, 6, 8)
    plan = MixPlan(torch.tensor([1, 0]), torch.tensor([0.5, 0.5]), mask)
    objects = [{"boxes": torch.tensor([[5.0, 1.0, 7.0, 4.0]]), "labels": torch.tensor([i])} for i in range(2)]
    x = {"pixel_values": IMAGE[:2], "pixel_mask": used}
    _, (label, found) = CutMix()(x, (LABEL[:2], objects), plan=plan)
    assert label.lam[0] == 1.0
    assert found[0]["labels"].tolist() == [1]  # the partner's, which is pasted over the sample's own


@pytest.mark.parametrize("method", [CutMix(1.0, seed=3), CutMix(1.0, seed=3, p_sample=0.5)], ids=str)
def test_without_padding_an_attention_mask_changes_no_weight(method: Mixer) -> None:
    plan = method.plan(IMAGE)
    x = {"pixel_values": IMAGE, "pixel_mask": torch.ones(B, 6, 8, dtype=torch.bool)}
    assert torch.equal(method(x, LABEL, plan=plan)[1].lam, plan.lam)


def test_the_pixels_in_use_are_pasted_with_their_image_and_united_under_a_blend() -> None:
    used = (torch.arange(8) < torch.tensor([[8], [5], [3], [8]])).long().unsqueeze(1).expand(B, 6, 8)
    x = {"pixel_values": IMAGE, "pixel_mask": used}
    plan = plan_of(CutMix())
    pasted = CutMix(1.0, seed=3)(x, LABEL)[0]["pixel_mask"]
    assert torch.equal(pasted, torch.where(plan.mask[:, 0], used, used[plan.partner]))
    plan = plan_of(Mixup())
    both = Mixup(1.0, seed=3)(x, LABEL)[0]["pixel_mask"]
    assert torch.equal(both, used | used[plan.partner] * (plan.lam < 1).view(-1, 1, 1))
    with pytest.raises(MixError, match=r"^x\.pixel_mask takes booleans or whole numbers, .*, got float32"):
        Mixup(seed=0)({"pixel_values": IMAGE, "pixel_mask": used.float()}, LABEL)


def test_a_mask_of_that_name_that_is_no_input_may_be_one_of_classes() -> None:
    _, y = CutMix(1.0, seed=3)(IMAGE, {"pixel_mask": MAP})
    plan = plan_of(CutMix())
    assert torch.equal(y["pixel_mask"], torch.where(plan.mask[:, 0], MAP, MAP[plan.partner]))
    with pytest.raises(
        MixError, match=r"^pixel_mask takes a kind, as in kinds={'pixel_mask': 'segmentation'}"
    ):
        Mixup(seed=0).mix({"image": IMAGE, "pixel_mask": MAP})
