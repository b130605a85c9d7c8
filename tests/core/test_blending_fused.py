"""``blend`` hands large batches on the CPU to the compiled loops, and the result does not show it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from batchmix import CutMix, Mixup, ResizeMix, SmoothMix, blend
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
