"""SmoothMix: the partner shows through around a point, and fades out into the image without an edge.

How to use: ``x, y = SmoothMix()(x, y)`` before the model, during training only.

Suggested values: ``spread`` (0.25, 0.5), as in public implementations.

Technical details: the partner's weight is a Gaussian bell around a pixel drawn anywhere in the image, 1 at
the middle; its standard deviation is a share of the width, drawn uniformly from ``spread``; on a series (B,
C, T) of the length. The label's weight is the mean of the mask. Every sample has a bell of its own. Only the
round bell of the paper is here, not its smoothed square. On videos (B, C, T, H, W) the bell is the same in
every frame. The mask is soft, so that class ids of positions cannot be pasted with it.

Paper: Lee, Zaheer, Astrid, Lee 2020, "SmoothMix: a Simple Yet Effective Data Augmentation to Train Robust
Classifiers", CVPR Workshops.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from batchmix.core.masks import (
    check_pairing,
    check_shares,
    draw_partners,
    draws_of,
    mean_of,
    plan_of,
    size_of,
)
from batchmix.core.plan import MixPlan, as_rows
from batchmix.core.sampling import Per, Policy
from batchmix.mixer import Mixer, MixerOptions


class SmoothMix(Mixer):
    """SmoothMix of a batch with a shuffled version of itself.

    Sample ``partner[i]`` is blended into sample i with a weight that is 1 at one pixel and falls off around
    it. The plan's ``lam`` is the mean of the mask.

    Args:
        spread: Limits of the bell's standard deviation, as a share of the width, 0 < low <= high <= 1.
        per: A bell for each ``"sample"``, for each ``"pair"`` of mutual partners, or for the ``"batch"``.
        partner: ``"shuffle"``, ``"derangement"``, ``"roll"``, ``"other-class"`` or ``"same-class"``.
        options: ``p``, ``p_sample``, ``schedule``, ``seed``, ``rank`` and ``normalize``, as for ``Mixer``.

    Raises:
        MixError: If an argument is not of the form above, or samples have no positions.

    Example:
        >>> smoothmix = SmoothMix(seed=0)
        >>> x, y = smoothmix(torch.rand(8, 3, 32, 32), torch.randint(10, (8,)))
        >>> x.shape, len(y)
        (torch.Size([8, 3, 32, 32]), 8)

    Source: Lee et al. 2020, CVPR Workshops, section 3.
    """

    reads_pixels: ClassVar[bool] = False

    def __init__(
        self,
        spread: tuple[float, float] = (0.25, 0.5),
        *,
        per: Per = "sample",
        partner: Policy = "shuffle",
        **options: Unpack[MixerOptions],
    ) -> None:
        self.spread = check_shares("spread", spread, above=True)
        check_pairing(per, partner)
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
        """Draw partners, then spreads, then middles. See ``Mixer.sample``."""
        size = size_of(x)
        partner = draw_partners(x, y, self.partner, per=self.per, between=between, generator=generator)
        mask = self._masks(draws_of(self.per, len(x)), size, generator)
        return plan_of(partner, mask, mean_of(mask), per=self.per, between=between)

    def _masks(self, count: int, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """What a bell leaves of the sample itself: (N, 1, H, W) or (N, 1, T) float32."""
        low, high = self.spread
        kind, device = torch.float32, generator.device
        drawn = torch.rand(1 + len(size), count, generator=generator, dtype=kind, device=device)
        ndim = 2 + len(size)
        sigma = as_rows((low + (high - low) * drawn[0]) * size[-1], ndim)
        # A product of bells along each dimension is the round one.
        bell = torch.ones((), dtype=kind, device=device)
        for axis, side in enumerate(size):
            middle = as_rows((drawn[1 + axis] * side).floor(), ndim)
            line = [side if other == axis else 1 for other in range(len(size))]
            place = torch.arange(side, device=device).view(1, 1, *line)
            bell = bell * torch.exp(-0.5 * ((place - middle) / sigma) ** 2)
        return 1 - bell
