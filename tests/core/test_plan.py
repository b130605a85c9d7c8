from __future__ import annotations

import dataclasses

import pytest
import torch

from batchmix import MixError, MixPlan

PARTNER, LAM = torch.tensor([1, 0, 2]), torch.tensor([0.75, 0.5, 1.0])
MASK = torch.ones(3, 1, 4, 6)


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


def test_a_plan_moves_with_all_it_has() -> None:
    moved = MixPlan(PARTNER, LAM, MASK).to("meta")
    assert {moved.partner.device.type, moved.lam.device.type, moved.mask.device.type} == {"meta"}
    assert MixPlan(PARTNER, LAM).to("meta").mask is None


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
        ("partner", ([1, 0, 2], LAM)),
        ("lam", (PARTNER, 0.5)),
    ],
)
def test_parts_that_do_not_fit_are_named_in_one_line(argument: str, parts: tuple[object, ...]) -> None:
    with pytest.raises(MixError) as caught:
        MixPlan(*parts)
    message = str(caught.value)
    assert message.startswith(f"{argument} takes ")
    assert ", got " in message
    assert "\n" not in message
