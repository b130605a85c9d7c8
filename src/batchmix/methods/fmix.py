"""FMix: blobs of any shape, drawn as smooth noise that is cut at a level, come from the partner.

How to use: ``x, y = FMix(1.0)(x, y)`` before the model, during training only.

Suggested values: ``alpha`` 1 and ``decay`` 3, as published; a larger ``decay`` gives fewer and smoother
blobs.

Technical details: white noise is weighed in the frequency domain by ``frequency**-decay``; the pixels where
the result is largest stay the sample's own, as many as ``lam ~ Beta(alpha, alpha)`` asks for, to the nearest
whole number; the label's weight is their exact share. Every sample has a mask of its own, where the paper's
code draws one for the batch (``per="batch"``). Its option of soft edges is left out. On series (B, C, T) the
noise is in time, on videos (B, C, T, H, W) the mask is the same in every frame.

Paper: Harris, Marcu, Painter, Niranjan, Prugel-Bennett, Hare 2020, "FMix: Enhancing Mixed Sample Data
Augmentation", arXiv:2002.12047.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from batchmix.core.masks import check_pairing, draw_partners, draws_of, mean_of, plan_of, size_of
from batchmix.core.plan import MixPlan
from batchmix.core.sampling import Per, Policy, check_alpha, check_flag, sample_lam
from batchmix.mixer import Mixer, MixerOptions


class FMix(Mixer):
    """FMix of a batch with a shuffled version of itself.

    Sample i keeps its own pixels where a smooth noise of its own is largest, and has those of sample
    ``partner[i]`` elsewhere. The plan's ``lam`` is the exact share of pixels that stay.

    Args:
        alpha: Shape of the Beta density, >= 0; 0 mixes nothing.
        decay: How fast the noise falls off with its frequency, >= 0; 0 is white noise.
        per: A mask for each ``"sample"``, for each ``"pair"`` of mutual partners, or for the ``"batch"``.
        fold: ``lam = max(lam, 1-lam)``: at least half of every image stays.
        partner: ``"shuffle"``, ``"derangement"``, ``"roll"``, ``"other-class"`` or ``"same-class"``.
        options: ``p``, ``p_sample``, ``schedule``, ``seed``, ``rank`` and ``normalize``, as for ``Mixer``.

    Raises:
        MixError: If an argument is not of the form above, or samples have no positions.

    Example:
        >>> fmix = FMix(alpha=1.0, seed=0)
        >>> x, y = fmix(torch.rand(8, 3, 32, 32), torch.randint(10, (8,)))
        >>> x.shape, len(y)
        (torch.Size([8, 3, 32, 32]), 8)

    Source: Harris et al. 2020, arXiv:2002.12047, section 4.
    """

    pastes: ClassVar[bool] = True

    reads_pixels: ClassVar[bool] = False

    hyperparameters: ClassVar[tuple[str, ...]] = ("alpha",)

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        decay: float = 3.0,
        per: Per = "sample",
        fold: bool = False,
        partner: Policy = "shuffle",
        **options: Unpack[MixerOptions],
    ) -> None:
        self.alpha = check_alpha(alpha)
        self.decay = check_alpha(decay, "decay")
        check_pairing(per, partner)
        self.per = per
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
        """Draw partners, then weights, then noise. See ``Mixer.sample``."""
        size = size_of(x)
        partner = draw_partners(x, y, self.partner, per=self.per, between=between, generator=generator)
        lam = sample_lam(settings["alpha"], draws_of(self.per, len(x)), fold=self.fold, generator=generator)
        mask = keep_largest(smooth_noise(len(lam), size, self.decay, generator=generator), lam)
        return plan_of(partner, mask, mean_of(mask), per=self.per, between=between)


def smooth_noise(count: int, size: tuple[int, ...], decay: float, *, generator: torch.Generator) -> Tensor:
    """Noise in which a frequency f has an amplitude of f**-decay: (N, 1, H, W) or (N, 1, T) float32.

    The mean, of frequency 0, is given the lowest frequency of the image; it shifts all pixels alike.
    """
    kind, device = torch.float32, generator.device
    along = [torch.fft.fftfreq(side, dtype=kind, device=device) for side in size[:-1]]
    # The other half of the last mirrors it: the noise is real.
    along.append(torch.fft.rfftfreq(size[-1], dtype=kind, device=device))
    grid = torch.meshgrid(*along, indexing="ij")
    frequency = torch.stack(grid).square().sum(0).sqrt().clamp(min=1 / max(size))
    # Amplitudes too large for a float: only their ratio matters. All others keep their bits.
    if decay * math.log2(max(size)) > 100:
        frequency = (frequency * max(size)).clamp(min=1)
    # Two rows of real numbers: a complex draw is not to be had on every device.
    shape = (2, count, 1, *frequency.shape)
    parts = torch.randn(shape, generator=generator, dtype=kind, device=device)
    spectrum = torch.complex(parts[0], parts[1]) * frequency**-decay
    noise: Tensor = torch.fft.irfftn(spectrum, s=size, dim=list(range(2, 2 + len(size))))
    return noise


def keep_largest(noise: Tensor, lam: Tensor) -> Tensor:
    """True where the noise (N, 1, ...) is among the largest of its row, for a share ``lam`` (N,) of it."""
    values = noise.flatten(1)
    pixels = values.shape[1]
    kept = (lam.double() * pixels).round().unsqueeze(1)
    # The level that so many lie above, by halving: to sort every pixel takes several times as long.
    low, level = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    for _ in range(32):
        middle = (low + level) / 2
        few = (values > middle).sum(1, keepdim=True, dtype=torch.int32) <= kept
        low, level = torch.where(few, low, middle), torch.where(few, middle, level)
    return ((values > level) | (kept == pixels)).view(noise.shape)
