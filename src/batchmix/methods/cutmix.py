"""CutMix: a box of every image is replaced by the same box of its partner.

How to use: ``x, y = CutMix(1.0)(x, y)`` before the model, during training only.
Suggested values: ``alpha`` 1; half of the batches (``p=0.5``) on small images; long budgets.
Technical details: the label's weight is the exact share of pixels that stay, after the box is clipped at the
image's edge; every sample has a box of its own. On series (B, C, T) the box is a stretch of time, on videos
(B, C, T, H, W) it is the same in every frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, get_args

import torch
from torch import Tensor

from batchmix.core.boxes import box_masks, sample_boxes, sample_boxes_between
from batchmix.core.plan import MixPlan, as_rows, describe
from batchmix.core.sampling import Per, Policy, check_alpha, check_choice, sample_lam, sample_partner
from batchmix.errors import MixError
from batchmix.mixer import Mixer, MixerOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack


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
            instead of by ``alpha``.
        partner: ``"shuffle"``, ``"derangement"``, ``"roll"``, ``"other-class"`` or ``"same-class"``.
        options: ``p``, ``p_sample``, ``schedule`` and ``seed``, as for ``Mixer``.

    Raises:
        MixError: If an argument is not of the form above, or samples have no positions to cut.

    Example:
        >>> cutmix = CutMix(alpha=1.0, seed=0)
        >>> x, y = cutmix(torch.rand(8, 3, 32, 32), torch.randint(10, (8,)))
        >>> x.shape, len(y)
        (torch.Size([8, 3, 32, 32]), 8)

    Source: Yun et al. 2019, arXiv:1905.04899, eq. 1 and 2; one box for the batch there.
    """

    hyperparameters: ClassVar[tuple[str, ...]] = ("alpha",)

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        per: Per = "sample",
        fold: bool = False,
        minmax: tuple[float, float] | None = None,
        partner: Policy = "shuffle",
        **options: Unpack[MixerOptions],
    ) -> None:
        self.alpha = check_alpha(alpha)
        check_choice("per", per, get_args(Per))
        check_choice("partner", partner, get_args(Policy))
        if per == "pair" and partner != "shuffle":
            raise MixError(f"partner takes 'shuffle' where per='pair', got {partner!r}")
        if not isinstance(fold, bool):
            raise MixError.of("fold", fold, "True or False")
        self.per = per
        self.fold = fold
        self.minmax = None if minmax is None else _check_shares(minmax)
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
        """Draw partners, then weights, then boxes. See ``Mixer.sample``."""
        if x.dim() < 3:
            raise MixError(f"x takes images (B, C, H, W) or series (B, C, T), got {describe(x)}")
        count, size = len(x), tuple(x.shape[-2:] if x.dim() > 3 else x.shape[-1:])
        own = torch.arange(count, device=generator.device)
        mutual = self.per == "pair"
        partner = own
        if not between:
            partner = sample_partner(count, self.partner, mutual=mutual, labels=y, generator=generator)
        boxes = self._boxes(count, size, settings["alpha"], generator)
        if mutual:
            boxes = boxes[torch.minimum(partner, own)]
        mask, lam = box_masks(boxes, size)
        lam = lam.expand(count)
        if not between and (self.per != "batch" or count == 1):
            alone = partner == own
            lam = torch.where(alone, 1.0, lam)
            mask = mask | as_rows(alone, mask.dim())
        return MixPlan(partner, lam.contiguous(), mask)

    def _boxes(self, count: int, size: tuple[int, ...], alpha: float, generator: torch.Generator) -> Tensor:
        """A box for each sample, or one for the batch."""
        count = 1 if self.per == "batch" else count
        if self.minmax is not None:
            return sample_boxes_between(count, size, self.minmax, generator=generator)
        lam = sample_lam(alpha, count, fold=self.fold, generator=generator)
        return sample_boxes(lam, size, generator=generator)


def _check_shares(minmax: object) -> tuple[float, float]:
    takes = "two shares of a side, 0 <= low <= high <= 1"
    if not isinstance(minmax, (tuple, list)) or len(minmax) != 2:
        raise MixError.of("minmax", minmax, takes)
    low, high = minmax
    if not all(isinstance(share, (int, float)) for share in minmax) or not 0 <= low <= high <= 1:
        raise MixError.of("minmax", minmax, takes)
    return float(low), float(high)
