from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
import torch

from batchmix import MixPlan
from refusals import assert_named

PARTNER, LAM = torch.tensor([1, 0, 2]), torch.tensor([0.75, 0.5, 1.0])
MASK = torch.ones(3, 1, 4, 6)
WINDOW = torch.tensor([[0, 4, 0, 6], [1, 3, 2, 5], [0, 1, 0, 1]])


def test_a_plan_has_the_length_and_device_of_its_batch() -> None:
    plan = MixPlan(PARTNER, LAM)
    assert (len(plan), plan.device.type, plan.mask) == (3, "cpu", None)


def test_a_plan_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        MixPlan(PARTNER, LAM).lam = LAM


def test_identity_keeps_every_sample() -> None:
    plan = MixPlan.identity(4)
    assert plan.partner.tolist() == [0, 1, 2, 3]
    assert plan.lam.tolist() == [1.0] * 4
    assert MixPlan.identity(2, "meta").device.type == "meta"


def test_identity_is_known_without_asking_the_device() -> None:
    plan = MixPlan.identity(3)
    assert plan.is_identity
    assert plan.to("meta").is_identity
    assert copy.deepcopy(plan).is_identity
    assert not MixPlan(torch.arange(3), torch.ones(3)).is_identity
    assert not dataclasses.replace(plan, partner=PARTNER, lam=LAM).is_identity


def test_a_plan_moves_with_all_it_has() -> None:
    moved = MixPlan(PARTNER, LAM, MASK).to("meta")
    assert {moved.partner.device.type, moved.lam.device.type, moved.mask.device.type} == {"meta"}
    assert MixPlan(PARTNER, LAM).to("meta").mask is None


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda plan: pickle.loads(pickle.dumps(plan))])
def test_a_plan_is_a_value_that_travels(copied: object) -> None:
    plan = copied(MixPlan(PARTNER, LAM, MASK.bool(), WINDOW))
    for part, before in zip(
        (plan.partner, plan.lam, plan.mask, plan.window), (PARTNER, LAM, MASK.bool(), WINDOW), strict=True
    ):
        assert torch.equal(part, before)
        assert part.dtype == before.dtype


def test_a_window_moves_with_the_plan() -> None:
    assert MixPlan(PARTNER, LAM, MASK, WINDOW).to("meta").window.device.type == "meta"


def test_a_window_has_ends_for_some_of_the_masks_positions() -> None:
    video = torch.ones(3, 1, 5, 4, 6)
    assert MixPlan(PARTNER, LAM, MASK, WINDOW[:, :2]).window.shape == (3, 2)
    assert MixPlan(PARTNER, LAM, video, WINDOW).window.shape == (3, 4)
    assert MixPlan(PARTNER, LAM, torch.ones(3, 1, 6), WINDOW[:, :2]).window.shape == (3, 2)


def test_without_mask_keeps_who_and_how_much() -> None:
    plan = MixPlan(PARTNER, LAM, MASK, WINDOW).without_mask()
    assert torch.equal(plan.partner, PARTNER)
    assert torch.equal(plan.lam, LAM)
    assert (plan.mask, plan.window) == (None, None)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_only_some_samples_are_mixed(dtype: torch.dtype, rows: int) -> None:
    mask = torch.zeros(rows, 1, 4, 6)
    mask[:, :, :2] = 0.5 if dtype == torch.float32 else 1
    plan = MixPlan(PARTNER, LAM, mask.to(dtype), WINDOW)
    some = plan.only(torch.tensor([True, False, True]))
    assert some.lam.tolist() == [0.75, 1.0, 1.0]
    assert torch.equal(some.partner, PARTNER)
    assert torch.equal(some.window, WINDOW)
    assert some.mask.dtype == dtype
    assert torch.equal(some.mask[0], plan.mask[0])
    assert torch.equal(some.mask[1], torch.ones(1, 4, 6, dtype=dtype))
    assert torch.equal(some.mask[2], plan.mask[rows - 1])
    assert plan.lam.tolist() == [0.75, 0.5, 1.0]  # it is another plan


def test_only_some_samples_of_a_plan_without_a_mask() -> None:
    plan = MixPlan(PARTNER, LAM).only(torch.tensor([False, True, True]))
    assert plan.lam.tolist() == [1.0, 0.5, 1.0]
    assert plan.mask is None


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("partner", (PARTNER.view(3, 1), LAM)),
        ("partner", (PARTNER.int(), LAM)),
        ("partner", (PARTNER.float(), LAM)),
        ("lam", (PARTNER, LAM.double())),
        ("lam", (PARTNER, LAM.half())),
        ("lam", (PARTNER, LAM.view(3, 1))),
        ("lam", (PARTNER, LAM[:2])),
        ("lam", (PARTNER, LAM.to("meta"))),
        ("mask", (PARTNER, LAM, MASK[:2])),
        ("mask", (PARTNER, LAM, MASK.to("meta"))),
        ("mask", (PARTNER, LAM, torch.tensor(1.0))),
        ("mask", (PARTNER, LAM, MASK.long())),
        ("mask", (PARTNER, LAM, [[1.0]])),
        ("window", (PARTNER, LAM, None, WINDOW)),
        ("window", (PARTNER, LAM, MASK, WINDOW.float())),
        ("window", (PARTNER, LAM, MASK, WINDOW[:2])),
        ("window", (PARTNER, LAM, MASK, WINDOW[:, :3])),
        ("window", (PARTNER, LAM, torch.ones(3, 1, 6), WINDOW)),
        ("window", (PARTNER, LAM, MASK, WINDOW.to("meta"))),
        ("window", (PARTNER, LAM, MASK, [[0, 4, 0, 6]] * 3)),
        ("partner", ([1, 0, 2], LAM)),
        ("lam", (PARTNER, 0.5)),
    ],
)
def test_parts_that_do_not_fit_are_named_in_one_line(argument: str, parts: tuple[object, ...]) -> None:
    assert_named(argument, lambda: MixPlan(*parts))
