"""Boxes to cut: drawn for every sample at once, without a loop and without asking the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from batchmix.kernels import selected
from batchmix.kernels.layout import widest_on


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
    sides = _sides_of(size, lam.device)
    drawn = torch.stack([_uniform(len(lam), generator) for _ in size], 1)
    return _around(lam, _scaled(drawn, sides), sides)


def boxes_around(lam: Tensor, middles: Tensor, size: tuple[int, ...]) -> Tensor:
    """A box for each weight around a given place, clipped at the image's edges.

    Args:
        lam: (B,) share of the image that the box leaves, before it is clipped.
        middles: (B, 2) int64, row and column; or (B, 1).
        size: (H, W) or (T,).

    Returns:
        (B, 4) or (B, 2), as ``sample_boxes``.
    """
    return _around(lam, middles, _sides_of(size, lam.device))


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
    kernel = selected.for_boxes(boxes, size)
    if kernel is not None:  # the same bits, sooner
        cut: tuple[Tensor, Tensor] = kernel.cut_out(boxes, size)
        return cut
    rows = (-1, 1, *[1] * len(size))
    outside = torch.zeros((), dtype=torch.uint8, device=boxes.device)
    area = torch.ones(len(boxes), dtype=widest_on(boxes.device), device=boxes.device)
    limits = boxes.unbind(1)
    for axis, side in enumerate(size):
        start, end = limits[2 * axis : 2 * axis + 2]
        line = [side if other == axis else 1 for other in range(len(size))]
        place = torch.arange(side, device=boxes.device).view(1, 1, *line)
        # Along one axis first, then as bytes: torch combines whole masks of booleans ten times slower.
        beside = (place < start.view(rows)) | (place >= end.view(rows))
        outside = outside | beside.view(torch.uint8)
        area = area * (end - start)
    return outside.view(torch.bool), (1 - area / math.prod(size)).float()


def _around(lam: Tensor, middles: Tensor, sides: Tensor) -> Tensor:
    """``boxes_around``, both axes at once: for a batch the work is less than the calls."""
    share = (1 - lam) ** (1 / len(sides))
    cut = (share.unsqueeze(1) * sides).floor().long()
    start = (middles - cut // 2).clamp(min=0)
    end = (middles + (cut + 1) // 2).minimum(sides)
    return torch.stack((start, end), 2).flatten(1)


def _sides_of(size: tuple[int, ...], device: torch.device) -> Tensor:
    """The size as a tensor, made where it lies: a GPU would have to wait for a copy."""
    return torch.cat([torch.full((1,), side, device=device) for side in size])


def _up_to(ends: Tensor, generator: torch.Generator) -> Tensor:
    """A whole number from 0 to each end, exclusive."""
    return _scaled(_uniform(len(ends), generator), ends)


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, dtype=torch.float64, device=generator.device)


def _scaled(drawn: Tensor, ends: Tensor) -> Tensor:
    """Numbers from [0, 1) as whole ones from 0 to each end, exclusive."""
    return (drawn * ends).floor().long().minimum(ends - 1)
