from __future__ import annotations

import math

import pytest
import torch

from batchmix import MixError
from batchmix.methods.smoothmix import SmoothMix

X = torch.rand(8, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def test_the_partner_is_a_bell_around_a_pixel() -> None:
    plan = SmoothMix((0.25, 0.25), partner="roll", seed=0).plan(X)
    assert plan.mask.dtype == torch.float32
    for mask in plan.mask[:, 0]:
        place = int(mask.argmin())
        row, column = divmod(place, 24)
        assert float(mask[row, column]) == 0  # at its middle only the partner is seen
        for h in range(16):
            for w in range(24):
                bell = math.exp(-((h - row) ** 2 + (w - column) ** 2) / (2 * (0.25 * 24) ** 2))
                assert float(mask[h, w]) == pytest.approx(1 - bell, abs=1e-6)


def test_the_spread_lies_between_its_limits() -> None:
    plan = SmoothMix(partner="roll", seed=0).plan(torch.zeros(300, 1, 1, 64))
    mask = plan.mask[:, 0, 0]
    middle = mask.argmin(1)
    beside = torch.where(middle > 32, middle - 8, middle + 8)
    bell = 1 - mask.gather(1, beside.unsqueeze(1)).squeeze(1).double()
    sigma = (64 / (-2 * bell.log())).sqrt() / 64
    assert float(sigma.min()) == pytest.approx(0.25, abs=0.01)
    assert float(sigma.max()) == pytest.approx(0.5, abs=0.01)
    assert set(middle.tolist()) >= set(range(10, 50))


def test_lam_is_the_mean_of_the_mask() -> None:
    plan = SmoothMix(seed=3).plan(X)
    torch.testing.assert_close(plan.lam.double(), plan.mask.double().mean((1, 2, 3)), rtol=0, atol=6e-8)


def test_class_ids_of_positions_are_refused_in_one_line() -> None:
    y = torch.zeros(8, 16, 24, dtype=torch.int64)
    with pytest.raises(MixError, match="class ids of positions take a method that pastes") as caught:
        SmoothMix(seed=0)(X, y)
    assert "\n" not in str(caught.value)
