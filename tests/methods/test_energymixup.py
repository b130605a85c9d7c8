from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import reference
from batchmix import Mixup
from batchmix.methods.energymixup import EnergyMixup, a_weights, sound_level
from refusals import assert_named

RATE = 8000
Y = torch.arange(5)


def sounds(dtype: torch.dtype = torch.float32) -> Tensor:
    """Noises from loud to quiet, (5, 1, 400)."""
    noise = torch.randn(5, 1, 400, generator=torch.Generator().manual_seed(0))
    return (noise * torch.tensor([1.0, 0.3, 0.1, 0.03, 0.01]).view(5, 1, 1)).to(dtype)


def tone(hertz: float, seconds: float = 0.5, amplitude: float = 1.0) -> Tensor:
    return amplitude * torch.sin(2 * math.pi * hertz * torch.arange(int(RATE * seconds)) / RATE)


@pytest.mark.parametrize("shape", [(5, 400), (5, 1, 400), (5, 2, 200)])
def test_weights_are_the_papers(shape: tuple[int, ...]) -> None:
    x = sounds().view(shape)
    for seed in range(5):
        plan = EnergyMixup(partner="derangement", seed=seed).plan(x)
        mixed, (a, b, lam) = EnergyMixup(partner="derangement", seed=seed)(x, Y)
        assert torch.equal(lam, plan.lam)
        assert torch.equal(a, Y)
        for i, j in enumerate(plan.partner.tolist()):
            p = reference.energy_weight(x[i], x[j], float(lam[i]))
            assert float(plan.mask[i]) == pytest.approx(p, abs=1e-5)
            row = (p * x[i] + (1 - p) * x[j]) / math.sqrt(p**2 + (1 - p) ** 2)
            torch.testing.assert_close(mixed[i], row, rtol=1e-4, atol=1e-5)
            assert b[i] == j


def test_at_half_and_half_both_are_as_loud() -> None:
    # That is what the weights are for: the energy of either part of the mix is the same.
    x = sounds()
    plan = EnergyMixup(1e30, partner="derangement", seed=0).plan(x)  # lam 0.5
    parts = plan.mask.view(5, 1, 1) * x, (1 - plan.mask.view(5, 1, 1)) * x[plan.partner]
    torch.testing.assert_close(sound_level(parts[0]), sound_level(parts[1]), rtol=0, atol=0.01)


def test_equal_sounds_are_weighted_as_their_labels() -> None:
    x = torch.stack([tone(500), tone(500).roll(4), tone(500).roll(8)])
    plan = EnergyMixup(partner="roll", seed=0).plan(x)
    torch.testing.assert_close(plan.mask.squeeze(1), plan.lam, rtol=0, atol=1e-4)


def test_a_level_is_the_power_in_db() -> None:
    assert sound_level(torch.ones(1, 100)).item() == pytest.approx(0, abs=1e-5)
    assert sound_level(torch.full((1, 2, 100), 0.1)).item() == pytest.approx(-20, abs=1e-4)
    assert sound_level(torch.zeros(2, 100)).tolist() == [-80, -80]
    assert sound_level(torch.zeros(2, 900), RATE).tolist() == [-80, -80]


def test_levels_are_the_same_under_autocast() -> None:
    wave = torch.randn(3, 8000, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        level = sound_level(wave, 16_000)
    assert torch.equal(level, sound_level(wave, 16_000))


@pytest.mark.parametrize(
    ("hertz", "heard"), [(100, -19.1), (200, -10.9), (500, -3.2), (1000, 0.0), (2000, 1.2), (3150, 1.2)]
)
def test_levels_with_a_rate_are_a_weighted(hertz: float, heard: float) -> None:
    # The table of IEC 61672; a tone of amplitude 1 has -3.01 dB.
    level = sound_level(tone(hertz).unsqueeze(0), RATE).item()
    assert level == pytest.approx(heard - 3.01, abs=0.2)
    stereo = torch.stack([tone(hertz), tone(hertz)]).unsqueeze(0)
    assert sound_level(stereo, RATE).item() == pytest.approx(level, abs=1e-3)


@pytest.mark.parametrize("size", [800, 801])
def test_every_frequency_counts_once(size: int) -> None:
    wave = torch.randn(1, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrum = torch.fft.rfft(wave * torch.hann_window(size)).abs().square().squeeze(0)
    spectrum[1 : (size + 1) // 2] *= 2
    weighted = float(
        (spectrum * a_weights(size, size * 10)).sum() / size / torch.hann_window(size).square().sum()
    )
    assert sound_level(wave, size * 10).item() == pytest.approx(10 * math.log10(weighted), abs=1e-4)


def test_the_level_is_that_of_the_loudest_moment() -> None:
    silence = torch.zeros(RATE)
    short = torch.cat([tone(1000), silence, silence]).unsqueeze(0)
    assert sound_level(short, RATE).item() == pytest.approx(-3.01, abs=0.2)
    assert sound_level(short).item() == pytest.approx(-3.01 - 10 * math.log10(5), abs=0.01)


@pytest.mark.parametrize("length", [1600, 1999, 2399])
def test_a_sound_at_the_very_end_is_heard(length: int) -> None:
    late = torch.zeros(1, length)
    late[0, -200:] = tone(1000, 0.025)
    assert float(sound_level(late, RATE)) > -30


@given(alpha=st.floats(1e-6, 1e6), seed=st.integers(0, 2**32), loud=st.floats(-60, 60), fold=st.booleans())
def test_weights_are_finite_for_any_level_and_lam(alpha: float, seed: int, loud: float, fold: bool) -> None:
    x = torch.stack([tone(300, 0.01), torch.zeros(80), tone(700, 0.01, 10 ** (loud / 20))])
    plan = EnergyMixup(alpha, fold=fold, seed=seed).plan(x)
    assert ((plan.mask >= 0) & (plan.mask <= 1)).all()
    assert (plan.mask[plan.lam == 1] == 1).all()
    mixed, _ = EnergyMixup(alpha, fold=fold, seed=seed)(x, torch.arange(3))
    assert mixed.isfinite().all()


@pytest.mark.parametrize("rate", [None, 16000])
def test_shapes_alone_have_a_level(rate: int | None) -> None:
    level = sound_level(torch.zeros(2, 8000, device="meta"), rate)
    assert (level.device.type, level.shape) == ("meta", (2,))


def test_levels_do_not_depend_on_the_default_dtype() -> None:
    wave = torch.randn(2, 400, generator=torch.Generator().manual_seed(0))
    level = sound_level(wave, 8000)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(sound_level(wave, 8000), level)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("rate", [None, RATE])
def test_between_two_batches_the_levels_of_both_count(rate: int | None) -> None:
    first, second = sounds(), sounds().flip(0) * 0.5
    x, (a, b, lam) = EnergyMixup(rate=rate, seed=0).between((first, Y), (second, Y + 5))
    assert torch.equal(a, Y)
    assert torch.equal(b, Y + 5)
    difference = sound_level(first, rate) - sound_level(second, rate)
    for i in range(5):
        p = 1 / (1 + 10 ** (float(difference[i]) / 20) * (1 - float(lam[i])) / float(lam[i]))
        row = (p * first[i] + (1 - p) * second[i]) / math.sqrt(p**2 + (1 - p) ** 2)
        torch.testing.assert_close(x[i], row, rtol=1e-4, atol=1e-5)
    x, _ = EnergyMixup(p=0, seed=0).between((first, Y), (second, Y))
    assert x is first


@pytest.mark.parametrize("first", ["wave", "age"])
def test_features_beside_a_waveform_follow_lam(first: str) -> None:
    parts = {"wave": sounds(), "age": torch.arange(10.0).view(5, 2), "alone": torch.ones(5)}
    x = {first: parts[first], **parts}
    mixed, target = EnergyMixup(seed=0)(x, Y)
    wave, same = EnergyMixup(seed=0)(parts["wave"], Y)
    assert torch.equal(mixed["wave"], wave)
    assert torch.equal(target.lam, same.lam)
    plan = EnergyMixup(seed=0).plan(parts["wave"])
    rows = plan.lam.unsqueeze(1)
    torch.testing.assert_close(mixed["age"], rows * x["age"] + (1 - rows) * x["age"][plan.partner])
    assert torch.equal(mixed["alone"], torch.ones(5))


def test_what_is_not_a_waveform_follows_lam() -> None:
    features = torch.rand(5, 3, generator=torch.Generator().manual_seed(1))
    mixup = EnergyMixup(seed=0)
    x, (target, other) = mixup(sounds(), (Y, features))
    assert x.shape == (5, 1, 400)
    assert torch.equal(target.lam, other.lam)
    assert torch.equal(other.a, features)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("x", lambda: EnergyMixup(seed=0).plan(torch.rand(4, 3, 5, 5))),
        ("x", lambda: EnergyMixup(seed=0).plan(torch.rand(4))),
        ("x", lambda: EnergyMixup(seed=0).plan(torch.zeros(4, 9, dtype=torch.int16))),
        ("second", lambda: EnergyMixup(seed=0).between((sounds(), Y), (sounds()[..., :9], Y))),
        ("plan", lambda: EnergyMixup(seed=0)(sounds(), Y, plan=Mixup(seed=0).plan(sounds()))),
        ("rate", lambda: EnergyMixup(rate=0)),
        ("rate", lambda: EnergyMixup(rate=True)),
        ("rate", lambda: EnergyMixup(rate="16k")),
        ("fold", lambda: EnergyMixup(fold=1)),
        ("partner", lambda: EnergyMixup(partner="next")),
        ("alpha", lambda: EnergyMixup(-1)),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(argument: str, call: Callable[[], object]) -> None:
    assert_named(argument, call)
