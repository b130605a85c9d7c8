"""How uint8 images become normalised ones: the constants, and mixing with torch's operations.

``(w*x + (1-w)*partner)/255`` less the mean, divided by the deviation, is computed as
``(lerp(partner - high, x - high, w) - low) * scale``, where ``high + low`` is ``255*mean`` and ``high`` has
so few bits that ``x - high`` is exact, even in float32: no digits are lost near the mean. A float32 result is
computed in float64, where the device has it, and is then within one unit in its last place; half precision is
computed in float32. The loops of ``cpu`` compute the same, to the bit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from batchmix.errors import MixError
from batchmix.kernels.blocks import weights_of
from batchmix.kernels.layout import fresh_like, is_dense, is_watched, layout_of, widest_on

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
STEPS = 1024  # parts of a grey level that `high` is rounded to: 8 bits before the point, 10 behind it
GROUP = 1 << 18  # values at a time: a few operands of float32 stay in the cache
GROUP_ELSEWHERE = 1 << 22  # on other devices: enough to keep one busy, and 100 MB where they are float64


class Constants(NamedTuple):
    """One number a channel each."""

    high: Tensor
    low: Tensor
    scale: Tensor


def constants(
    mean: Sequence[float], std: Sequence[float], channels: int, device: torch.device, dtype: torch.dtype
) -> Constants:
    """What a mean and a standard deviation in [0, 1] are in grey levels; not to be written to.

    Raises:
        MixError: If there is not one mean and std a channel.
    """
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise MixError(f"{name} takes one number a channel: {channels}, got {len(values)}")
    make = _make_constants if torch.compiler.is_compiling() else _constants
    return make(tuple(mean), tuple(std), device, dtype)


def check_dtype(dtype: torch.dtype) -> None:
    """Raise a MixError unless images can be normalised to ``dtype``."""
    if dtype not in FLOATS:
        raise MixError.of("dtype", dtype, "torch.float32, torch.bfloat16 or torch.float16")


def computed_in(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The precision to compute a result of ``dtype`` in."""
    return widest_on(device) if dtype == torch.float32 else torch.float32


def check_images(
    x: Tensor,
    mask: Tensor | None,
    mean: Sequence[float],
    std: Sequence[float],
    out: Tensor | None,
    dtype: torch.dtype,
) -> Constants:
    """The constants for a kernel that goes through memory, or a MixError where it cannot write to ``out``."""
    check_dtype(dtype)
    normal = constants(mean, std, x.shape[1], x.device, computed_in(dtype, x.device))
    if out is not None and (out.dtype != dtype or layout_of([x, out], mask, by_channel=True) is None):
        raise MixError("out takes memory of the shape, the memory format and the dtype of the result")
    return normal


def mix_images(
    x: Tensor,
    partner: Tensor | None,
    lam: Tensor | None,
    mask: Tensor | None = None,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    other: Tensor | None = None,
    out: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """``cpu.mix_images`` with torch's operations: on any device, of any strides, also under a compiler.

    Some rows at a time, so that what is in between stays in a CPU's cache and takes little of a GPU's memory.
    ``partner`` None normalises.
    """
    check_dtype(dtype)
    wide = computed_in(dtype, x.device)
    shape = (x.shape[1], *[1] * (x.dim() - 2))
    normal = Constants(*(part.view(shape) for part in constants(mean, std, x.shape[1], x.device, wide)))
    other = x if other is None else other
    weight = None if lam is None else weights_of(x, lam, mask)
    if weight is not None and weight.dtype != torch.bool:
        weight = weight.float().to(wide)  # as float32 the product with a grey level is exact in float64

    def group(first: int, last: int) -> Tensor:
        rows = slice(first, last)
        own_weight = weight if weight is None or len(weight) == 1 < len(x) else weight[rows]
        mates = None if partner is None else other[partner[rows]]
        return _normalised(x[rows], mates, own_weight, normal, wide)

    used = [part for part in (x, other, partner, lam, mask, out) if part is not None]
    in_groups = not torch.compiler.is_compiling() and not is_watched(used) and all(map(is_dense, used))
    if not in_groups:
        result = group(0, len(x)).to(dtype)
        return result if out is None else out.copy_(result)
    result = fresh_like(x, dtype) if out is None else out
    values = GROUP if x.device.type == "cpu" else GROUP_ELSEWHERE
    size = max(1, values // max(1, math.prod(x.shape[1:])))
    for first in range(0, len(x), size):
        result[first : first + size] = group(first, first + size)
    return result


def _normalised(
    x: Tensor, mates: Tensor | None, weight: Tensor | None, normal: Constants, wide: torch.dtype
) -> Tensor:
    """Some rows, in the precision that they are computed in."""
    if weight is not None and mates is not None and weight.dtype == torch.bool:
        x, mates = torch.where(weight, x, mates), None
    mixed = x.to(wide).sub_(normal.high)
    if weight is not None and mates is not None:
        mixed = torch.lerp(mates.to(wide).sub_(normal.high), mixed, weight)
    return mixed.sub_(normal.low).mul_(normal.scale)


def _make_constants(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> Constants:
    high = [round(255 * part * STEPS) / STEPS for part in mean]
    low = [255 * part - rounded for part, rounded in zip(mean, high, strict=True)]
    scale = [1 / (255 * part) for part in std]
    if torch.compiler.is_compiling():  # made where they are read, at each step: a graph replays no copy
        return Constants(*(_filled(part, device, dtype) for part in (high, low, scale)))
    parts = (torch.tensor(part, dtype=torch.float64, device="cpu").to(dtype) for part in (high, low, scale))
    # Copied once, which is waited for: the next to read them may be another stream.
    return Constants(*(part.to(device) for part in parts))


_constants = functools.lru_cache(maxsize=64)(_make_constants)  # so that they are copied to a device once


def _filled(numbers: Sequence[float], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.cat([torch.full((1,), number, dtype=dtype, device=device) for number in numbers])
