from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import reference
from batchmix.methods.resizemix import ResizeMix

X = torch.rand(8, 3, 12, 20, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8)


def test_the_partners_whole_image_lies_in_the_window() -> None:
    for seed in range(5):
        mixer = ResizeMix(seed=seed)
        plan = mixer.plan(X)
        mixed, _ = mixer(X, Y, plan=plan)
        for i, (top, bottom, left, right) in enumerate(plan.window.tolist()):
            partner = int(plan.partner[i])
            if partner == i:
                continue
            small = F.interpolate(X[partner : partner + 1], (bottom - top, right - left), mode="bilinear")[0]
            expected = X[i].clone()
            expected[:, top:bottom, left:right] = small
            torch.testing.assert_close(mixed[i], expected, rtol=0, atol=4e-6)  # its places are float32
            assert plan.lam[i].item() == pytest.approx(1 - (bottom - top) * (right - left) / 240)


def test_the_oracle_gives_the_same() -> None:
    mixer = ResizeMix(seed=1)
    plan = mixer.plan(X)
    expected = reference.blend(X, plan.partner, plan.lam, plan.mask, window=plan.window)
    torch.testing.assert_close(mixer(X, Y, plan=plan)[0].double(), expected, rtol=0, atol=1e-6)


def test_both_sides_are_the_same_share_between_the_limits() -> None:
    plan = ResizeMix((0.25, 0.75), partner="roll", seed=0).plan(torch.zeros(500, 1, 32, 64))
    high, wide = plan.window[:, 1] - plan.window[:, 0], plan.window[:, 3] - plan.window[:, 2]
    assert (high.min(), high.max()) == (8, 23)
    assert ((wide - 2 * high).abs() <= 1).all()
    assert set(plan.window[:, 0].tolist()) >= set(range(16))


def test_no_image_shrinks_to_nothing_and_scale_1_replaces_all() -> None:
    plan = ResizeMix((0.01, 0.01), partner="roll", seed=0).plan(torch.zeros(50, 1, 6, 8))
    torch.testing.assert_close(plan.lam, torch.full((50,), 1 - 1 / 48))
    mixed, target = ResizeMix((1.0, 1.0), partner="roll", seed=0)(X, Y)
    assert torch.equal(mixed, X.roll(1, 0))
    assert torch.equal(target.lam, torch.zeros(8))


def test_class_ids_of_positions_are_resized_by_their_nearest() -> None:
    y = torch.randint(5, (8, 12, 20), generator=torch.Generator().manual_seed(1))
    mixer = ResizeMix(seed=2)
    plan = mixer.plan(X)
    _, mixed = mixer(X, y, plan=plan)
    for i, (top, bottom, left, right) in enumerate(plan.window.tolist()):
        partner = int(plan.partner[i])
        expected = y[i].clone()
        if partner != i:
            part = y[partner][None, None].double()
            small = F.interpolate(part, (bottom - top, right - left), mode="nearest-exact")
            expected[top:bottom, left:right] = small[0, 0].long()
        assert torch.equal(mixed[i], expected)
    assert mixed.dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_and_the_memory_format_are_kept(dtype: torch.dtype) -> None:
    x = X.to(dtype).contiguous(memory_format=torch.channels_last)
    mixed, _ = ResizeMix(seed=3)(x, Y)
    assert mixed.dtype == dtype
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    expected, _ = ResizeMix(seed=3)(x.float(), Y)
    assert torch.equal(mixed, expected.to(dtype)) or dtype == torch.float64


def test_a_series_is_compressed_in_time() -> None:
    x = torch.linspace(0, 1, 20).expand(4, 2, 20) + torch.arange(4).view(-1, 1, 1)
    mixer = ResizeMix((0.5, 0.5), partner="roll", seed=0)
    plan = mixer.plan(x)
    mixed, _ = mixer(x, torch.arange(4), plan=plan)
    for i, (start, end) in enumerate(plan.window.tolist()):
        small = F.interpolate(x[i - 1 : i] if i else x[3:], end - start, mode="linear")[0]
        torch.testing.assert_close(mixed[i, :, start:end], small)
