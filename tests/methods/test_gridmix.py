from __future__ import annotations

import pytest
import torch

from batchmix.methods.gridmix import GridMix


@pytest.mark.parametrize(("size", "cells"), [((16, 24), 4), ((15, 9), 4), ((6, 8), 1), ((3, 5), 7)])
def test_a_cell_is_one_of_the_two_as_a_whole(size: tuple[int, int], cells: int) -> None:
    plan = GridMix(1.0, cells=cells, partner="roll", seed=0).plan(torch.zeros(20, 1, *size))
    for mask in plan.mask[:, 0]:
        for row in range(cells):
            for column in range(cells):
                inside = [
                    bool(mask[h, w])
                    for h in range(size[0])
                    for w in range(size[1])
                    if h * cells // size[0] == row and w * cells // size[1] == column
                ]
                assert len(set(inside)) <= 1
    if cells > 1:
        assert 0 < float(plan.mask.double().mean()) < 1


def test_the_number_of_cells_that_stay_follows_lam() -> None:
    plan = GridMix(1e8, cells=4, partner="roll", seed=0).plan(torch.zeros(50, 1, 32, 32))
    assert torch.equal(plan.lam, torch.full((50,), 0.5))
    shares = GridMix(1.0, cells=2, partner="roll", seed=0).plan(torch.zeros(200, 1, 32, 32)).lam
    assert set(shares.tolist()) == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_every_cell_stays_as_often_as_any_other() -> None:
    plan = GridMix(1e8, cells=4, partner="roll", seed=1).plan(torch.zeros(4000, 1, 4, 4))
    often = plan.mask.double().mean(0)
    torch.testing.assert_close(often, torch.full_like(often, 0.5), rtol=0, atol=0.04)


def test_a_series_has_stretches() -> None:
    plan = GridMix(1e8, cells=4, partner="roll", seed=0).plan(torch.zeros(5, 3, 16))
    assert plan.mask.shape == (5, 1, 16)
    assert torch.equal(plan.mask[..., ::4].repeat_interleave(4, 2), plan.mask)
    assert torch.equal(plan.lam, torch.full((5,), 0.5))
