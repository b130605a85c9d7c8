from __future__ import annotations

import pytest
import torch
from torch import Tensor

from batchmix import MixError
from batchmix.methods.attentivecutmix import AttentiveCutMix

X = torch.rand(8, 3, 12, 20, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8)

pytestmark = pytest.mark.usefixtures("unmoved_global_rng")


def brightness(x: Tensor) -> Tensor:
    return x.mean(1)


def expected_mask(maps: Tensor, partner: Tensor, size: tuple[int, int], grid: int, cells: int) -> Tensor:
    """Sample by sample: which cells are the partner's most attended, from one value a cell."""
    height, width = size
    mask = torch.ones(len(maps), 1, height, width, dtype=torch.bool)
    for i, j in enumerate(partner.tolist()):
        order = sorted(range(grid * grid), key=lambda cell: -float(maps[j].flatten()[cell]))
        for cell in order[:cells] if i != j else []:
            for row in range(height):
                for column in range(width):
                    if (row * grid // height, column * grid // width) == divmod(cell, grid):
                        mask[i, 0, row, column] = False
    return mask


@pytest.mark.parametrize(("grid", "cells"), [(4, 3), (7, 6), (5, 25), (3, 0), (1, 1)])
def test_the_most_attended_cells_of_the_partner_are_pasted(grid: int, cells: int) -> None:
    maps = torch.rand(8, grid, grid, generator=torch.Generator().manual_seed(1))
    for seed in range(5):
        plan = AttentiveCutMix(lambda x: maps, grid=grid, cells=cells, seed=seed).plan(X)
        assert torch.equal(plan.mask, expected_mask(maps, plan.partner, (12, 20), grid, cells))
        torch.testing.assert_close(plan.lam, plan.mask.float().mean((1, 2, 3)))


def test_a_map_of_pixels_is_averaged_over_cells() -> None:
    maps = brightness(X)
    means = maps.view(8, 4, 3, 4, 5).mean((2, 4))
    plan = AttentiveCutMix(brightness, grid=4, cells=5, seed=0).plan(X)
    assert torch.equal(plan.mask, expected_mask(means, plan.partner, (12, 20), 4, 5))


@pytest.mark.parametrize("size", [(32, 32), (12, 20), (33, 17), (30, 8)])
def test_cells_of_unlike_sizes_are_ranked_by_the_pixels_that_are_pasted(size: tuple[int, int]) -> None:
    height, width = size
    x = torch.rand(6, 2, height, width, generator=torch.Generator().manual_seed(4))
    cell = (torch.arange(height) * 7 // height)[:, None] * 7 + torch.arange(width) * 7 // width
    means = torch.stack([brightness(x)[:, cell == number].mean(1) for number in range(49)], dim=1)
    plan = AttentiveCutMix(brightness, cells=6, seed=0).plan(x)
    assert torch.equal(plan.mask, expected_mask(means, plan.partner, size, 7, 6))
    with torch.autocast("cpu"):
        assert torch.equal(AttentiveCutMix(brightness, cells=6, seed=0).plan(x).mask, plan.mask)


@pytest.mark.parametrize("places", [(2, 4), (16, 8), (64, 128)])
def test_a_map_of_another_resolution_is_brought_to_the_pixels(places: tuple[int, int]) -> None:
    maps = torch.rand(6, *places, generator=torch.Generator().manual_seed(5))
    x = torch.rand(6, 1, 32, 32, generator=torch.Generator().manual_seed(6))
    pixels = maps.repeat_interleave(32, 1).repeat_interleave(32, 2)
    pixels = pixels.view(6, 32, places[0], 32, places[1]).mean((2, 4))
    by_pixels = AttentiveCutMix(lambda x: pixels, grid=7, cells=6, seed=0).plan(x)
    assert torch.equal(AttentiveCutMix(lambda x: maps, grid=7, cells=6, seed=0).plan(x).mask, by_pixels.mask)


def test_lam_is_the_share_of_cells_that_stay() -> None:
    x = torch.rand(6, 3, 56, 56, generator=torch.Generator().manual_seed(2))
    _, target = AttentiveCutMix(brightness, partner="roll", seed=0)(x, torch.arange(6))
    torch.testing.assert_close(target.lam, torch.full((6,), 1 - 6 / 49))


def test_all_cells_give_the_partner_and_none_the_sample_itself() -> None:
    mixed, target = AttentiveCutMix(brightness, grid=2, cells=4, partner="roll", seed=0)(X, Y)
    assert torch.equal(mixed, X.roll(1, 0))
    assert torch.equal(target.lam, torch.zeros(8))
    mixed, target = AttentiveCutMix(brightness, grid=2, cells=0, partner="roll", seed=0)(X, Y)
    assert torch.equal(mixed, X)
    assert torch.equal(target.lam, torch.ones(8))


def test_images_of_fewer_pixels_than_cells_have_a_cell_a_pixel() -> None:
    x = torch.rand(3, 1, 4, 20, generator=torch.Generator().manual_seed(3))
    plan = AttentiveCutMix(brightness, grid=7, cells=49, partner="roll", seed=0).plan(x)
    assert not plan.mask.any()
    plan = AttentiveCutMix(brightness, grid=7, cells=1, partner="roll", seed=0).plan(x)
    assert ((plan.lam > 0.9) & (plan.lam < 1)).all()


def test_a_network_is_asked_without_a_graph_as_the_card_says() -> None:
    with torch.random.fork_rng():
        body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=4), torch.nn.ReLU()).eval()
    mixer = AttentiveCutMix(lambda x: body(x).mean(1), grid=3, cells=2, seed=0)
    mixed, target = mixer(X.clone().requires_grad_(), Y)
    mixed.sum().backward()
    assert all(parameter.grad is None for parameter in body.parameters())
    assert (target.lam < 1).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "resnet50"}, "attention takes a callable"),
        ({"grid": 0}, "grid takes "),
        ({"grid": 7.0}, "grid takes "),
        ({"grid": True}, "grid takes "),
        ({"cells": -1}, "cells takes "),
        ({"cells": 50}, "cells takes a whole number from 0 to 49"),
        ({"cells": 0.5}, "cells takes "),
        ({"cells": True}, "cells takes "),
        ({"partner": "random"}, "partner takes "),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(MixError, match=rf"^{message}[^\n]*, got [^\n]*$"):
        AttentiveCutMix(**options)


def test_two_batches_are_refused_in_one_line() -> None:
    with pytest.raises(MixError, match=r"^between takes [^\n]*got AttentiveCutMix$"):
        AttentiveCutMix(seed=0).between((X, Y), (X, Y))
