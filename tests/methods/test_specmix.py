from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy import stats

from batchmix.methods.specmix import SpecMix
from refusals import assert_named

X = torch.rand(8, 1, 20, 30, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8)


def bands_of(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns (F,), (T,) of one sample's mask that are all the partner's."""
    own = mask[0]
    return ~own.any(1), ~own.any(0)


def runs(line: list[bool]) -> list[int]:
    """Lengths of the stretches that are true."""
    found = [0]
    for value in line:
        if value:
            found[-1] += 1
        elif found[-1]:
            found.append(0)
    return [length for length in found if length]


@pytest.mark.parametrize("bands", [1, 3])
def test_masks_are_bands_of_a_share_of_each_side(bands: int) -> None:
    seen = set()
    for seed in range(100):
        plan = SpecMix(0.2, bands=bands, partner="roll", seed=seed).plan(X)
        for mask, lam in zip(plan.mask, plan.lam, strict=True):
            frequency, time = bands_of(mask)
            union = frequency[:, None] | time[None, :]
            assert torch.equal(mask[0], ~union)
            assert float(lam) == pytest.approx(1 - int(union.sum()) / 600, abs=1e-7)
            for line, width in ((frequency, 4), (time, 6)):
                lengths = runs(line.tolist())
                assert len(lengths) <= bands
                assert all(width <= length <= bands * width for length in lengths)
            seen.add((len(runs(frequency.tolist())), len(runs(time.tolist()))))
    assert seen >= {(i, j) for i in range(2) for j in range(2)}
    assert bands == 1 or (2, 2) in seen


def test_numbers_and_places_of_bands_are_uniform() -> None:
    counts, starts = torch.zeros(2), torch.zeros(17)
    for seed in range(300):
        for mask in SpecMix(0.2, bands=1, partner="roll", seed=seed).plan(X).mask:
            frequency, time = bands_of(mask)
            counts[int(frequency.any())] += 1
            if frequency.any() and not time.all():
                starts[int(frequency.int().argmax())] += 1
    assert stats.chisquare(counts.tolist()).pvalue > 1e-3
    assert stats.chisquare(starts.tolist()).pvalue > 1e-3


def test_one_mask_holds_for_the_batch() -> None:
    for seed in range(5):
        plan = SpecMix(per="batch", seed=seed).plan(X)
        assert plan.mask.shape == (1, 1, 20, 30)
        assert len(plan.lam.unique()) == 1


def test_all_or_nothing() -> None:
    mixed, target = SpecMix(0.0, seed=0)(X, Y)
    assert mixed is X
    assert (target.lam == 1).all()
    lam = torch.cat([SpecMix(1.0, bands=1, partner="roll", seed=seed).plan(X).lam for seed in range(10)])
    assert set(lam.tolist()) == {0.0, 1.0}  # a band as large as the spectrogram, or none


def test_a_spectrogram_that_is_smaller_than_a_band_can_be_stays() -> None:
    plan = SpecMix(0.3, seed=0).plan(torch.rand(4, 1, 2, 3))
    assert (plan.lam == 1).all()


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("x", lambda: SpecMix(seed=0).plan(torch.rand(4, 3, 5))),
        ("gamma", lambda: SpecMix(1.5)),
        ("gamma", lambda: SpecMix(-0.1)),
        ("bands", lambda: SpecMix(bands=0)),
        ("bands", lambda: SpecMix(bands=1.5)),
        ("per", lambda: SpecMix(per="pair")),
        ("partner", lambda: SpecMix(partner="next")),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(argument: str, call: Callable[[], object]) -> None:
    assert_named(argument, call)
