"""What lies where: whether a tensor's memory can be worked on as it is, and how it is laid out."""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from batchmix.errors import MixError

HUGE_PAGE = 1 << 21
MADV_HUGEPAGE = 14  # of Linux


class Layout(NamedTuple):
    """A row in memory: ``planes`` of ``span`` values, ``inner`` of them to each place of the mask."""

    planes: int
    span: int
    inner: int


# What is taken


def is_watched(tensors: Sequence[Tensor]) -> bool:
    """Whether something has to see each operation: autograd of either kind, or a mode such as FakeTensor."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    return torch.autograd.forward_ad._current_level >= 0 or torch._C._len_torch_dispatch_stack() > 0


def is_seen() -> bool:
    """Whether somebody looks at each operation: a compiler, a tracer, a mode, a transform of torch.func."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
        or is_watched(())
    )


def is_plain(tensor: Tensor) -> bool:
    """Whether the values lie in the CPU's memory as they are."""
    return tensor.device.type == "cpu" and is_dense(tensor)


def is_dense(tensor: Tensor) -> bool:
    """Whether the values lie in memory as they are, on whatever device."""
    if tensor.layout != torch.strided or tensor.is_neg():
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def widest_on(device: torch.device) -> torch.dtype:
    """Float64, or float32 where a device may lack it: Apple's GPUs do, and some of Intel's."""
    return torch.float64 if device.type in ("cpu", "cuda", "meta") else torch.float32


def layout_of(images: Sequence[Tensor], mask: Tensor | None, *, by_channel: bool = False) -> Layout | None:
    """How the rows of all ``images`` lie in memory, or None where they differ or have gaps."""
    x = images[0]
    order = _dense_order(x)
    for image in images:
        if image.shape[1:] != x.shape[1:] or (image is not x and _dense_order(image) != order):
            return None
    if order is None:
        return None
    size = math.prod(x.shape[1:])
    if mask is None and not by_channel:
        return Layout(1, size, 1)
    places = size // max(1, x.shape[1]) if mask is None else math.prod(mask.shape[2:])
    if mask is not None and mask.shape[1] != 1:
        return None
    if order == sorted(order):
        return Layout(size // max(1, places), places, 1)
    channels_last = order[-1] == 1 and order[:-1] == sorted(order[:-1])
    if channels_last and (mask is None or mask.dim() == x.dim()):
        return Layout(1, size, x.shape[1])
    return None


def check_layout(x: Tensor, mask: Tensor | None, *, by_channel: bool) -> Layout:
    """``layout_of`` one batch, or a MixError where it has none."""
    layout = layout_of([x], mask, by_channel=by_channel)
    if layout is None:
        raise MixError("x takes samples that lie in memory without gaps, in the order of the mask")
    return layout


def _dense_order(x: Tensor) -> list[int] | None:
    """Dimensions of a sample from the outermost in memory to the innermost, or None if there are gaps."""
    by_stride = sorted((-x.stride(dim), dim) for dim in range(1, x.dim()) if x.shape[dim] != 1)
    expected = 1
    for stride, dim in reversed(by_stride):
        if -stride != expected:
            return None
        expected *= x.shape[dim]
    return [dim for _, dim in by_stride]


def may_write(out: Tensor, x: Tensor, other: Tensor | None) -> bool:
    """Whether ``out`` has a place for every value, and is ``x`` itself or apart from what is read."""
    if len(out) > 1 and out.stride(0) < math.prod(out.shape[1:]):
        return False
    in_place = (out.data_ptr(), out.stride()) == (x.data_ptr(), x.stride())
    sources = [source for source in (x, other) if source is not None and not (in_place and source is x)]
    return all(_end(out) <= source.data_ptr() or _end(source) <= out.data_ptr() for source in sources)


def _end(x: Tensor) -> int:
    """The address behind the last value."""
    if x.numel() == 0:
        return x.data_ptr()
    last = sum((length - 1) * step for length, step in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr() + (last + 1) * x.element_size()


def row_stride(x: Tensor) -> int:
    """Values from the start of a row to the start of the next."""
    return x.stride(0) if len(x) > 1 else math.prod(x.shape[1:])


def flat(x: Tensor, *, raw: bool = False) -> Any:
    """The memory of a batch as one array, without a copy.

    Args:
        x: What ``layout_of`` has a layout for, not empty.
        raw: As unsigned integers of the same width; else bfloat16 becomes uint16 and float16 int16.
    """
    length = (len(x) - 1) * row_stride(x) + math.prod(x.shape[1:])
    line = x.detach().as_strided((length,), (1,))
    if x.dtype in (torch.bfloat16, torch.float16):
        line = line.view(torch.int16)
    values = line.numpy()
    return values.view(f"u{x.element_size()}") if raw or x.dtype == torch.bfloat16 else values


def fresh_like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Memory like that of ``x``, in huge pages where Linux has them: small ones cost more than the mixing.

    Rows that overlap, as windows do, are laid one behind the other: torch would lay each in another order.
    """
    size = math.prod(x.shape[1:])
    if len(x) > 1 and x.stride(0) < size and _dense_order(x) is not None:
        strides = (size, *x.stride()[1:])
        new = torch.empty_strided(x.shape, strides, dtype=dtype or x.dtype, device=x.device)
    else:
        new = torch.empty_like(x, dtype=dtype)
    if new.device.type != "cpu":
        return new
    begin = -(-new.data_ptr() // HUGE_PAGE) * HUGE_PAGE
    length = (new.data_ptr() + new.nbytes) // HUGE_PAGE * HUGE_PAGE - begin
    advise = _madvise()
    if length > 0 and advise is not None:
        advise(begin, length, MADV_HUGEPAGE)  # advice: a refusal changes nothing
    return new


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    if sys.platform != "linux":
        return None
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return advise
