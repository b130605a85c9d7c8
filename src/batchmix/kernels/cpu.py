"""Mixing on the CPU in one pass over memory, with numba where it is installed.

``can_mix`` says whether ``mix`` takes a call; the result then has the bits of the plain tensor operations.
``mix_images`` goes from uint8 images to normalised, mixed floats in one pass, with the bits of ``pixels``.
Neither takes part in autograd. ``why_not`` is the same question for whoever named this kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from batchmix.kernels import team
from batchmix.kernels.fused import fuse, loops
from batchmix.kernels.layout import is_plain, is_watched, layout_of, may_write
from batchmix.kernels.pixels import check_images

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SMALLEST = 1 << 18  # bytes of a batch; below, a call costs more than it saves
SHORTEST = 128  # places of a soft mask; a call for each plane of a row costs more than fewer of them save
SMALLEST_MASKS = 1 << 14  # places of all masks; the least that belong to such a batch of three channels
SHARED = 32  # times as much where torch's own operations have several threads that the loops do not have


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
    smallest = SMALLEST * (SHARED if torch.get_num_threads() > 1 and not team.is_there() else 1)
    if x.nbytes < smallest or _in_short_runs(x, mask):
        return False
    return why_not(x, partner, lam, mask, other=other, out=out) is None


def why_not(
    x: Tensor,
    partner: Tensor,
    lam: Tensor,
    mask: Tensor | None = None,
    *,
    other: Tensor | None = None,
    out: Tensor | None = None,
) -> str | None:
    """What is in the way of ``mix``, whatever the size; None where it takes these."""
    tensors = [tensor for tensor in (x, other, out, partner, lam, mask) if tensor is not None]
    images = [tensor for tensor in (x, other, out) if tensor is not None]
    if x.dtype not in FLOATS or any(image.dtype != x.dtype for image in images):
        return f"samples of {x.dtype}"
    reason = _why_torch(tensors, mask)
    if reason is not None:
        return reason
    if x.numel() and layout_of(images, mask) is None:
        return "samples, or a mask, that do not lie in memory without gaps and in one order"
    if out is not None and not may_write(out, x, other):
        return "memory to write that overlaps with what is read"
    module = loops()
    if module is None:
        return "no numba that is installed and compiles"
    return None if x.dtype != torch.float16 or module.HAS_FLOAT16 else "a processor without float16"


def _in_short_runs(x: Tensor, mask: Tensor | None) -> bool:
    """Whether few values that a soft mask weighs lie side by side; channels last, each weight has several."""
    if mask is None or mask.dtype == torch.bool or math.prod(mask.shape[2:]) >= SHORTEST:
        return False
    layout = layout_of([x], mask)
    return layout is not None and layout.inner == 1


def _why_torch(tensors: list[Tensor], mask: Tensor | None) -> str | None:
    """Why torch has to see the operations, or to do them."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return "a compiler that looks on"
    if any(type(tensor) is not Tensor for tensor in tensors):
        return "a subclass of Tensor"
    if is_watched(tensors):
        return "gradients, or a mode of torch that looks on"
    if any(not is_plain(tensor) for tensor in tensors):
        return "tensors elsewhere than in the CPU's memory"
    if mask is not None and mask.dtype not in (torch.bool, torch.float32, torch.float64):
        return f"a mask of {mask.dtype}"
    return None


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
    return fuse(x, partner, lam, mask, x if other is None else other, out)


def can_cut(boxes: Tensor, size: tuple[int, ...]) -> bool:
    """Whether ``cut_out`` takes these, and gains."""
    if len(boxes) * math.prod(size) < SMALLEST_MASKS or not 1 <= len(size) <= 2:
        return False
    return _why_torch([boxes], None) is None and loops() is not None


def cut_out(boxes: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """``core.boxes.box_masks`` for what ``can_cut`` takes: each place is written once, or twice in a box."""
    mask = torch.empty(len(boxes), 1, *size, dtype=torch.bool, device="cpu")
    lam = torch.empty(len(boxes), dtype=torch.float32, device="cpu")
    if len(size) == 1:  # a series is an image of one row
        boxes = torch.cat((torch.tensor([0, 1], device="cpu").expand(len(boxes), 2), boxes), 1)
    places = mask.view(torch.uint8).flatten().numpy()
    loops().cut_out(boxes.flatten().numpy(), places, lam.numpy(), math.prod(size[:-1]), size[-1])
    return mask, lam


def why_not_images(
    x: Tensor, mask: Tensor | None = None, *, other: Tensor | None = None, out: Tensor | None = None
) -> str | None:
    """What is in the way of ``mix_images``; None for uint8, (B, C, ...), contiguous or channels last."""
    images = [image for image in (x, other) if image is not None]
    if x.dim() < 2 or any(image.dtype != torch.uint8 for image in images):
        return f"samples of {x.dtype}"
    reason = _why_torch([part for part in (*images, out, mask) if part is not None], mask)
    if reason is not None:
        return reason
    written = images if out is None else [*images, out]
    if x.numel() and layout_of(written, mask, by_channel=True) is None:
        return "images, or a mask, that lie in memory neither contiguous nor with their channels last"
    if out is not None and (not may_write(out, x, other) or out.data_ptr() == x.data_ptr()):
        return "memory to write that overlaps with what is read"
    return None if loops() is not None else "no numba that is installed and compiles"


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

    A float32 result is within one unit in the last place; half precision is rounded once. ``pixels`` says
    how.

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
    normal = check_images(x, mask, mean, std, out, dtype)
    return fuse(x, partner, lam, mask, x if other is None else other, out, normal, dtype)
