"""Whole samples resized into a part of themselves, each into its own, without a loop over samples."""

from __future__ import annotations

import torch
from torch import Tensor


def resize_into(x: Tensor, window: Tensor, *, nearest: bool = False) -> Tensor:
    """Resize every sample into its window; around it, its edges go on.

    Args:
        x: (B, ..., H, W), or (B, ..., T) where the window has two ends.
        window: (B, 4) int64, top, bottom, left, right, or (B, 2), start and end. The ends are exclusive.
        nearest: Take the nearest value instead of a mean of neighbours: for class ids. Else (bi)linear, with
            no prefilter, and ``x`` is float32 or float64.

    Returns:
        Like ``x``. A window of the sample's own size leaves the sample as it is, bit for bit.
    """
    axes = window.shape[1] // 2
    for place in range(axes):
        start, end = window[:, 2 * place], window[:, 2 * place + 1]
        x = _resize_axis(x, x.dim() - axes + place, start, end, nearest)
    return x


def _resize_axis(x: Tensor, axis: int, start: Tensor, end: Tensor, nearest: bool) -> Tensor:
    """One dimension of positions, resized from its ``side`` to ``end - start`` of each sample."""
    side = x.shape[axis]
    unit = 2 * (end - start).clamp(min=1).unsqueeze(1)
    # The middle of each new position, seen from the window's start, in whole numbers of 1/unit of an old
    # position: exact on every device, and without a remainder where the size does not change.
    middle = (2 * (torch.arange(side, device=x.device) - start.unsqueeze(1)) + 1) * side
    if nearest:
        return _take(x, axis, middle.div(unit, rounding_mode="floor").clamp(0, side - 1))
    at = (middle - unit // 2).clamp(min=0).minimum(unit * (side - 1))
    low = at.div(unit, rounding_mode="floor")
    share = (at - low * unit).to(x.dtype) / unit
    rows = [-1 if place == axis else 1 for place in range(x.dim())]
    rows[0] = len(x)
    below, above = _take(x, axis, low), _take(x, axis, (low + 1).clamp(max=side - 1))
    return below.lerp_(above, share.view(rows))  # a copy already; new memory costs as much again


def _take(x: Tensor, axis: int, index: Tensor) -> Tensor:
    """``x[i]`` at the places ``index[i]`` (B, side) of one dimension."""
    rows = [1] * x.dim()
    rows[0], rows[axis] = index.shape
    return x.gather(axis, index.view(rows).expand(x.shape))
