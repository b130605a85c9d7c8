"""Values taken whole from one sample or the other: ids and categories, which cannot be blended."""

from __future__ import annotations

import torch
from torch import Tensor

from batchmix.core.plan import describe, spread
from batchmix.errors import MixError


def paste(x: Tensor, own: Tensor, partner: Tensor) -> Tensor:
    """Every value of ``x`` where ``own`` is true, and the partner's elsewhere, whatever the dtype.

    Args:
        x: (B, L, ...), of any dtype; not modified.
        own: (B, L) bool, or (B, 1) where one holds for the whole sample.
        partner: (B,) int64.

    Returns:
        A new tensor like ``x``.

    Raises:
        MixError: If ``x`` does not have the positions of ``own``.

    Example:
        >>> ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
        >>> own = torch.tensor([[True, True, False], [True, True, True]])
        >>> paste(ids, own, torch.tensor([1, 0]))
        tensor([[1, 2, 6],
                [4, 5, 6]])
    """
    if x.dim() < 2 or x.shape[0] != len(own) or own.shape[1] not in (1, x.shape[1]):
        raise MixError(f"x takes the size of the plan's mask, {tuple(own.shape)}, got {describe(x)}")
    return torch.where(spread(own, x.dim()), x, x[partner])
