from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import batchmix as bm
import reference
from batchmix.core.boxes import box_masks, boxes_around, place_boxes, sample_boxes, sample_sides
from batchmix.kernels import cpu

sides = st.integers(1, 12)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_inside(boxes: Tensor, size: tuple[int, ...]) -> None:
    assert boxes.dtype == torch.int64
    for axis, side in enumerate(size):
        start, end = boxes[:, 2 * axis], boxes[:, 2 * axis + 1]
        assert ((start >= 0) & (start <= end) & (end <= side)).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6), st.tuples(sides, sides), st.integers(0, 99)
)
def test_a_mask_is_false_in_its_box_and_lam_is_the_rest(
    lam: list[float], size: tuple[int, int], seed: int
) -> None:
    boxes = sample_boxes(torch.tensor(lam), size, generator=generator(seed))
    assert_inside(boxes, size)
    mask, share = box_masks(boxes, size)
    assert (mask.dtype, mask.shape) == (torch.bool, (len(lam), 1, *size))
    assert torch.equal(mask, reference.box_masks(boxes.tolist(), size))
    torch.testing.assert_close(share, mask.double().mean((1, 2, 3)).float(), rtol=0, atol=1e-7)


@pytest.mark.skipif(cpu.loops() is None, reason="needs numba")
@pytest.mark.parametrize("size", [(6, 8), (1, 9), (1, 1), (7,), (40, 33)], ids=str)
def test_compiled_masks_are_those_of_the_plain_operations(
    size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = [torch.randint(-2, side + 3, (50, 2), generator=generator(side)) for side in size]
    boxes = torch.cat(ends, 1)  # also some that are turned round, or lead outside
    with bm.kernel("torch"):
        mask, lam = box_masks(boxes, size)
    monkeypatch.setattr(cpu, "SMALLEST_MASKS", 0)
    with bm.kernel("numba"):
        assert cpu.can_cut(boxes, size)
        compiled_mask, compiled_lam = box_masks(boxes, size)
    assert torch.equal(compiled_mask, mask)
    assert torch.equal(compiled_lam, lam)
    assert (compiled_mask.dtype, compiled_mask.stride()) == (mask.dtype, mask.stride())


@pytest.mark.parametrize("size", [(6, 8), (8, 6), (1, 1), (1, 9), (7,)])
def test_a_box_takes_the_share_that_lam_leaves_where_it_is_not_clipped(size: tuple[int, ...]) -> None:
    lam = torch.linspace(0, 1, 11)
    for seed in range(20):
        boxes = sample_boxes(lam, size, generator=generator(seed))
        for row, own in zip(boxes.tolist(), lam.double().tolist(), strict=True):
            for axis, side in enumerate(size):
                start, end = row[2 * axis], row[2 * axis + 1]
                wanted = int(side * (1 - own) ** (1 / len(size)) + 1e-4)
                assert end - start <= wanted + 1
                if start > 0 and end < side:
                    assert abs(end - start - wanted) <= 1


def test_nothing_is_cut_at_lam_1_and_a_middle_in_the_middle_cuts_all_at_lam_0() -> None:
    mask, lam = box_masks(sample_boxes(torch.ones(50), (6, 8), generator=generator(0)), (6, 8))
    assert mask.all()
    assert torch.equal(lam, torch.ones(50))
    boxes = sample_boxes(torch.zeros(400), (6, 8), generator=generator(0))
    assert any(row == [0, 6, 0, 8] for row in boxes.tolist())


def test_the_middle_of_a_box_is_anywhere_with_the_same_chance() -> None:
    one_pixel = 1 - torch.full((12_000,), (1.2 / 6) * (1.2 / 6))  # 1.2 of 6 is one pixel, 1.2/6 of 8 is one
    boxes = sample_boxes(one_pixel, (6, 8), generator=generator(0))
    assert torch.equal(boxes[:, 1] - boxes[:, 0], torch.ones(12_000, dtype=torch.int64))
    for start, side in ((boxes[:, 0], 6), (boxes[:, 2], 8)):
        counts = torch.bincount(start, minlength=side).double() / 12_000
        torch.testing.assert_close(counts, torch.full((side,), 1 / side).double(), rtol=0, atol=0.015)


@settings(max_examples=60, deadline=None)
@given(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted), st.tuples(sides, sides), st.integers(0, 99))
def test_sides_lie_between_their_limits_and_boxes_inside(
    shares: list[float], size: tuple[int, int], seed: int
) -> None:
    g = generator(seed)
    drawn = sample_sides(5, size, (shares[0], shares[1]), generator=g)
    boxes = place_boxes(drawn, size, generator=g)
    assert_inside(boxes, size)
    for axis, side in enumerate(size):
        assert torch.equal(boxes[:, 2 * axis + 1] - boxes[:, 2 * axis], drawn[:, axis])
        low, high = int(shares[0] * side), int(shares[1] * side)
        assert ((drawn[:, axis] >= low) & (drawn[:, axis] <= high)).all()


def test_both_limits_and_both_edges_are_reached() -> None:
    g = generator(0)
    drawn = sample_sides(400, (6, 8), (0.5, 1.0), generator=g)
    assert set(drawn[:, 0].tolist()) == {3, 4, 5, 6}
    assert set(drawn[:, 1].tolist()) == {4, 5, 6, 7, 8}
    boxes = place_boxes(torch.tensor([[2, 3]]).expand(400, 2), (6, 8), generator=g)
    assert set(boxes[:, 0].tolist()) == set(range(5))
    assert set(boxes[:, 2].tolist()) == set(range(6))


def test_a_series_has_stretches() -> None:
    boxes = torch.tensor([[1, 3], [0, 0]])
    mask, lam = box_masks(boxes, (5,))
    assert mask.tolist() == [[[True, False, False, True, True]], [[True] * 5]]
    assert lam.tolist() == pytest.approx([0.6, 1.0])


def test_boxes_lie_around_their_places_and_are_clipped() -> None:
    generator = torch.Generator().manual_seed(0)
    lam = torch.rand(50, generator=generator)
    middles = torch.stack([torch.randint(side, (50,), generator=generator) for side in (6, 9)], 1)
    for box, own, (row, column) in zip(
        boxes_around(lam, middles, (6, 9)).tolist(), lam.tolist(), middles.tolist(), strict=True
    ):
        expected = []
        for middle, side in ((row, 6), (column, 9)):
            cut = math.floor(side * math.sqrt(1 - own))
            expected += [max(0, middle - cut // 2), min(side, middle - cut // 2 + cut)]
        assert box == expected
    whole, nothing = boxes_around(torch.tensor([0.0, 1.0]), torch.tensor([[3, 4], [3, 4]]), (6, 9)).tolist()
    assert whole == [0, 6, 0, 9]
    assert nothing == [3, 3, 4, 4]
