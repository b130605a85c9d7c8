"""Boxes to cut: drawn for every sample at once, without a loop and without asking the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sample_boxes(lam: Tensor, size: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
    """A box for each weight, whose middle is anywhere in the image and which is clipped at its edges.

    Args:
        lam: (B,) share of the image that the box leaves, before it is clipped.
        size: (H, W) of an image, or (T,) of a series.
        generator: Source of randomness.

    Returns:
        (B, 4) int64: top, bottom, left, right; or (B, 2), start and end. The ends are exclusive.

    Source: Yun et al. 2019, arXiv:1905.04899, section 3.1.
    """
    sides = [torch.full_like(lam, side, dtype=torch.int64) for side in size]
    middles = torch.stack([_up_to(side, generator) for side in sides], 1)
    return boxes_around(lam, middles, size)


def boxes_around(lam: Tensor, middles: Tensor, size: tuple[int, ...]) -> Tensor:
    """A box for each weight around a given place, clipped at the image's edges.

    Args:
        lam: (B,) share of the image that the box leaves, before it is clipped.
        middles: (B, 2) int64, row and column; or (B, 1).
        size: (H, W) or (T,).

    Returns:
        (B, 4) or (B, 2), as ``sample_boxes``.
    """
    ends = []
    for axis, side in enumerate(size):
        cut = (side * (1 - lam) ** (1 / len(size))).floor().long()
        middle = middles[:, axis]
        ends += [(middle - cut // 2).clamp(min=0), (middle + (cut + 1) // 2).clamp(max=side)]
    return torch.stack(ends, 1)


def sample_sides(
    count: int, size: tuple[int, ...], shares: tuple[float, float], *, generator: torch.Generator
) -> Tensor:
    """Sides of boxes, each drawn by itself, uniformly between two shares of the image's.

    Args:
        count: B.
        size: (H, W) or (T,).
        shares: The limits, 0 <= low <= high <= 1.
        generator: Source of randomness.

    Returns:
        (B, 2) int64, height and width; or (B, 1).
    """
    low, high = shares
    sides = []
    for side in size:
        least, most = int(side * low), int(side * high)
        span = torch.full((count,), most - least + 1, device=generator.device)
        sides.append(least + _up_to(span, generator))
    return torch.stack(sides, 1)


def place_boxes(sides: Tensor, size: tuple[int, ...], *, generator: torch.Generator) -> Tensor:
    """Boxes of these sides, each anywhere as a whole inside the image.

    Args:
        sides: (B, 2) int64, height and width; or (B, 1).
        size: (H, W) or (T,).
        generator: Source of randomness.

    Returns:
        (B, 4) or (B, 2), as ``sample_boxes``.
    """
    ends = []
    for axis, side in enumerate(size):
        start = _up_to(side - sides[:, axis] + 1, generator)
        ends += [start, start + sides[:, axis]]
    return torch.stack(ends, 1)


def box_masks(boxes: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """What the boxes leave: where, and exactly how much of the image.

    Args:
        boxes: (B, 4) or (B, 2).
        size: (H, W) or (T,).

    Returns:
        The mask, (B, 1, H, W) or (B, 1, T) bool, false inside the box; and its mean, (B,) float32.
    """
    rows = (-1, 1, *[1] * len(size))
    outside = torch.zeros((), dtype=torch.uint8, device=boxes.device)
    area = torch.ones(len(boxes), dtype=torch.float64, device=boxes.device)
    for axis, side in enumerate(size):
        start, end = boxes[:, 2 * axis], boxes[:, 2 * axis + 1]
        line = [side if other == axis else 1 for other in range(len(size))]
        place = torch.arange(side, device=boxes.device).view(1, 1, *line)
        # Along one axis first, then as bytes: torch combines whole masks of booleans ten times slower.
        beside = (place < start.view(rows)) | (place >= end.view(rows))
        outside = outside | beside.view(torch.uint8)
        area = area * (end - start)
    return outside.view(torch.bool), (1 - area / math.prod(size)).float()


def _up_to(ends: Tensor, generator: torch.Generator) -> Tensor:
    """A whole number from 0 to each end, exclusive."""
    drawn = torch.rand(ends.shape, generator=generator, dtype=torch.float64, device=generator.device)
    return (drawn * ends).floor().long().minimum(ends - 1)
