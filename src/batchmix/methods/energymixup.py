"""Energy mixup: waveforms are mixed by how loud they are heard, so that a quiet one is not drowned.

How to use: ``x, y = EnergyMixup(1.0, rate=16000)(x, y)`` on waveforms (B, T) or (B, C, T), during training
only.

Suggested values: ``alpha`` 1, the paper's uniform draw, and ``partner="other-class"``, as there; ``rate`` is
the sampling rate in Hz.

Technical details: labels are weighted by ``lam``, waveforms by
``p = 1 / (1 + 10**((G1 - G2)/20) * (1-lam)/lam)``, where G1 and G2 are the levels of the two in dB, and the
sum is divided by ``sqrt(p**2 + (1-p)**2)``, which keeps the energy of two sounds that are not correlated.
Inputs beside the waveform that are not as long are weighted by ``lam``. The
level is the greatest A-weighted one (IEC 61672) of all windows of 0.1 s; without ``rate`` it is that of the
whole waveform, unweighted. Below -80 dB of full scale all is silence. The plan's mask is p, one number a
sample, (B, 1), and not ``lam``; ``bm.blend(x, plan)`` alone leaves the division out. Between two batches the
levels are those of the two samples. Departure from the paper: partners are those of any method here, and not
always of another class.

Paper: Tokozume et al. 2018, Learning from Between-class Examples for Deep Sound Recognition,
arXiv:1711.10282.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, ClassVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Unpack

from batchmix.core.applying import apply_plan
from batchmix.core.batches import Leaf, inputs_of, target_of
from batchmix.core.blending import blend
from batchmix.core.masks import draw_partners, plan_of_weights
from batchmix.core.plan import MixPlan, as_rows, describe
from batchmix.core.sampling import Policy, check_alpha, check_choice, check_flag, check_positive, sample_lam
from batchmix.errors import MixError
from batchmix.kernels.layout import widest_on
from batchmix.mixer import Mixer, MixerOptions

SILENCE = -80.0  # dB
WINDOW = 0.1  # seconds


class EnergyMixup(Mixer):
    """mixup of waveforms whose weights follow the sound levels.

    Args:
        alpha: Shape of the Beta density of ``lam``, >= 0; 0 mixes nothing.
        rate: Sampling rate in Hz, for levels as they are heard; the plain energy of the waveform if left out.
        fold: ``lam = max(lam, 1-lam)``.
        partner: ``"shuffle"``, ``"derangement"``, ``"roll"``, ``"other-class"`` or ``"same-class"``.
        options: ``p``, ``p_sample``, ``schedule`` and ``seed``, as for ``Mixer``.

    Raises:
        MixError: If an argument is not of the form above, or samples are not waveforms.

    Example:
        >>> mixup = EnergyMixup(rate=16000, seed=0)
        >>> x, y = mixup(torch.randn(4, 1, 8000), torch.tensor([0, 1, 2, 3]))
        >>> x.shape, len(y)
        (torch.Size([4, 1, 8000]), 4)

    Source: Tokozume et al. 2018, arXiv:1711.10282, eq. 2 and section 3.3.
    """

    takes: ClassVar[str] = "waveforms"

    whole_plan: ClassVar[bool] = False  # the sum is divided by its length

    hyperparameters: ClassVar[tuple[str, ...]] = ("alpha",)

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        rate: float | None = None,
        fold: bool = False,
        partner: Policy = "shuffle",
        **options: Unpack[MixerOptions],
    ) -> None:
        self.alpha = check_alpha(alpha)
        if rate is not None:
            check_positive(rate, "rate", "a sampling rate in Hz, > 0")
        check_choice("partner", partner, get_args(Policy))
        self.rate = rate
        self.fold = check_flag("fold", fold)
        self.partner = partner
        super().__init__(**options)

    def sample(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        between: bool = False,
        generator: torch.Generator,
        **settings: float,
    ) -> MixPlan:
        """Draw partners, then weights; measure levels. See ``Mixer.sample``."""
        _check_waveforms(x)
        partner = draw_partners(x, y, self.partner, per="sample", between=between, generator=generator)
        lam = sample_lam(settings["alpha"], len(x), fold=self.fold, generator=generator)
        plan = plan_of_weights(partner, lam, per="sample", between=between)
        if between:
            return plan  # the other batch is not known here; _join adds its levels
        levels = sound_level(x, self.rate).to(generator.device)
        return MixPlan(plan.partner, plan.lam, _weights(plan.lam, levels - levels[partner]))

    def _join(self, first: Tensor, second: Tensor, plan: MixPlan) -> Tensor:
        """Waveforms of two batches, by the levels of both."""
        difference = sound_level(first, self.rate) - sound_level(second, self.rate)
        return _add(first, plan, _weights(plan.lam, difference), second)

    def _apply(self, leaves: list[Leaf], plan: MixPlan) -> dict[str, Any]:
        """Waveforms by their own weights, with their energy kept; everything else by ``lam``."""
        length = _waveform(leaves).shape[-1]
        if plan.mask is None or plan.mask.shape[1:] != (1,):
            raise MixError(f"plan takes one with a mask (B, 1), got {describe(plan.mask)}")
        mixed: dict[str, Any] = {}
        for leaf in leaves:
            if leaf.kind == "input" and leaf.value.dim() > 1 and leaf.value.shape[-1] == length:
                _check_waveforms(leaf.value, leaf.path)
                mixed[leaf.path] = _add(leaf.value, plan, plan.mask)
            else:
                mixed[leaf.path] = apply_plan(leaf, plan.without_mask())
        return mixed

    def _draw_for(self, leaves: list[Leaf], step: int | None) -> MixPlan | None:
        return self._draw(_waveform(leaves), target_of(leaves), step=step)


def _waveform(leaves: list[Leaf]) -> Tensor:
    """The longest input, whose levels count; inputs of another length beside it are no waveforms."""
    longest, *others = inputs_of(leaves)
    for x in others:  # a loop, since torch.compile takes no max(..., key=...)
        longest = x if x.dim() > 1 and (longest.dim() < 2 or x.shape[-1] > longest.shape[-1]) else longest
    return longest


def sound_level(x: Tensor, rate: float | None = None) -> Tensor:
    """Level of each waveform in dB, relative to a power of 1.

    Args:
        x: (B, T) or (B, C, T), floating point.
        rate: Sampling rate in Hz: the greatest level of all windows, A-weighted; that of the whole waveform
            if left out.

    Returns:
        (B,) float32, at least -80.
    """
    wave = x.detach().float()
    if rate is None:
        power = wave.flatten(1).square().mean(1)
        return (10 * power.log10()).clamp(min=SILENCE)
    size = min(max(2, round(WINDOW * rate)), wave.shape[-1])
    shape = torch.hann_window(size, dtype=torch.float32, device=x.device)
    hop = max(1, size // 2)
    wave = F.pad(wave, (0, (size - wave.shape[-1]) % hop))  # a sound at the very end counts too
    windows = wave.unfold(-1, size, hop) * shape
    spectrum = torch.fft.rfft(windows).abs().square()
    spectrum[..., 1 : (size + 1) // 2] *= 2  # the frequencies below zero
    # Autocast would multiply in half precision; the meta device has none.
    with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
        heard: Tensor = spectrum @ a_weights(size, rate, x.device) / (size * shape.square().sum())
    heard = heard.mean(1) if heard.dim() == 3 else heard  # over the channels
    return (10 * heard.amax(1).log10()).clamp(min=SILENCE)


def a_weights(size: int, rate: float, device: torch.device | None = None) -> Tensor:
    """A-weighting of power at the frequencies of a real FFT, (size//2+1,) float32; 1 at 1 kHz.

    Source: IEC 61672-1:2013, annex E.
    """
    square = (torch.arange(size // 2 + 1, dtype=torch.float32, device=device) * (rate / size)) ** 2
    gain = 12194**2 * square**2 / ((square + 20.6**2) * (square + 12194**2))
    gain = gain / ((square + 107.7**2) * (square + 737.9**2)).sqrt()
    return (gain * 10 ** (2.0 / 20)) ** 2


def _weights(lam: Tensor, difference: Tensor) -> Tensor:
    """The paper's p, (B, 1): as a sigmoid, which is finite for ``lam`` 0 and 1."""
    return torch.sigmoid(torch.logit(lam) - difference.to(lam.device) * (math.log(10) / 20)).unsqueeze(1)


def _add(x: Tensor, plan: MixPlan, own: Tensor, other: Tensor | None = None) -> Tensor:
    """The two waveforms by the first one's weight (B, 1), divided by the length of both; rounded once."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    by_levels = MixPlan(plan.partner, plan.lam, own)
    mixed = blend(x.to(wide), by_levels, other=None if other is None else other.to(wide))
    weight = own.to(widest_on(own.device))
    length = (weight.square() + (1 - weight).square()).sqrt().to(mixed.dtype)
    mixed = mixed / as_rows(length.squeeze(1), mixed.dim())
    return mixed.to(x.dtype)


def _check_waveforms(x: Tensor, name: str = "x") -> None:
    if x.dim() not in (2, 3) or not x.is_floating_point() or not x.shape[-1]:
        raise MixError(f"{name} takes waveforms (B, T) or (B, C, T), floating point, got {describe(x)}")
