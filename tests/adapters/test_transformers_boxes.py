"""Boxes of detection models in the Trainer: their form, their weights, their padding."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from messages import one_line
from torch import Tensor
from transformers_trainers import (
    RESNET,
    build,
    make_trainer,
)

import batchmix as bm
from batchmix.adapters.transformers import mixup


def test_boxes_with_weights_need_a_loss_that_reads_them(tmp_path: Path) -> None:
    """A detector's own loss reads none: an object of a thousandth of the image would count in full."""
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = [{"labels": torch.tensor([i]), "boxes": torch.tensor([[2.0, 2, 6, 6]])} for i in range(4)]
    batch = {"pixel_values": x, "labels": labels}
    trainer = make_trainer(build(RESNET), tmp_path)
    step = mixup(trainer, bm.Mixup(0.4, partner="roll", seed=1)).training_step
    with pytest.raises(
        bm.MixError, match=r"^labels takes a mixer that pastes boxes, .*, got Mixup and the model's"
    ):
        step.mix(batch)
    trainer.compute_loss_func = lambda outputs, labels, **_: outputs
    assert len(step.mix(batch)["labels"][0]["weights"]) == 2
    trainer.compute_loss_func = None
    pasted = mixup(trainer, bm.CutMix(1.0, seed=1)).training_step.mix(batch)["labels"]
    assert all((part["weights"] == 1).all() for part in pasted)
    in_full = mixup(trainer, bm.Mixup(0.4, partner="roll", seed=1), boxes={"weighted": False})
    joined = in_full.training_step.mix(batch)["labels"]
    assert [part["labels"].tolist() for part in joined] == [[0, 3], [1, 0], [2, 1], [3, 2]]
    assert not any("weights" in part for part in joined)


def detections(**more: Tensor) -> list[dict[str, Tensor]]:
    """What transformers' image processors make of annotations of images of 8 by 12."""
    box = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
    return [{"class_labels": torch.tensor([i]), "boxes": box, **more} for i in range(4)]


@pytest.mark.parametrize("mixer", [bm.CutMix(1.0, seed=1), bm.Mixup(0.4, seed=1), bm.Mixup(p=0.0, seed=1)])
def test_boxes_beside_class_labels_are_shares_around_a_middle(mixer: bm.Mixer, tmp_path: Path) -> None:
    x = torch.rand(4, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    used = torch.ones(4, 8, 12, dtype=torch.long)
    used[1, :, 9:] = 0
    labels = detections(size=torch.tensor([8, 12]))
    plan = copy.deepcopy(mixer).plan(x)
    trainer = make_trainer(build(RESNET), tmp_path, compute_loss_func=lambda outputs, labels, **_: outputs)
    step = mixup(trainer, mixer).training_step
    mixed = step.mix({"pixel_values": x, "pixel_mask": used, "labels": labels})
    wanted = bm.mix_objects(labels, plan, form="cxcywh", normalized=True)
    for got, other in zip(mixed["labels"], wanted, strict=True):
        assert got.keys() == other.keys()
        assert all(torch.equal(got[name], other[name]) for name in got)
    assert torch.equal(mixed["pixel_values"], bm.blend(x, plan))
    both = used | used[plan.partner] * (plan.lam < 1).view(-1, 1, 1)
    own = None if plan.mask is None else plan.mask[:, 0]
    pasted = both if own is None else torch.where(own, used, used[plan.partner])
    assert torch.equal(mixed["pixel_mask"], pasted)
    assert mixer.step == 1


def test_boxes_of_another_form_can_be_told(tmp_path: Path) -> None:
    x = torch.rand(4, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    labels = [{**one, "boxes": torch.tensor([[2.0, 2, 6, 6]])} for one in detections()]
    trainer = make_trainer(build(RESNET), tmp_path)
    step = mixup(trainer, bm.CutMix(1.0, seed=1)).training_step
    with pytest.raises(
        bm.MixError,
        match=r"^labels, taken with boxes={'form': 'cxcywh', .*}: targets takes boxes of middle, .* up to 6$",
    ):
        step.mix({"pixel_values": x, "labels": labels})
    boxes = {"form": "xyxy", "normalized": False, "min_visible": 0.3}
    step = mixup(trainer, bm.CutMix(1.0, seed=1), boxes=boxes).training_step
    mixed = step.mix({"pixel_values": x, "labels": labels})["labels"]
    wanted = bm.mix_objects(labels, bm.CutMix(1.0, seed=1).plan(x), min_visible=0.3)
    for got, other in zip(mixed, wanted, strict=True):
        assert torch.equal(got["boxes"], other["boxes"])


def test_boxes_that_are_shares_of_an_image_before_its_padding_are_refused(tmp_path: Path) -> None:
    batch = {"pixel_values": torch.rand(4, 3, 8, 12), "labels": detections(size=torch.tensor([8, 10]))}
    step = mixup(make_trainer(build(RESNET), tmp_path), bm.CutMix(1.0, seed=1)).training_step
    trainer = make_trainer(build(RESNET), tmp_path, compute_loss_func=lambda outputs, labels, **_: outputs)
    for mixer in (bm.Mixup(0.4), bm.CutMix(p=0.0)):  # which change no box
        assert len(mixup(trainer, mixer).training_step.mix(batch)["labels"]) == 4
    with pytest.raises(bm.MixError) as raised:
        step.mix(batch)
    assert one_line(raised).startswith("labels takes boxes that are shares of the whole images, (8, 12)")
    assert one_line(raised).endswith("got one whose 'size' is (8, 10)")


@pytest.mark.parametrize("kinds", [{"y": "pass"}, {"y.labels": "pass"}])
def test_boxes_can_be_left_to_the_trainers_own_loss(kinds: dict[str, str], tmp_path: Path) -> None:
    batch = {"pixel_values": torch.rand(4, 3, 8, 12), "labels": detections()}
    step = mixup(make_trainer(build(RESNET), tmp_path), bm.CutMix(1.0, seed=1), kinds=kinds).training_step
    mixed = step.mix(batch)
    assert mixed["labels"] is batch["labels"]
    assert not torch.equal(mixed["pixel_values"], batch["pixel_values"])
