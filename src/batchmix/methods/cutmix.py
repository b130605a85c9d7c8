"""CutMix: a box of every image is replaced by the same box of its partner.

How to use: ``x, y = CutMix(1.0)(x, y)`` before the model, during training only.

Suggested values: ``alpha`` 1; half of the batches (``p=0.5``) on small images; long budgets.

Technical details: the label's weight is the exact share of pixels that stay, after the box is clipped at the
image's edge. Every sample has a box of its own, where the paper has one for the batch (``per="batch"``). On
series (B, C, T) the box is a stretch of time, on videos (B, C, T, H, W) it is the same in every frame, on
volumes (B, C, D, H, W) with ``axes=3`` it is a cuboid.

Paper: Yun, Han, Oh, Chun, Choe, Yoo 2019, "CutMix: Regularization Strategy to Train Strong Classifiers with
Localizable Features", arXiv:1905.04899.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from batchmix.core.boxes import place_boxes, sample_boxes, sample_sides
from batchmix.core.masks import check_pairing, check_shares, draw_partners, draws_of, plan_of_boxes, size_of
from batchmix.core.plan import MixPlan
from batchmix.core.sampling import Per, Policy, check_alpha, check_count, check_flag, sample_lam
from batchmix.errors import MixError
from batchmix.mixer import Mixer, MixerOptions


class CutMix(Mixer):
    """CutMix of a batch with a shuffled version of itself.

    A box of sample i is replaced by the same box of sample ``partner[i]``. The box leaves a share
    ``lam ~ Beta(alpha, alpha)`` of the image before it is clipped at the edges; the plan's ``lam`` is the
    exact share of pixels that stay.

    Args:
        alpha: Shape of the Beta density, >= 0; 0 mixes nothing.
        per: A box for each ``"sample"``, for each ``"pair"`` of mutual partners, or for the ``"batch"``.
        fold: ``lam = max(lam, 1-lam)``: no box covers more than half of an image.
        minmax: Draw each side of the box uniformly between these shares of the image's, inside the image,
            instead of by ``alpha``; without ``fold``.
        partner: ``"shuffle"``, ``"derangement"``, ``"roll"``, ``"other-class"`` or ``"same-class"``.
        axes: Of how many of the last dimensions a box has sides, 1 to 3; if left out 1 for series and 2 for
            all else. 3 is for volumes (B, C, D, H, W).
        options: ``p``, ``p_sample``, ``schedule``, ``seed``, ``rank`` and ``normalize``, as for ``Mixer``.

    Raises:
        MixError: If an argument is not of the form above, or samples have no positions to cut.

    Example:
        >>> cutmix = CutMix(alpha=1.0, seed=0)
        >>> x, y = cutmix(torch.rand(8, 3, 32, 32), torch.randint(10, (8,)))
        >>> x.shape, len(y)
        (torch.Size([8, 3, 32, 32]), 8)

    Source: Yun et al. 2019, arXiv:1905.04899, eq. 1 and 2; one box for the batch there.
    """

    pastes: ClassVar[bool] = True

    reads_pixels: ClassVar[bool] = False

    hyperparameters: ClassVar[tuple[str, ...]] = ("alpha",)

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        per: Per = "sample",
        fold: bool = False,
        minmax: tuple[float, float] | None = None,
        partner: Policy = "shuffle",
        axes: int | None = None,
        **options: Unpack[MixerOptions],
    ) -> None:
        self.alpha = check_alpha(alpha)
        check_pairing(per, partner)
        self.per = per
        self.fold = check_flag("fold", fold)
        self.minmax = None if minmax is None else check_shares("minmax", minmax)
        if self.fold and self.minmax is not None:
            raise MixError.of("fold", fold, "False where minmax draws the sides of the box")
        self.partner = partner
        self.axes = None if axes is None else check_count("axes", axes, 1, 3)
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
        """Draw partners, then weights, then boxes. See ``Mixer.sample``."""
        size = size_of(x, self.axes)
        partner = draw_partners(x, y, self.partner, per=self.per, between=between, generator=generator)
        boxes = self._boxes(draws_of(self.per, len(x)), size, settings["alpha"], generator)
        return plan_of_boxes(partner, boxes, size, per=self.per, between=between)

    def _boxes(self, count: int, size: tuple[int, ...], alpha: float, generator: torch.Generator) -> Tensor:
        if self.minmax is not None:
            sides = sample_sides(count, size, self.minmax, generator=generator)
            return place_boxes(sides, size, generator=generator)
        lam = sample_lam(alpha, count, fold=self.fold, generator=generator)
        return sample_boxes(lam, size, generator=generator)
