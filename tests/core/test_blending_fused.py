"""``blend`` hands large batches on the CPU to the compiled loops, and the result does not show it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from batchmix import CutMix, EnergyMixup, MixPlan, Mixup, ResizeMix, SmoothMix, blend
from batchmix.kernels import cpu

pytestmark = pytest.mark.skipif(cpu.loops() is None, reason="needs numba")

X = torch.rand(5, 3, 12, 10, generator=torch.Generator().manual_seed(0))
OTHER = torch.rand(5, 3, 12, 10, generator=torch.Generator().manual_seed(1))
PLANS = {method.__name__: method(seed=2).plan(X) for method in (Mixup, CutMix, SmoothMix, ResizeMix)}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every call of the loops; batches of any size are handed to them."""
    made: list[Any] = []
    fused = cpu.mix

    def watched(*args: Any, **kwargs: Any) -> Any:
        made.append(args)
        return fused(*args, **kwargs)

    monkeypatch.setattr(cpu, "SMALLEST", 0)
    monkeypatch.setattr(cpu, "SHORTEST", 0)
    monkeypatch.setattr(cpu, "mix", watched)
    return made


def eager(monkeypatch: pytest.MonkeyPatch, *args: Any, **kwargs: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(cpu, "can_mix", lambda *_, **__: False)
        return blend(*args, **kwargs)


@pytest.mark.parametrize("form", ["fresh", "other", "out", "in place", "out and other"])
@pytest.mark.parametrize("name", ["Mixup", "CutMix", "SmoothMix"])
def test_the_bits_are_those_of_torchs_operations(
    name: str, form: str, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for mixed in (blend, lambda *args, **kwargs: eager(monkeypatch, *args, **kwargs)):
        x = X.clone()
        options: dict[str, Any] = {"other": OTHER} if "other" in form else {}
        if "out" in form:
            options["out"] = torch.full_like(X, 9.0)
        if form == "in place":
            options["out"] = x
        result = mixed(x, PLANS[name], **options)
        assert "out" not in options or result is options["out"]
        results.append(result)
        assert form == "in place" or torch.equal(x, X)
    assert torch.equal(*results)
    assert len(calls) == 1


def test_what_torch_has_to_see_or_the_loops_cannot_do_is_left_to_torch(calls: list[Any]) -> None:
    x = X.clone().requires_grad_()
    blend(x, PLANS["Mixup"]).sum().backward()
    assert x.grad is not None
    blend(X, PLANS["ResizeMix"])  # its partners are resized first
    blend(X[..., ::2], PLANS["Mixup"])  # has gaps
    assert calls == []


def test_small_batches_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "mix", lambda *_, **__: pytest.fail("too small to pay"))
    blend(X, PLANS["Mixup"])


def test_soft_masks_of_few_places_are_left_to_torch(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "SHORTEST", 128)
    features = torch.rand(5, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    blend(features, SmoothMix(seed=2).plan(features))
    assert calls == []
    blend(features, CutMix(seed=2).plan(features))  # pastes runs of places
    channels_last = features.contiguous(memory_format=torch.channels_last)
    blend(channels_last, SmoothMix(seed=2).plan(features))  # the channels of each place lie side by side
    assert len(calls) == 2


def test_a_mask_of_one_place_is_a_weight_for_each_row(calls: list[Any]) -> None:
    waves = torch.rand(5, 2, 64, generator=torch.Generator().manual_seed(0))
    plan = EnergyMixup(seed=2).plan(waves)
    mixed = blend(waves, plan)
    assert torch.equal(mixed, torch.lerp(waves[plan.partner], waves, plan.mask.view(5, 1, 1)))
    ((_, partner, weights, mask),) = calls
    assert torch.equal(partner, plan.partner)
    assert torch.equal(weights, plan.mask.flatten())
    assert mask is None


def test_one_mask_for_the_batch_is_no_weight_for_each_row(calls: list[Any]) -> None:
    x = torch.rand(3, 2, 3, generator=torch.Generator().manual_seed(0))
    plan = MixPlan(torch.tensor([1, 2, 0]), torch.full((3,), 0.25), torch.tensor([[[0.25, 0.5, 0.75]]]))
    assert torch.equal(blend(x, plan), torch.lerp(x[plan.partner], x, plan.mask))
    assert calls[0][3] is plan.mask
