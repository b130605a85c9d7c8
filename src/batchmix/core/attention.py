"""Weights of labels from what a vision transformer attended to."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from batchmix.core.plan import MixPlan, check_is_plan, describe
from batchmix.core.sampling import check_count, check_probability
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError


@torch.no_grad()
def reweigh(
    target: MixedTarget,
    plan: MixPlan,
    attention: Tensor,
    *,
    prefix: int = 0,
    grid: tuple[int, int] | None = None,
    share: float = 1.0,
) -> MixedTarget:
    """Weigh each label by the attention that its pixels got, after the forward pass.

    ``lam[i]`` becomes the share of the class token's attention that falls on the sample's own pixels. A patch
    that holds pixels of both counts for each by its share of the patch: attention that is the same everywhere
    gives the plan's ``lam`` again. Where the plan has no mask, each pixel belongs to both and the target is
    handed back.

    Args:
        target: Of the mixed batch.
        plan: What the batch was mixed by; its mask is that of images.
        attention: Of the class token to each token, >= 0: (B, tokens), or (B, heads, tokens), whose mean over
            the heads counts. Constant for the loss: no gradient goes through it.
        prefix: Number of tokens before the patches to leave out: 1 where the class token is among them, more
            where registers are.
        grid: Rows and columns of patches, all of one size; found from their number and the image's size if
            left out, for square patches.
        share: Of the attention in the new weight, the rest is the old one. The paper's equation is 1, the
            authors' code 0.5.

    Returns:
        The same two targets with new weights; at an attention of 0 everywhere the old ones.

    Raises:
        MixError: If the shapes do not fit together.

    Example:
        >>> mask = torch.ones(1, 1, 4, 4, dtype=torch.bool)
        >>> mask[..., :2] = False  # the left half is the partner's
        >>> plan = MixPlan(torch.tensor([0]), torch.tensor([0.5]), mask)
        >>> target = MixedTarget(torch.tensor([3]), torch.tensor([5]), plan.lam)
        >>> reweigh(target, plan, torch.tensor([[0.1, 0.5, 0.2, 0.2]]))  # 2 x 2 patches
        MixedTarget([0.70 of 3 + 0.30 of 5])

    Source: Chen et al. 2022, arXiv:2111.09833.
    """
    check_is_plan(plan)
    if not isinstance(target, MixedTarget) or len(target) != len(plan):
        raise MixError(f"target takes a MixedTarget of {len(plan)} samples, got {describe(target)}")
    share = check_probability(share, "share")
    if plan.mask is None:
        return target
    if plan.mask.dim() != 4:
        raise MixError(f"plan takes a mask of images (B, 1, H, W), got {describe(plan.mask)}")
    attended = _per_patch(attention, len(plan), prefix).to(target.device)
    rows, columns = _grid_of(attended.shape[1], grid, (plan.mask.shape[2], plan.mask.shape[3]))
    own = F.adaptive_avg_pool2d(plan.mask.to(attended), (rows, columns)).flatten(1)
    total = attended.sum(1)
    ours = (attended * own).sum(1) / total.where(total > 0, torch.ones_like(total))
    ours = torch.where(total > 0, ours.clamp(0, 1), target.lam)
    return MixedTarget(target.a, target.b, share * ours + (1 - share) * target.lam)


def _per_patch(attention: Tensor, count: int, prefix: int) -> Tensor:
    if not isinstance(attention, Tensor) or attention.dim() not in (2, 3) or len(attention) != count:
        raise MixError(
            f"attention takes (B, tokens) or (B, heads, tokens) with B = {count}, got {describe(attention)}"
        )
    prefix = check_count("prefix", prefix, 0, attention.shape[-1] - 1)
    heads = attention.float() if attention.dim() == 2 else attention.float().mean(1)
    return heads[:, prefix:]


def _grid_of(patches: int, grid: tuple[int, int] | None, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the patches, which are square unless told otherwise."""
    height, width = size
    if grid is not None:
        sides = isinstance(grid, (tuple, list)) and all(isinstance(side, int) and side > 0 for side in grid)
        if not sides or len(grid) != 2 or grid[0] * grid[1] != patches:
            raise MixError.of("grid", grid, f"rows and columns of {patches} patches")
        if height % grid[0] or width % grid[1]:
            raise MixError.of("grid", grid, f"rows and columns that divide images of {height} x {width}")
        return grid[0], grid[1]
    rows = round(math.sqrt(patches * height / width))
    columns = round(math.sqrt(patches * width / height))
    if rows * columns != patches or height * columns != width * rows:
        raise MixError(
            f"attention takes one value a square patch of the {height} x {width} images, got {patches}: "
            "leave out the class token with prefix=1, or give grid=(rows, columns)"
        )
    return rows, columns
