"""What methods share: who is mixed with whom, and how a weight or a mask for each of them becomes a plan."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from batchmix.core.boxes import box_masks
from batchmix.core.plan import MixPlan, describe
from batchmix.core.sampling import Per, Policy, check_choice, sample_partner
from batchmix.errors import MixError

_SIDES = ("D", "H", "W")


def size_of(x: Tensor, axes: int | None = None) -> tuple[int, ...]:
    """The positions of a sample: (H, W) of images and of the frames of videos, (T,) of series.

    Args:
        x: The samples.
        axes: How many of the last dimensions are positions, where it is not as above.

    Raises:
        MixError: If the samples have no positions.
    """
    takes = (
        "images (B, C, H, W) or series (B, C, T)" if axes is None else f"(B, C, {', '.join(_SIDES[-axes:])})"
    )
    axes = axes or (2 if x.dim() > 3 else 1)
    size = tuple(x.shape[-axes:])
    if x.dim() < 2 + axes or 0 in size:
        raise MixError(f"x takes {takes}, all >= 1, got {describe(x)}")
    return size


def check_pairing(per: Per, partner: Policy) -> None:
    """Raise a MixError unless both are among their choices, and fit together."""
    check_choice("per", per, get_args(Per))
    check_choice("partner", partner, get_args(Policy))
    if per == "pair" and partner != "shuffle":
        raise MixError(f"partner takes 'shuffle' where per='pair', got {partner!r}")


def check_shares(name: str, shares: object, *, above: bool = False) -> tuple[float, float]:
    """Return two shares of a side, or raise a MixError that names them; ``above``: of more than nothing."""
    takes = f"two shares of a side, 0 {'<' if above else '<='} low <= high <= 1"
    if not isinstance(shares, (tuple, list)) or len(shares) != 2:
        raise MixError.of(name, shares, takes)
    low, high = shares
    if any(isinstance(share, bool) or not isinstance(share, (int, float)) for share in shares):
        raise MixError.of(name, shares, takes)
    if not 0 <= low <= high <= 1 or (above and low == 0):
        raise MixError.of(name, shares, takes)
    return float(low), float(high)


def draw_partners(
    x: Tensor, y: Tensor | None, policy: Policy, *, per: Per, between: bool, generator: torch.Generator
) -> Tensor:
    """The partner of each sample, (B,); between two batches, the sample of the same place."""
    if between:
        return torch.arange(len(x), device=generator.device)
    return sample_partner(len(x), policy, mutual=per == "pair", labels=y, generator=generator)


def draws_of(per: Per, batch_size: int) -> int:
    """How many masks to draw: one for the batch, else one for each sample (a pair uses one of its two)."""
    return 1 if per == "batch" else batch_size


def mean_of(mask: Tensor) -> Tensor:
    """The share of each mask (N, 1, ...) that stays, (N,) float32, summed in float64."""
    if mask.dtype == torch.bool:
        return (mask.flatten(1).sum(1).double() / mask[0].numel()).float()
    return mask.flatten(1).mean(1, dtype=torch.float64).float()


def who_stays(partner: Tensor, *, per: str, between: bool) -> Tensor | None:
    """Whose only partner is itself, (B,) bool; None where nobody stays as it is for that.

    A partner of another batch is another sample, and what was drawn once holds for the whole batch.
    """
    if between or (per == "batch" and len(partner) > 1):
        return None
    return partner == torch.arange(len(partner), device=partner.device)


def plan_of_weights(partner: Tensor, lam: Tensor, *, per: str, between: bool) -> MixPlan:
    """The plan of weights (B,) as they were drawn, but for those of ``who_stays``, which are 1."""
    own = who_stays(partner, per=per, between=between)
    return MixPlan(partner, lam if own is None else lam.masked_fill(own, 1.0))


def plan_of_boxes(
    partner: Tensor, boxes: Tensor, size: tuple[int, ...], *, per: Per, between: bool
) -> MixPlan:
    """``plan_of`` the masks of boxes; who stays as it is has a box of nothing: sooner made than a mask.

    Args:
        partner: (B,) int64.
        boxes: (B or 1, 4) int64, as many as ``draws_of`` says; or (B or 1, 2).
        size: (H, W) of an image, or (T,) of a series.
        per: For what a box holds.
        between: Partners are of another batch.
    """
    if per == "pair":
        boxes = boxes[_first_of_pair(partner)]
    own = who_stays(partner, per=per, between=between)
    if own is not None:
        boxes = boxes.masked_fill(own.unsqueeze(1), 0)
    mask, lam = box_masks(boxes, size)
    return MixPlan(partner, lam.expand(len(partner)).contiguous(), mask)


def plan_of(
    partner: Tensor,
    mask: Tensor,
    lam: Tensor,
    *,
    per: Per,
    between: bool,
    window: Tensor | None = None,
) -> MixPlan:
    """The plan of masks as they were drawn.

    Both members of a pair get the mask at the smaller of their two places. Who has only itself for a partner
    stays as it is, unless one mask holds for the batch.

    Args:
        partner: (B,) int64.
        mask: (B or 1, 1, ...), as many as ``draws_of`` says.
        lam: Mean of each mask.
        per: For what a mask holds.
        between: Partners are of another batch.
        window: Where partners are resized to, one a mask.
    """
    count = len(partner)
    if per == "pair":
        first = _first_of_pair(partner)
        mask, lam, window = mask[first], lam[first], None if window is None else window[first]
    lam = lam.expand(count).contiguous()
    plan = MixPlan(partner, lam, mask, None if window is None else window.expand(count, -1).contiguous())
    own = who_stays(partner, per=per, between=between)
    return plan if own is None else plan.only(~own)


def _first_of_pair(partner: Tensor) -> Tensor:
    """The smaller of the two places of each pair, (B,) int64."""
    return torch.minimum(partner, torch.arange(len(partner), device=partner.device))
