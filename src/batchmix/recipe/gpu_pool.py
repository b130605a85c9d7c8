"""2x2 max pooling on a GPU that remembers in a byte which of its four values was the largest.

What torch.compile makes of ``F.max_pool2d`` compares, for each value of the images, the places of all windows
that could hold it; going back it is the longest single piece of work of a training step of this recipe.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor

from batchmix.kernels import launching

HAS_TRITON = importlib.util.find_spec("triton") is not None
BLOCK = 1024  # values of a program
LARGEST = 2**31  # values that 32 bits reach
DTYPES = (torch.bfloat16, torch.float16, torch.float32)  # the kernels compare in float32


def can_pool(x: Tensor) -> bool:
    """Whether ``pool`` takes a batch, and gains: one on a GPU, channels last, bound for a backward."""
    return (
        x.device.type == "cuda"
        and x.requires_grad
        and torch.is_grad_enabled()
        and x.dtype in DTYPES
        and x.is_contiguous(memory_format=torch.channels_last)
        and min(x.shape) >= 2
        and x.numel() < LARGEST
        and _triton_works(x.device)
    )


def pool(x: Tensor) -> Tensor:
    """``F.max_pool2d(x, 2)`` and its gradient."""
    pooled: Tensor = torch.ops.batchmix.max_pool(x)[0]
    return pooled


# The work itself


def pooled_and_place(x: Tensor) -> tuple[Tensor, Tensor]:
    """The pooled images (B, C, H // 2, W // 2), and which of its four values each is, as a byte."""
    height, width = x.shape[2:]
    out, place = _like_pooled(x)
    size = {"height": height, "width": width, "channels": x.shape[1], "block": BLOCK}
    with launching.on(x.device):
        _kernels().pool_kernel[_programs(out)](x, out, place, out.numel(), **size)
    return out, place


def spread(above: Tensor, place: Tensor, height: int, width: int) -> Tensor:
    """The gradient (B, C, height, width) of the images, from that of the pooled ones."""
    above = above.contiguous(memory_format=torch.channels_last)
    batch, channels = above.shape[:2]
    result = _channels_last(above, batch, channels, height, width)
    count = batch * channels * ((height + 1) // 2) * ((width + 1) // 2)
    size = {"height": height, "width": width, "channels": channels, "block": BLOCK}
    with launching.on(above.device):
        _kernels().spread_kernel[(-(-count // BLOCK),)](above, place, result, count, **size)
    return result


def _triton_works(device: torch.device) -> bool:
    """Whether Triton's kernels run there; compiled code asks no device, but whether Triton is here."""
    return HAS_TRITON if torch.compiler.is_compiling() else launching.why_not_here(device) is None


def _like_pooled(x: Tensor) -> tuple[Tensor, Tensor]:
    batch, channels, height, width = x.shape
    out = _channels_last(x, batch, channels, height // 2, width // 2)
    return out, torch.empty_like(out, dtype=torch.uint8)


def _channels_last(like: Tensor, batch: int, channels: int, height: int, width: int) -> Tensor:
    return like.new_empty(batch, height, width, channels).permute(0, 3, 1, 2)


def _programs(out: Tensor) -> tuple[int]:
    return (-(-out.numel() // BLOCK),)


@functools.cache
def _kernels() -> Any:
    return importlib.import_module("batchmix.recipe.triton_pool")


# As operators, which torch.compile takes as they are

_max_pool = torch.library.custom_op(
    "batchmix::max_pool", pooled_and_place, mutates_args=(), schema="(Tensor x) -> (Tensor, Tensor)"
)
_max_pool_backward = torch.library.custom_op(
    "batchmix::max_pool_backward",
    spread,
    mutates_args=(),
    schema="(Tensor above, Tensor place, int height, int width) -> Tensor",
)


@_max_pool.register_fake
def _(x: Tensor) -> tuple[Tensor, Tensor]:
    return _like_pooled(x)


@_max_pool_backward.register_fake
def _(above: Tensor, place: Tensor, height: int, width: int) -> Tensor:
    return _channels_last(above, above.shape[0], above.shape[1], height, width)


def _remember(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.size = inputs[0].shape[2:]


def _back(ctx: Any, above: Tensor, _: None) -> Tensor:
    result: Tensor = torch.ops.batchmix.max_pool_backward(above, *ctx.saved_tensors, *ctx.size)
    return result


_max_pool.register_autograd(_back, setup_context=_remember)
