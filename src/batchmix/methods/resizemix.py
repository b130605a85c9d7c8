"""ResizeMix: the partner's whole image, made small, is pasted somewhere into every image.

How to use: ``x, y = ResizeMix()(x, y)`` before the model, during training only.

Suggested values: ``scale`` (0.1, 0.8), as published; half of the batches (``p=0.5``) on small images.

Technical details: both sides of the pasted image are the same share of the image's, uniform in ``scale``; it
lies inside the image as a whole, and the label's weight is the exact share of pixels that stay. What is
pasted is never a background alone, which a box of CutMix can be. The paper leaves the resampling open: here
it is bilinear without a prefilter. Class ids of positions are resized with the image, by their nearest. Every
sample has a place of its own. On series (B, C, T) the partner is compressed in time, in videos (B, C, T, H,
W) it is at the same place in every frame.

Paper: Qin, Fang, Zhang, Liu, Wang, Wang 2020, "ResizeMix: Mixing Data with Preserved Object Information and
True Labels", arXiv:2012.11101.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from batchmix.core.boxes import box_masks, place_boxes
from batchmix.core.masks import check_pairing, check_shares, draw_partners, draws_of, plan_of, size_of
from batchmix.core.plan import MixPlan
from batchmix.core.sampling import Per, Policy
from batchmix.mixer import Mixer, MixerOptions


class ResizeMix(Mixer):
    """ResizeMix of a batch with a shuffled version of itself.

    Sample ``partner[i]`` is resized to a share of its height and width, drawn uniformly, and pasted into
    sample i. The plan's ``window`` says where, its ``lam`` is the exact share of pixels that stay.

    Args:
        scale: Limits of the share of each side, 0 < low <= high <= 1.
        per: A place for each ``"sample"``, for each ``"pair"`` of mutual partners, or for the ``"batch"``.
        partner: ``"shuffle"``, ``"derangement"``, ``"roll"``, ``"other-class"`` or ``"same-class"``.
        options: ``p``, ``p_sample``, ``schedule``, ``seed``, ``rank`` and ``normalize``, as for ``Mixer``.

    Raises:
        MixError: If an argument is not of the form above, or samples have no positions.

    Example:
        >>> resizemix = ResizeMix(seed=0)
        >>> x, y = resizemix(torch.rand(8, 3, 32, 32), torch.randint(10, (8,)))
        >>> bool((y.lam >= 1 - 0.8**2).all())
        True

    Source: Qin et al. 2020, arXiv:2012.11101, section 3.
    """

    pastes: ClassVar[bool] = True

    reads_pixels: ClassVar[bool] = False

    def __init__(
        self,
        scale: tuple[float, float] = (0.1, 0.8),
        *,
        per: Per = "sample",
        partner: Policy = "shuffle",
        **options: Unpack[MixerOptions],
    ) -> None:
        self.scale = check_shares("scale", scale, above=True)
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
        """Draw partners, then sizes, then places. See ``Mixer.sample``."""
        size = size_of(x)
        partner = draw_partners(x, y, self.partner, per=self.per, between=between, generator=generator)
        low, high = self.scale
        count, device = draws_of(self.per, len(x)), generator.device
        drawn = torch.rand(count, 1, generator=generator, dtype=torch.float32, device=device)
        # No image shrinks to nothing: on a side of 6, a tenth is less than one pixel.
        share = low + (high - low) * drawn
        sides = torch.cat([(side * share).long().clamp(min=1) for side in size], 1)
        window = place_boxes(sides, size, generator=generator)
        mask, lam = box_masks(window, size)
        return plan_of(partner, mask, lam, per=self.per, between=between, window=window)
