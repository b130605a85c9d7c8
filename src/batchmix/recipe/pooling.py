"""2x2 max pooling that remembers in a byte which of its four values was the largest.

Torch keeps an int64 for each, and goes over the gradient twice: once to fill it with zeros, once to add what
comes back.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

from batchmix.kernels import fused, selected
from batchmix.kernels.threads import share
from batchmix.recipe import gpu_pool


def max_pool(x: Tensor) -> Tensor:
    """``F.max_pool2d(x, 2)``: the largest value of each 2x2 square, (B, C, H, W) to (B, C, H // 2, W // 2).

    Channels last and bound for a backward, bfloat16 on a CPU goes through loops of our own where there is
    numba, and up to float32 on a GPU through a kernel of our own where Triton works; the values and the
    gradients are those of torch. Naming torch's kernel keeps to torch's pooling, but in compiled code, where
    no name is read.
    """
    if gpu_pool.can_pool(x) and (torch.compiler.is_compiling() or selected.current() != "torch"):
        return gpu_pool.pool(x)
    if (
        x.device.type == "cpu"
        and x.dtype == torch.bfloat16
        and x.requires_grad
        and x.is_contiguous(memory_format=torch.channels_last)
        and min(x.shape) >= 2
        and not torch.compiler.is_compiling()
        and selected.current() != "torch"
        and _loops() is not None
    ):
        pooled: Tensor = _MaxPool.apply(x)  # type: ignore[no-untyped-call]
        return pooled
    return F.max_pool2d(x, 2)


class _MaxPool(torch.autograd.Function):
    """``max_pool`` and its gradient, which has none itself: to ask for one is an error."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        out = x.new_empty(batch, height // 2, width // 2, channels).permute(0, 3, 1, 2)
        place = torch.empty(batch, height // 2, width // 2, channels, dtype=torch.uint8)
        _share(_loops().pool_rows, out, _words(x), _words(out), place.numpy())
        ctx.save_for_backward(place)
        ctx.like = x.shape  # type: ignore[attr-defined]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        (place,) = ctx.saved_tensors  # type: ignore[attr-defined]
        batch, channels, height, width = ctx.like  # type: ignore[attr-defined]
        above = gradients[0].contiguous(memory_format=torch.channels_last)
        result = above.new_empty(batch, height, width, channels).permute(0, 3, 1, 2)
        _share(_loops().spread_rows, above, _words(above), place.numpy(), _words(result))
        return result


def _share(loop: Any, pooled: Tensor, *arguments: Any) -> None:
    """Run a loop over the rows of the pooled images, with torch's threads."""
    units = pooled.shape[0] * pooled.shape[2]
    share(loop, _loops().BY_TEAM[loop], units, torch.get_num_threads(), *arguments)


def _words(x: Tensor) -> Any:
    """A bfloat16 batch, channels last, as an array (B, H, W, C) of its bits."""
    return x.detach().permute(0, 2, 3, 1).view(torch.uint16).numpy()


@functools.cache
def _loops() -> Any:
    """The compiled loops; None where numba is missing or switched off."""
    return None if fused.loops() is None else importlib.import_module("batchmix.recipe.pool_loops")
