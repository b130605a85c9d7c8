from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from batchmix.methods.fmix import FMix, keep_largest, smooth_noise


def roughness(mask: Tensor) -> float:
    """Share of neighbours along a row that differ."""
    return float((mask[..., 1:] != mask[..., :-1]).double().mean())


@pytest.mark.parametrize("size", [(16, 24), (15, 9), (32,)])
def test_the_share_that_stays_is_lam_to_the_nearest_pixel(size: tuple[int, ...]) -> None:
    lam = torch.tensor([0.0, 1.0, 0.5, 0.123, 0.9999, 1e-9])
    noise = smooth_noise(6, size, 3.0, generator=torch.Generator().manual_seed(0))
    mask = keep_largest(noise, lam)
    pixels = noise[0].numel()
    assert mask.flatten(1).sum(1).tolist() == [round(own * pixels) for own in lam.tolist()]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.floats(0, 1, width=32), st.integers(0, 2**31))
def test_what_stays_is_the_largest_of_the_noise(count: int, lam: float, seed: int) -> None:
    noise = torch.randn(1, 1, count, generator=torch.Generator().manual_seed(seed))
    mask = keep_largest(noise, torch.tensor([lam]))[0, 0]
    kept = round(torch.tensor(lam).double().item() * count)
    ranked = sorted(range(count), key=lambda place: -float(noise[0, 0, place]))
    assert {place for place in range(count) if mask[place]} == set(ranked[:kept])


def test_the_noise_has_the_spectrum_asked_for() -> None:
    noise = smooth_noise(400, (32, 48), 2.0, generator=torch.Generator().manual_seed(0))[:, 0]
    power = torch.fft.fft2(noise).abs().square().mean(0)
    for row, column in ((0, 3), (2, 0), (5, 7), (7, 11)):
        other = power[2 * row, 2 * column]  # twice the frequency: 2**-decay of the amplitude
        assert float(power[row, column] / other) == pytest.approx(2**4, rel=0.35)


def test_noise_of_a_row_is_real_and_its_own() -> None:
    noise = smooth_noise(3, (8, 8), 3.0, generator=torch.Generator().manual_seed(0))
    assert noise.dtype == torch.float32
    assert noise.isfinite().all()
    assert not torch.allclose(noise[0], noise[1])


def test_a_larger_decay_gives_smoother_blobs() -> None:
    x = torch.zeros(32, 1, 32, 32)
    rough, smooth = (FMix(1e6, decay=decay, partner="roll", seed=0).plan(x).mask for decay in (0.0, 3.0))
    assert roughness(rough) > 0.4
    assert roughness(smooth) < 0.15


@pytest.mark.parametrize("decay", [10.0, 17.0, 1000.0])
def test_any_decay_leaves_blobs_of_the_share_that_was_drawn(decay: float) -> None:
    plan = FMix(1e6, decay=decay, partner="roll", seed=0).plan(torch.zeros(4, 1, 224, 224))
    assert ((plan.lam > 0.49) & (plan.lam < 0.51)).all()
    assert roughness(plan.mask) < 0.02


def test_blobs_of_a_batch_are_apart() -> None:
    masks = FMix(1e6, partner="roll", seed=0).plan(torch.zeros(16, 1, 32, 32)).mask.double() - 0.5
    likeness = torch.corrcoef(masks.flatten(1)) - torch.eye(16, dtype=torch.float64)
    assert float(likeness.mean()) < 0.1
