"""Mixing on a GPU in one pass over memory, with Triton: ``cpu``'s functions for tensors on a CUDA device.

Nothing here waits for the device but the first call of a kind, which compiles and measures. A call can be
captured in a CUDA graph once it has been made with the same shapes and strides: before that Triton may have
to compile, which cannot be captured. The results have the bits of torch's operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from batchmix.kernels.launching import OPTIONS, Config, choose, kernels, on, why_torch
from batchmix.kernels.layout import Layout, check_layout, fresh_like, layout_of, may_write, row_stride
from batchmix.kernels.pixels import Constants, check_images

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
CONFIGS = (Config(2048, 4), Config(1024, 4), Config(4096, 8), Config(4096, 4))
CONFIGS_IN_PLACE = (Config(8192, 8), Config(4096, 4), Config(16384, 16))
ROWS_IN_PLACE = 1024  # more do not fit in a program's registers
LINE = 16  # values of a row that a program reads at least: fewer would waste what memory brings


def why_not(
    x: Tensor,
    partner: Tensor,
    lam: Tensor,
    mask: Tensor | None = None,
    *,
    other: Tensor | None = None,
    out: Tensor | None = None,
) -> str | None:
    """What is in the way of ``mix``; None where it takes these, for which the first call compiles.

    Something is wherever torch has to see the operations: under autograd, tracing, compilation, torch.func,
    and for subclasses of Tensor.
    """
    images = [image for image in (x, other, out) if image is not None]
    if x.dtype not in FLOATS or any(image.dtype != x.dtype for image in images):
        return f"samples of {x.dtype}"
    reason = _why_memory(images, [partner, lam], mask, by_channel=False)
    if reason is None and out is not None and not may_write(out, x, other):
        return "memory to write that overlaps with what is read"
    return reason


def mix(
    x: Tensor,
    partner: Tensor,
    lam: Tensor,
    mask: Tensor | None = None,
    *,
    other: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """``w*x[i] + (1-w)*other[partner[i]]`` for every row, where ``why_not`` has no reason.

    Where ``out`` is ``x``, up to 1024 rows are mixed where they lie: a program reads its columns of all of
    them before it writes, so that the partners need not be a permutation. More rows take a copy of the batch.

    Args:
        x: (B, ...), floating point, on a GPU.
        partner: (B,) int64, rows of ``other``. One out of range stops the device, as in torch: to raise an
            error would be to wait for it.
        lam: (B,) float32, the weight of the sample itself; not read where there is a mask.
        mask: (B or 1, 1, ...) over the last dimensions: weights of each position, or booleans for a paste.
        other: Like ``x``; ``x`` itself if left out.
        out: Like ``x``, or ``x`` itself; new memory if left out.

    Returns:
        ``out``, or a new tensor with the memory format of ``x``.
    """
    layout = check_layout(x, mask, by_channel=False)
    result = fresh_like(x) if out is None else out
    in_place = other is None or other is x
    in_place = in_place and result.data_ptr() == x.data_ptr() and x.numel() > 0
    if not in_place:
        _mix_rows(x, x if other is None else other, result, partner, lam, mask, layout)
    elif len(x) <= ROWS_IN_PLACE:
        _mix_in_place(result, partner, lam, mask, layout)
    else:
        result.copy_(mix(x, partner, lam, mask))
    return _written(result)


def why_not_images(
    x: Tensor, mask: Tensor | None = None, *, other: Tensor | None = None, out: Tensor | None = None
) -> str | None:
    """What is in the way of ``mix_images``; None for uint8, (B, C, ...), contiguous or channels last."""
    images = [image for image in (x, other) if image is not None]
    if x.dim() < 2 or any(image.dtype != torch.uint8 for image in images):
        return f"samples of {x.dtype}"
    reason = _why_memory(images if out is None else [*images, out], [], mask, by_channel=True)
    if (
        reason is None
        and out is not None
        and (not may_write(out, x, other) or out.data_ptr() == x.data_ptr())
    ):
        return "memory to write that overlaps with what is read"
    return reason


def mix_images(
    x: Tensor,
    partner: Tensor,
    lam: Tensor,
    mask: Tensor | None = None,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    other: Tensor | None = None,
    out: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Mix uint8 images and normalise them, ``(x/255 - mean)/std``, in one pass, as ``pixels`` says.

    Args:
        x: (B, C, ...) uint8, on a GPU.
        partner: (B,) int64, rows of ``other``; one out of range stops the device.
        lam: (B,) float32, the weight of the sample itself; not read where there is a mask.
        mask: (B or 1, 1, ...) over the last dimensions: weights of each position, or booleans for a paste.
        mean: Of each channel, images being in [0, 1].
        std: Of each channel, the same, above 0.
        other: Like ``x``; ``x`` itself if left out.
        out: Of the shape and memory format of ``x``, of ``dtype``; new memory if left out.
        dtype: float32, bfloat16 or float16.

    Returns:
        ``out``, or a new tensor with the memory format of ``x``.

    Raises:
        MixError: If there is not one mean and std a channel.
    """
    normal = check_images(x, mask, mean, std, out, dtype)
    result = fresh_like(x, dtype) if out is None else out
    layout = check_layout(x, mask, by_channel=True)
    if mask is not None and mask.is_floating_point():
        mask = mask.float()  # so that its product with a grey level is exact in float64
    _mix_rows(x, x if other is None else other, result, partner, lam, mask, layout, normal)
    return _written(result)


# What is done


def _why_memory(
    images: list[Tensor], others: list[Tensor], mask: Tensor | None, *, by_channel: bool
) -> str | None:
    """Why Triton cannot work on the memory of these."""
    reason = why_torch([*images, *others] if mask is None else [*images, *others, mask])
    if reason is not None:
        return reason
    if mask is not None and mask.dtype not in (torch.bool, torch.float32, torch.float64):
        return f"a mask of {mask.dtype}"
    if layout_of(images, mask, by_channel=by_channel) is None:
        return "samples, or a mask, that do not lie in memory without gaps and in one order"
    return None


class _Weights(NamedTuple):
    """What a kernel is told of weights."""

    lam: Tensor
    mask: Tensor  # any tensor where there is none
    step: int  # from the mask of one row to that of the next
    kind: int  # NONE, WEIGHTS or PASTE of triton_blend


def _weights(lam: Tensor, mask: Tensor | None) -> _Weights:
    lam = lam.detach().contiguous()
    if mask is None:
        return _Weights(lam, lam, 0, 0)
    values, step = mask.detach().contiguous(), 0 if len(mask) == 1 else math.prod(mask.shape[1:])
    if mask.dtype == torch.bool:
        return _Weights(lam, values.view(torch.uint8), step, 2)
    return _Weights(lam, values, step, 1)


def _mix_rows(
    x: Tensor,
    other: Tensor,
    out: Tensor,
    partner: Tensor,
    lam: Tensor,
    mask: Tensor | None,
    layout: Layout,
    normal: Constants | None = None,
) -> None:
    """From ``x`` and ``other`` into memory apart from them, or into ``x`` if ``other`` is apart."""
    if x.numel() == 0:
        return
    planes, span, inner = layout
    weights = _weights(lam, mask)
    high, low, scale = (weights.lam,) * 3 if normal is None else normal
    wide = kernels().FLOAT64 if torch.float64 in (x.dtype, scale.dtype) else kernels().FLOAT32
    partner = partner.detach().contiguous()
    tensors = (x, other, partner, weights.lam, weights.mask, high, low, scale)
    sizes = (len(x), len(other), planes, span, max(1, planes // x.shape[1]) if x.dim() > 1 else 1)

    def launch(config: Config, onto: Tensor) -> None:
        block = min(config.values, _power_of_two(span))
        group = min(config.values // block, _power_of_two(planes))
        programs = len(x) * math.ceil(planes / group) * math.ceil(span / block)
        steps = (row_stride(onto), row_stride(x), row_stride(other), weights.step)
        kernels().mix_rows[(programs,)](
            onto, *tensors, *sizes, *steps, kind=weights.kind, normal=normal is not None, wide=wide,
            inner=inner, group=group, block=block, num_warps=config.warps, **OPTIONS,
        )  # fmt: skip

    _launch(launch, CONFIGS, x, out, weights, layout)


def _mix_in_place(x: Tensor, partner: Tensor, lam: Tensor, mask: Tensor | None, layout: Layout) -> None:
    """Into the memory of ``x``, of which each program has some columns."""
    planes, span, inner = layout
    weights = _weights(lam, mask)
    partner = partner.detach().contiguous()
    double = x.dtype == torch.float64
    wide = kernels().FLOAT64 if double else kernels().FLOAT32
    group = _power_of_two(len(x))

    def launch(config: Config, onto: Tensor) -> None:
        block = max(LINE, min(config.values // group, _power_of_two(span)))
        block = block // 2 if double else block  # in as many registers
        kernels().mix_in_place[(planes * math.ceil(span / block),)](
            onto, partner, weights.lam, weights.mask, len(x), span, row_stride(onto), weights.step,
            kind=weights.kind, wide=wide, inner=inner, group=group, block=block,
            num_warps=config.warps, **OPTIONS,
        )  # fmt: skip

    _launch(launch, CONFIGS_IN_PLACE, x, x, weights, layout)


def _launch(
    launch: Callable[[Config, Tensor], None],
    configs: Sequence[Config],
    x: Tensor,
    out: Tensor,
    weights: _Weights,
    layout: Layout,
) -> None:
    """On the device of ``x``, as is fastest for calls of this kind and about this size."""
    sizes = (len(x).bit_length(), layout.planes.bit_length(), layout.span.bit_length())
    key = (x.device, configs, x.dtype, out.dtype, weights.kind, layout.inner, *sizes)

    def rehearsal() -> Callable[[Config], None]:
        over_x = out.data_ptr() == x.data_ptr()  # mixed more than once, it would be another batch
        onto = torch.empty_like(out) if over_x else out
        return lambda config: launch(config, onto)

    with on(x.device):
        launch(choose(key, configs, x.device, rehearsal), out)


def _written(out: Tensor) -> Tensor:
    if not out.is_inference():
        torch.autograd.graph.increment_version(out)  # autograd has to know that it was written
    return out


def _power_of_two(size: int) -> int:
    """The next one from ``size`` on, which Triton's blocks have to be."""
    return 1 << (size - 1).bit_length()
