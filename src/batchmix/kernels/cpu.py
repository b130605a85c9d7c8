"""Mixing on the CPU in one pass over memory, with numba where it is installed.

``can_mix`` says whether ``mix`` takes a call; the result then has the bits of the plain tensor operations.
``mix_images`` goes from uint8 images to normalised, mixed floats in one pass; no method offers it yet.
Neither takes part in autograd.
"""

from __future__ import annotations

import functools
import importlib
import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from batchmix.errors import MixError
from batchmix.kernels.layout import (
    Layout,
    flat,
    fresh_like,
    is_plain,
    is_watched,
    layout_of,
    may_write,
    row_stride,
)
from batchmix.kernels.threads import share, threads_for

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SMALLEST = 1 << 18  # bytes of a batch; below, a call costs more than it saves
SHARED = 32  # times as much where torch's own operations have several threads, which gain more there
BLOCK = 1 << 20  # bytes of a row at a time: long enough to be fetched ahead, and still cached when read again
BLOCK_IN_PLACE = 1 << 18  # the row kept from each cycle has to stay in the cache too
BLOCK_NORMALISED = 1 << 11  # values: their scales and shifts lie in the innermost cache
ALL_ROWS = 1 << 19  # bytes of a block of all rows, where rows are read in no order


@functools.cache
def loops() -> Any:
    """The compiled loops, or None where numba is missing, does not fit NumPy, or is switched off."""
    try:
        importlib.import_module("numba")
        module = importlib.import_module("batchmix.kernels.loops")
        if sys.byteorder != "little" or module.numba.config.DISABLE_JIT:
            return None
        # A first small loop shows whether there is a compiler that works, and room to keep what it makes.
        partner, order, ends = torch.zeros(3, 1, dtype=torch.int64).numpy()
        module.find_cycles(partner, 1, order, ends)
    except (ImportError, OSError, RuntimeError, SystemError):
        return None
    return module


def can_mix(
    x: Tensor,
    partner: Tensor,
    lam: Tensor,
    mask: Tensor | None = None,
    *,
    other: Tensor | None = None,
    out: Tensor | None = None,
) -> bool:
    """Whether ``mix`` takes these, and is likely to be faster than the plain tensor operations.

    False wherever torch has to see the operations: under autograd, tracing, compilation, torch.func, and for
    subclasses of Tensor. Costs microseconds, but for the first call that is true, which imports numba.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    tensors = [tensor for tensor in (x, other, out, partner, lam, mask) if tensor is not None]
    smallest = SMALLEST * (SHARED if torch.get_num_threads() > 1 else 1)
    if x.nbytes < smallest or any(type(tensor) is not Tensor for tensor in tensors):
        return False
    if is_watched(tensors) or any(not is_plain(tensor) for tensor in tensors):
        return False
    images = [tensor for tensor in (x, other, out) if tensor is not None]
    if x.dtype not in FLOATS or any(image.dtype != x.dtype for image in images):
        return False
    if mask is not None and mask.dtype not in (torch.bool, torch.float32, torch.float64):
        return False
    if layout_of(images, mask) is None or (out is not None and not may_write(out, x, other)):
        return False
    module = loops()
    return module is not None and (x.dtype != torch.float16 or module.HAS_FLOAT16)


def mix(
    x: Tensor,
    partner: Tensor,
    lam: Tensor,
    mask: Tensor | None = None,
    *,
    other: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """``w*x[i] + (1-w)*other[partner[i]]`` for every row, for what ``can_mix`` takes.

    Where ``out`` is ``x`` and the partners are a permutation, its cycles are followed and no more than a
    block of a row is kept; a boolean mask then touches nothing but what is pasted.

    Args:
        x: (B, ...), floating point, on the CPU.
        partner: (B,) int64, rows of ``other``.
        lam: (B,) float32, the weight of the sample itself; not read where there is a mask.
        mask: (B or 1, 1, ...) over the last dimensions: weights of each position, or booleans for a paste.
        other: Like ``x``; ``x`` itself if left out.
        out: Like ``x``, or ``x`` itself; new memory if left out.

    Returns:
        ``out``, or a new tensor with the memory format of ``x``.

    Raises:
        MixError: If ``partner`` leads outside of ``other``.
    """
    return _fuse(x, partner, lam, mask, x if other is None else other, out)


def can_mix_images(x: Tensor, mask: Tensor | None = None, *, other: Tensor | None = None) -> bool:
    """Whether ``mix_images`` takes these: uint8, (B, C, ...), contiguous or channels last, with numba."""
    images = [image for image in (x, other) if image is not None]
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or x.dim() < 2:
        return False
    if any(type(image) is not Tensor or image.dtype != torch.uint8 for image in images):
        return False
    tensors = images if mask is None else [*images, mask]
    if is_watched(tensors) or any(not is_plain(tensor) for tensor in tensors):
        return False
    if mask is not None and mask.dtype not in (torch.bool, torch.float32, torch.float64):
        return False
    return layout_of(images, mask, by_channel=True) is not None and loops() is not None


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
    """Mix uint8 images and normalise them, ``(x/255 - mean)/std``, in one pass.

    Computed in float32 and rounded once: in float32 the result is within a few roundings of its largest term.

    Args:
        x: (B, C, ...) uint8, on the CPU.
        partner: (B,) int64, rows of ``other``.
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
        MixError: If ``partner`` leads outside of ``other``, or there is not one mean and std a channel.
    """
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != x.shape[1]:
            raise MixError(f"{name} takes one number a channel: {x.shape[1]}, got {len(values)}")
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise MixError.of("dtype", dtype, "torch.float32, torch.bfloat16 or torch.float16")
    if out is not None and (out.dtype != dtype or layout_of([x, out], mask, by_channel=True) is None):
        raise MixError("out takes memory of the shape, the memory format and the dtype of the result")
    scale = torch.tensor([1 / (255 * s) for s in std], dtype=torch.float32)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32)
    return _fuse(x, partner, lam, mask, x if other is None else other, out, (scale, shift), dtype)


# What is done


def _fuse(
    x: Tensor,
    partner: Tensor,
    lam: Tensor,
    mask: Tensor | None,
    other: Tensor,
    out: Tensor | None,
    normal: tuple[Tensor, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Choose the loop, and give it flat arrays."""
    module, layout = loops(), layout_of([x], mask, by_channel=normal is not None)
    assert layout is not None
    mates, order, ends = _cycles(partner, len(other))
    result = fresh_like(x, dtype) if out is None else out
    if x.numel() == 0:
        return result
    in_place = normal is None and result.data_ptr() == x.data_ptr() and other is x
    if in_place and ends is None:  # a row that several need cannot be overwritten
        x = other = fresh_like(x).copy_(x)
        in_place = False
    if ends is None or other is not x:
        order = torch.arange(len(x)).numpy()

    paste = mask is not None and mask.dtype == torch.bool
    raw = paste and normal is None
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    threads = threads_for(x.nbytes)
    block, units = _blocks(
        x, layout, threads, paste, in_place, normal is not None, other is x and ends is None
    )
    weights: list[Any] = [] if paste else [lam.detach().to(wide).contiguous().numpy()]
    if mask is None:
        weights += [None, 0]
    else:
        values = mask.detach().contiguous()
        values = values.view(torch.uint8) if paste else values.to(wide)
        weights += [values.flatten().numpy(), 0 if len(mask) == 1 else math.prod(mask.shape[1:])]
    shape = (layout.planes, layout.span, layout.inner, block) if paste else (layout.span, layout.inner, block)

    source, target = flat(x, raw=raw), flat(result, raw=raw)
    if in_place:
        loop = module.paste_cycles if paste else module.mix_cycles
        share(loop, units, threads, target, row_stride(result), order, ends, *weights, *shape)
    else:
        loop = module.paste_rows if paste else module.mix_rows
        mate = source if other is x else flat(other, raw=raw)
        strides = (row_stride(x), row_stride(other), row_stride(result))
        patterns = (None, None) if normal is None else _patterns(normal, layout, block)
        share(loop, units, threads, source, mate, target, strides, mates, order, *weights, *shape, *patterns)
    if not result.is_inference():
        torch.autograd.graph.increment_version(result)  # autograd has to know that it was written
    return result


def _cycles(partner: Tensor, rows: int) -> tuple[Any, Any, Any]:
    """Partners, the rows cycle by cycle, and where each cycle ends, None if they are no permutation."""
    mates = partner.detach().contiguous().numpy()
    order, ends = torch.empty(2, rows, dtype=torch.int64).numpy()
    cycles = loops().find_cycles(mates, rows, order, ends)
    if cycles == -2:
        raise MixError(
            f"partner takes rows of the other batch, 0 to {rows - 1}, got {mates.min()} to {mates.max()}"
        )
    return mates, order, None if cycles < 0 else ends[:cycles]


def _blocks(
    x: Tensor, layout: Layout, threads: int, paste: bool, in_place: bool, normalised: bool, scattered: bool
) -> tuple[int, int]:
    """Values of a block, and how many blocks there are to share; no value depends on either."""
    size = (BLOCK_IN_PLACE if in_place else BLOCK) // x.element_size()
    if normalised:
        size = BLOCK_NORMALISED
    elif scattered:
        size = max(1024, ALL_ROWS // (len(x) * x.element_size()))
    planes = 1 if paste else layout.planes
    size = min(size, math.ceil(layout.span * planes / threads), layout.span)
    block = max(1, math.ceil(size / layout.inner)) * layout.inner
    return block, planes * math.ceil(layout.span / block)


def _patterns(normal: tuple[Tensor, Tensor], layout: Layout, block: int) -> tuple[Any, Any]:
    """Scale and shift of every value of a block: one number in each plane, or channel after channel."""
    channels = len(normal[0])
    if layout.inner == 1:
        of_planes = (part.repeat_interleave(layout.planes // channels) for part in normal)
        scale, shift = (part.repeat_interleave(block).numpy() for part in of_planes)
    else:
        scale, shift = (part.repeat(block // channels).numpy() for part in normal)
    return scale, shift
