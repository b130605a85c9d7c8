"""How often a batch that is mixed with itself holds the same mix twice, counted from draws."""

from __future__ import annotations

from typing import Any

import torch

import batchmix as bm
from batchmix.core.plan import MixPlan

TOLERANCE = 0.05  # share of the weight by which two mixes may differ and be called the same
BATCH_SIZES = (64, 250, 1000)


def count_duplicates(plan: MixPlan, tolerance: float = TOLERANCE) -> tuple[int, int]:
    """Pairs of samples of a batch whose mixes are nearly the same image.

    A mix is a list of weights, one for each image of the batch, that add up to 1. Two mixes are nearly the
    same where at most ``tolerance`` of the weight has to be moved to turn one into the other. As partners
    are a permutation, only a sample and its partner can share an image with most of the weight.

    Args:
        plan: A draw without a mask, whose partners are a permutation.
        tolerance: In [0, 0.5).

    Returns:
        How many pairs, and how many of these mix one another (the same two images, with t and nearly 1 - t);
        the others are a sample that is nearly its partner alone, and that partner, nearly unmixed.

    Example:
        >>> plan = MixPlan(torch.tensor([1, 0, 3, 4, 2]), torch.tensor([0.1, 0.9, 0.02, 0.99, 0.5]))
        >>> count_duplicates(plan)
        (2, 1)
    """
    partner, lam = plan.partner, plan.lam.double()
    own = torch.arange(len(partner), device=partner.device)
    mutual = partner[partner] == own
    # What row i and row partner[i] share: the partner's image and, where they mix one another, i's own.
    shared = torch.minimum(1 - lam, lam[partner])
    shared += torch.where(mutual, torch.minimum(lam, 1 - lam[partner]), 0.0)
    same = (1 - shared <= tolerance) & (partner != own)
    swapped = same & mutual & (own < partner)  # such a pair is seen from both of its ends
    swaps, others = int(swapped.sum()), int((same & ~mutual).sum())
    return swaps + others, swaps


def measure_duplicates(*, alpha: float = 0.4, batches: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Count duplicates in batches of several sizes, with the same draws not folded and folded.

    Args:
        alpha: Of ``Mixup``.
        batches: How many draws of each kind.
        seed: Of the draws.

    Returns:
        What the page is made from: for each batch size and ``fold`` the counts of every batch.
    """
    found = [
        {"batch_size": size, "fold": fold, **_count(bm.Mixup(alpha, fold=fold, seed=seed), size, batches)}
        for size in BATCH_SIZES
        for fold in (False, True)
    ]
    return {"alpha": alpha, "batches": batches, "seed": seed, "tolerance": TOLERANCE, "counts": found}


def _count(mixup: bm.Mixup, size: int, batches: int) -> dict[str, list[int]]:
    x = torch.empty(size, 1)  # draws look at its length alone
    counts = [count_duplicates(mixup.plan(x)) for _ in range(batches)]
    return {"pairs": [pairs for pairs, _ in counts], "swapped": [swapped for _, swapped in counts]}
