"""Where an image draws the eye, as a map for each image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from batchmix.core.plan import describe
from batchmix.errors import MixError

Look = Callable[[Tensor], Tensor]
"""From images (B, C, H, W) to a map of each, (B, h, w), of any resolution; the larger, the more salient."""

_SURROUNDS = (12, 24, 28, 48, 56, 112)  # pixels to each side, those of OpenCV's version


@torch.no_grad()
def fine_grained(x: Tensor) -> Tensor:
    """Saliency without a network: how far each pixel is from the mean of its surroundings.

    The image is averaged over its channels and smoothed twice. The distances of a pixel to the means of six
    sizes of surroundings, clipped at the image's edges, are summed.

    Departures from OpenCV's version: pixels above and below their surroundings are not scaled apart, which
    would make all of a dark background as salient as the one bright object on it; channels count alike,
    surroundings are symmetric, and nothing is rounded to whole numbers.

    Args:
        x: Images, (B, C, H, W), floating point, of any scale.

    Returns:
        (B, H, W) float32, >= 0, in the scale of the image.

    Raises:
        MixError: If ``x`` is not a batch of images.

    Example:
        >>> x = torch.zeros(1, 3, 32, 32)
        >>> x[..., 8:12, 20:24] = 1
        >>> peak = int(fine_grained(x).argmax())
        >>> 8 <= peak // 32 < 12, 20 <= peak % 32 < 24
        (True, True)

    Source: Montabone and Soto 2010, Human Detection Using a Mobile Platform and Novel Features Derived From a
    Visual Saliency Mechanism, Image and Vision Computing.
    """
    check_images(x)
    grey = x.detach().float().mean(1)
    grey = _smooth(_smooth(grey - grey.mean((1, 2), keepdim=True)))  # small numbers keep the sums exact
    sums = F.pad(_running_sums(_running_sums(grey, 1), 2), (1, 0, 1, 0))
    found, most = torch.zeros_like(grey), max(grey.shape[1:])
    for reach, times in Counter(min(reach, most) for reach in _SURROUNDS).items():
        (top, bottom), (left, right) = (_window(side, reach, x.device) for side in grey.shape[1:])
        rows = sums.index_select(1, bottom) - sums.index_select(1, top)
        around = rows.index_select(2, right) - rows.index_select(2, left) - grey
        others = (bottom - top).unsqueeze(1) * (right - left) - 1
        found += times * (grey - around / others.clamp(min=1)).abs()
    return found


def maps_of(function: Callable[..., Tensor], *inputs: Tensor, name: str) -> Tensor:
    """Call a user's ``function`` of images, and check what comes back.

    It is called without building a graph; one that needs gradients switches them on itself, with
    ``torch.enable_grad()``.

    Args:
        function: Called with ``inputs``.
        inputs: The images (B, C, H, W) first.
        name: Of the argument, for the error.

    Returns:
        (B, h, w) float32, without a graph.

    Raises:
        MixError: If what comes back is not one map an image.
    """
    check_images(inputs[0])
    with torch.no_grad():
        maps = function(*(part.detach() for part in inputs))
    if isinstance(maps, Tensor) and maps.dim() == 4 and maps.shape[1] == 1:
        maps = maps.squeeze(1)
    if not isinstance(maps, Tensor) or maps.dim() != 3 or len(maps) != len(inputs[0]):
        raise MixError(
            f"{name} takes a callable that returns maps (B, h, w) with B = {len(inputs[0])}, "
            f"got {describe(maps)} from it"
        )
    return maps.detach().float()


def at_pixels(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, h, w) at the resolution of the images, (B, H, W), bilinear."""
    if tuple(maps.shape[1:]) == size:
        return maps
    return F.interpolate(maps.unsqueeze(1), size, mode="bilinear", align_corners=False).squeeze(1)


def peaks(maps: Tensor) -> Tensor:
    """Row and column of each map's maximum, (B, 2) int64, from (B, H, W)."""
    place, width = maps.flatten(1).argmax(1), maps.shape[2]
    return torch.stack([place.div(width, rounding_mode="floor"), place % width], 1)


def check_images(x: object) -> None:
    """Raise a MixError unless ``x`` is a batch of floating point images that are not empty."""
    if not isinstance(x, Tensor) or x.dim() != 4 or not x.is_floating_point() or 0 in x.shape[2:]:
        raise MixError(f"x takes floating point images (B, C, H, W), all >= 1, got {describe(x)}")


def _smooth(maps: Tensor) -> Tensor:
    """(B, H, W) weighted 1, 2, 1 with their neighbours along each axis; edges are repeated."""
    wide = F.pad(maps.unsqueeze(1), (1, 1, 1, 1), mode="replicate").squeeze(1)
    tall = (wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]) / 4
    return (tall[:, :, :-2] + 2 * tall[:, :, 1:-1] + tall[:, :, 2:]) / 4


def _running_sums(values: Tensor, axis: int) -> Tensor:
    """``values.cumsum(axis)``; by shifted additions where a GPU's own is refused, as not deterministic."""
    if not (values.is_cuda and torch.are_deterministic_algorithms_enabled()):
        return values.cumsum(axis)
    return _shifted_sums(values, axis)


def _shifted_sums(values: Tensor, axis: int) -> Tensor:
    """The same, in as many additions as the side has binary digits."""
    reach, side = 1, values.shape[axis]
    while reach < side:
        further = values.narrow(axis, reach, side - reach) + values.narrow(axis, 0, side - reach)
        values = torch.cat([values.narrow(axis, 0, reach), further], axis)
        reach *= 2
    return values


def _window(side: int, reach: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """First and last place, exclusive, of the surroundings of each place of a side."""
    place = torch.arange(side, device=device)
    return (place - reach).clamp(min=0), (place + reach + 1).clamp(max=side)
