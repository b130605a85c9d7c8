"""Mixing a part at a time has the bits of mixing the whole batch, with torch's operations alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from batchmix.kernels import blocks

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.fixture(params=["rows", "groups"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Small batches count as large, and are cut into rows, or into groups of rows and blocks of columns."""
    monkeypatch.setattr(blocks, "SMALLEST", 0)
    monkeypatch.setattr(blocks, "ROW", 1 if request.param == "rows" else 1 << 30)
    monkeypatch.setattr(blocks, "GROUP", 1600)
    monkeypatch.setattr(blocks, "COLUMNS", 400)
    before = torch.get_num_threads()
    yield request.param
    torch.set_num_threads(before)


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def draw(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    return torch.randperm(rows, generator=generator), torch.rand(rows, generator=generator)


def whole(
    x: Tensor, partner: Tensor, lam: Tensor, mask: Tensor | None = None, other: Tensor | None = None
) -> Tensor:
    """The definition: half precision is combined in float32 and rounded once."""
    mates = (x if other is None else other)[partner]
    if mask is not None and mask.dtype == torch.bool:
        return torch.where(mask, x, mates)
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    weight = lam.view(-1, *[1] * (x.dim() - 1)) if mask is None else mask
    return torch.lerp(mates.to(wide), x.to(wide), weight.to(wide)).to(x.dtype)


def masks(rows: int) -> list[Tensor | None]:
    soft = noise(rows, 1, 9, 7, seed=3).sigmoid()
    return [None, soft, soft[:1], soft < 0.5, soft[:1] < 0.5]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_bits_are_those_on_the_whole_batch(way: str, dtype: torch.dtype, channels_last: bool) -> None:
    for rows in (1, 2, 5, 8):
        x, other = noise(rows, 3, 9, 7, dtype=dtype), noise(rows, 3, 9, 7, dtype=dtype, seed=1)
        if channels_last:
            x, other = (part.contiguous(memory_format=torch.channels_last) for part in (x, other))
        (partner, lam), before = draw(rows), x.clone()
        for mask in masks(rows):
            expected = whole(x, partner, lam, mask)
            assert blocks.can_mix(x, partner, lam, mask)
            mixed = blocks.mix(x, partner, lam, mask)
            assert torch.equal(mixed, expected)
            assert mixed.stride() == x.stride()
            buffer = torch.full_like(x, 7)
            assert blocks.mix(x, partner, lam, mask, out=buffer) is buffer
            assert torch.equal(buffer, expected)
            between = blocks.mix(x, partner, lam, mask, other=other)
            assert torch.equal(between, whole(x, partner, lam, mask, other))
            assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("partners", ["shuffle", "pairs", "own", "ring", "all of one"])
def test_in_place_every_row_is_read_before_it_is_written(way: str, partners: str, dtype: torch.dtype) -> None:
    x, (partner, lam), other = noise(6, 3, 9, 7, dtype=dtype), draw(6), noise(6, 3, 9, 7, dtype=dtype, seed=1)
    chosen = {
        "shuffle": partner,
        "pairs": torch.tensor([1, 0, 3, 2, 5, 4]),
        "own": torch.arange(6),
        "ring": torch.arange(6).roll(1),
        "all of one": torch.full((6,), 2),
    }[partners]
    for mask in masks(6):
        place = x.clone()
        if way != "rows" and mask is not None:
            assert not blocks.can_mix(place, chosen, lam, mask, out=place)  # columns have no mask
            continue
        assert blocks.can_mix(place, chosen, lam, mask, out=place)
        assert blocks.mix(place, chosen, lam, mask, out=place) is place
        assert torch.equal(place, whole(x, chosen, lam, mask))
    place = x.clone()
    assert torch.equal(
        blocks.mix(place, chosen, lam, other=other, out=place), whole(x, chosen, lam, None, other)
    )


@pytest.mark.usefixtures("way")
def test_rows_may_lie_apart_have_gaps_or_start_anywhere() -> None:
    partner, lam = draw(5)
    wide = noise(10, 3, 9, 7)
    shifted = noise(5 * 189 + 3)[3:].view(5, 3, 9, 7)
    for x in (
        wide[::2],
        wide[3:8],
        noise(1, 3, 9, 7).expand(5, 3, 9, 7),
        shifted,
        noise(5, 3, 9, 14)[..., ::2],
    ):
        assert torch.equal(blocks.mix(x, partner, lam), whole(x, partner, lam))
    place, untouched = wide.clone(), wide[1::2].clone()
    blocks.mix(place[::2], partner, lam, out=place[::2])
    assert torch.equal(place[::2], whole(wide[::2], partner, lam))
    assert torch.equal(place[1::2], untouched)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("shape", [(5,), (1,), (2, 0), (3, 1), (4, 1025), (7, 3, 2, 5, 3)], ids=str)
def test_every_shape_is_mixed(shape: tuple[int, ...]) -> None:
    x, (partner, lam) = noise(*shape), draw(shape[0])
    assert torch.equal(blocks.mix(x, partner, lam), whole(x, partner, lam))
    place = x.clone()
    assert torch.equal(blocks.mix(place, partner, lam, out=place), whole(x, partner, lam))


@pytest.mark.usefixtures("way")
def test_no_bit_depends_on_the_number_of_threads() -> None:
    x, (partner, lam) = noise(6, 3, 9, 7), draw(6)
    for count in range(1, 9):
        torch.set_num_threads(count)
        for mask in masks(6):
            assert torch.equal(blocks.mix(x, partner, lam, mask), whole(x, partner, lam, mask))


@pytest.mark.usefixtures("way")
def test_what_torch_has_to_see_or_memory_that_overlaps_is_left_alone() -> None:
    memory, (partner, lam) = noise(6, 5), draw(5)
    x = memory[:5]
    assert blocks.can_mix(x, partner, lam)
    assert not blocks.can_mix(x, partner, lam, out=memory[1:])
    assert not blocks.can_mix(x.clone().requires_grad_(), partner, lam)
    assert not blocks.can_mix(x.to("meta"), partner, lam)
    assert not blocks.can_mix(x.int(), partner, lam)


def test_small_batches_are_mixed_at_once() -> None:
    assert not blocks.can_mix(noise(5, 3, 9, 7), *draw(5))


@pytest.mark.usefixtures("way")
def test_memory_for_one_block_is_all_that_is_found_in_place() -> None:
    x, (partner, lam) = noise(16, 3, 9, 7), draw(16)
    expected, largest = whole(x, partner, lam), 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: object, types: object, args=(), kwargs=None) -> object:
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result._base is None and result.data_ptr() != x.data_ptr():
                largest = max(largest, result.nbytes)
            return result

    with Watch():
        blocks.mix(x, partner, lam, out=x)
    assert torch.equal(x, expected)
    assert 0 < largest <= x.nbytes // 8
