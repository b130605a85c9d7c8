"""SpecMix: bands of time and of frequency in a spectrogram are replaced by the partner's.

How to use: ``x, y = SpecMix(0.3)(x, y)`` on spectrograms (B, C, F, T) before the model, during training only.

Suggested values: ``gamma`` 0.3 and up to 3 ``bands`` each way, on part of the batches (``p=0.5``).

Technical details: each sample has from none to ``bands`` bands of frequency, each ``gamma`` of the height,
and as many of time, each ``gamma`` of the width, all anywhere inside the spectrogram, so that they can
overlap. The label's weight is the exact share of cells that stay. Departure from the paper: numbers and
places are drawn for each sample and not once for the batch; ``per="batch"`` does that.

Paper: Kim et al. 2021, SpecMix: A Mixed Sample Data Augmentation method for Training with Time-Frequency
Domain Features, Interspeech, arXiv:2108.03020.
"""

from __future__ import annotations

from typing import ClassVar, get_args

import torch
from torch import Tensor
from typing_extensions import Unpack

from batchmix.core.masks import draw_partners, draws_of, mean_of, plan_of
from batchmix.core.plan import MixPlan, describe
from batchmix.core.sampling import PerSample, Policy, check_choice, check_count, check_probability
from batchmix.errors import MixError
from batchmix.mixer import Mixer, MixerOptions


class SpecMix(Mixer):
    """Bands of a spectrogram cut and pasted from a partner.

    Args:
        gamma: Size of a band, a share in [0, 1] of the spectrogram's height or width; 0 mixes nothing.
        bands: Largest number of bands of each of the two kinds, >= 1.
        per: Bands for each ``"sample"``, or for the ``"batch"``.
        partner: ``"shuffle"``, ``"derangement"``, ``"roll"``, ``"other-class"`` or ``"same-class"``.
        options: ``p``, ``p_sample``, ``schedule`` and ``seed``, as for ``Mixer``; a schedule can name
            ``"gamma"``.

    Raises:
        MixError: If an argument is not of the form above, or samples are not spectrograms.

    Example:
        >>> specmix = SpecMix(gamma=0.3, seed=0)
        >>> x, y = specmix(torch.rand(8, 1, 64, 100), torch.randint(10, (8,)))
        >>> x.shape, len(y)
        (torch.Size([8, 1, 64, 100]), 8)

    Source: Kim et al. 2021, arXiv:2108.03020, eq. 1 and 2.
    """

    takes: ClassVar[str] = "spectrograms"

    pastes: ClassVar[bool] = True

    hyperparameters: ClassVar[tuple[str, ...]] = ("gamma",)

    def __init__(
        self,
        gamma: float = 0.3,
        *,
        bands: int = 3,
        per: PerSample = "sample",
        partner: Policy = "shuffle",
        **options: Unpack[MixerOptions],
    ) -> None:
        self.gamma = check_probability(gamma, "gamma")
        self.bands = check_count("bands", bands)
        check_choice("per", per, get_args(PerSample))
        check_choice("partner", partner, get_args(Policy))
        self.per = per
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
        """Draw partners, then bands of frequency, then bands of time. See ``Mixer.sample``."""
        if x.dim() != 4 or 0 in x.shape[2:]:
            raise MixError(f"x takes spectrograms (B, C, F, T), all >= 1, got {describe(x)}")
        partner = draw_partners(x, y, self.partner, per=self.per, between=between, generator=generator)
        rows = draws_of(self.per, len(x))
        frequency, time = (
            _sample_bands(rows, side, settings["gamma"], self.bands, generator) for side in x.shape[2:]
        )
        mask = ~(frequency.view(rows, 1, -1, 1) | time.view(rows, 1, 1, -1))
        return plan_of(partner, mask, mean_of(mask), per=self.per, between=between)


def _sample_bands(count: int, side: int, share: float, most: int, generator: torch.Generator) -> Tensor:
    """(count, side) bool, true inside from none to ``most`` bands, each ``share`` of the side."""
    width = int(min(share, 1.0) * side)
    device = generator.device
    starts = torch.randint(side - width + 1, (count, most), generator=generator, device=device)
    used = torch.arange(most, device=device) < torch.randint(
        most + 1, (count, 1), generator=generator, device=device
    )
    place = torch.arange(side, device=device).view(1, 1, side)
    inside = (place >= starts.unsqueeze(2)) & (place < starts.unsqueeze(2) + width)
    return (inside & used.unsqueeze(2)).any(1)
