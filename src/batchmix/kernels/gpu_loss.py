"""Cross entropy with two labels a row on a GPU, with Triton: logits are read once forward and once backward.

``can_fuse`` says whether ``cross_entropy`` takes a call. Nothing waits for the device; a call can be captured
in a CUDA graph once it has been made with the same shapes and strides, for which Triton compiles. For the
gradient the logits themselves are kept, with two numbers a row: autograd has an error for who overwrites them
before.
"""

from __future__ import annotations

import functools
import importlib
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from batchmix.kernels.cross_entropy import gradient_in_steps
from batchmix.kernels.launching import OPTIONS, on, why_not_here
from batchmix.kernels.layout import is_seen

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
PLAIN = (Tensor, nn.Parameter)
VALUES = 4096  # of a program at a time
FEW = 1024  # where several rows share a program


def can_fuse(
    logits: Tensor,
    a: Tensor,
    b: Tensor,
    lam: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> bool:
    """Whether ``cross_entropy`` takes these: (B, K) logits on a GPU, class ids, no weights of classes.

    False wherever torch has to see each operation (tracing, compilation, torch.func, forward-mode
    derivatives, subclasses of Tensor), and where ``lam`` needs a gradient.
    """
    if weight is not None or not 0 <= label_smoothing <= 1 or reduction not in ("mean", "sum", "none"):
        return False
    if (
        logits.dtype not in FLOATS
        or a.dtype not in INTEGERS
        or a.dtype != b.dtype
        or lam.dtype != torch.float32
    ):
        return False
    if logits.dim() != 2 or logits.numel() == 0 or not logits.shape[:1] == a.shape == b.shape == lam.shape:
        return False
    if type(logits) not in PLAIN or any(type(tensor) is not Tensor for tensor in (a, b, lam)) or lam.is_neg():
        return False
    if any(
        tensor.layout != torch.strided or tensor.device != logits.device for tensor in (logits, a, b, lam)
    ):
        return False
    needs_lam = lam.requires_grad and torch.is_grad_enabled()
    return not needs_lam and not is_seen() and not logits.is_neg() and why_not_here(logits.device) is None


def cross_entropy(
    logits: Tensor,
    a: Tensor,
    b: Tensor,
    lam: Tensor,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """``lam*CE(logits, a) + (1-lam)*CE(logits, b)``, for what ``can_fuse`` takes.

    Args:
        logits: (B, K), floating point, on a GPU.
        a: (B,) labels of the samples. One that is no class stops the device, as in torch.
        b: (B,) those of their partners.
        lam: (B,) float32, the weight of ``a``.
        weight: None.
        ignore_index: A label that counts nothing.
        reduction: "mean" divides by the sum of the weights of all labels that count; "sum", "none".
        label_smoothing: The part of the loss that is the mean over all classes, in [0, 1].

    Returns:
        0-d or (B,), in the dtype of ``logits``; half precision under autocast gives float32.
    """
    options = _Options(ignore_index, reduction, label_smoothing)
    if logits.requires_grad and torch.is_grad_enabled():
        return _CrossEntropy.apply(logits, a, b, lam, options)  # type: ignore[no-untyped-call, no-any-return]
    return _forward(logits, a, b, lam, options)[0]


class _Options(NamedTuple):
    ignore_index: int
    reduction: str
    label_smoothing: float


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, a: Tensor, b: Tensor, lam: Tensor, options: _Options) -> Tensor:
        loss, parts, count = _forward(logits, a, b, lam, options)
        ctx.save_for_backward(logits, a, b, lam, parts, count)
        ctx.options = options
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        logits, a, b, lam, parts, count = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to have derivatives itself
            index, reduction, smoothing = ctx.options
            unit = count.reciprocal() if reduction == "mean" else count.new_ones(())
            gradient = gradient_in_steps(grad, logits, a, b, lam, unit, index, smoothing)
        else:
            gradient = _backward(grad, logits, a, b, lam, parts, count, ctx.options)
        return gradient, None, None, None, None


def _forward(
    logits: Tensor, a: Tensor, b: Tensor, lam: Tensor, options: _Options
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, what the kernel has found of each row, and the weight of all labels that count."""
    rows, classes = logits.shape
    parts = torch.empty((4, rows), dtype=torch.float32, device=logits.device)
    group, block, warps = _blocks(rows, classes)
    with on(logits.device):
        _kernels().losses[(math.ceil(rows / group),)](
            parts, logits, a, b, lam, rows, classes, *logits.stride(),
            a.stride(0), b.stride(0), lam.stride(0), options.ignore_index, float(options.label_smoothing),
            smooth=options.label_smoothing != 0, group=group, block=block, num_warps=warps, **OPTIONS,
        )  # fmt: skip
    total, count = parts[:2].sum(1).unbind() if options.reduction == "mean" else (parts[0], parts[1])
    if options.reduction == "mean":
        loss = total / count
    else:
        # A copy: nobody could write to a view of what is kept for the backward.
        loss = total.sum() if options.reduction == "sum" else total.clone()
    cast = logits.dtype != torch.float32 and torch.is_autocast_enabled(logits.device.type)
    return loss if cast else loss.to(logits.dtype), parts, count


def _backward(
    grad: Tensor,
    logits: Tensor,
    a: Tensor,
    b: Tensor,
    lam: Tensor,
    parts: Tensor,
    count: Tensor,
    options: _Options,
) -> Tensor:
    rows, classes = logits.shape
    gradient = torch.empty_like(logits)
    group, block, warps = _blocks(rows, classes)
    with on(logits.device):
        _kernels().gradients[(math.ceil(rows / group) * math.ceil(classes / block),)](
            gradient, grad, count, parts, logits, a, b, lam, rows, classes, *gradient.stride(),
            grad.stride(0) if grad.dim() else 0, *logits.stride(), a.stride(0), b.stride(0), lam.stride(0),
            options.ignore_index, float(options.label_smoothing),
            mean=options.reduction == "mean", group=group, block=block, num_warps=warps, **OPTIONS,
        )  # fmt: skip
    return gradient


def _blocks(rows: int, classes: int) -> tuple[int, int, int]:
    """Rows and columns of a program, and its warps: many rows of few classes, or one row of many."""
    block = min(VALUES, 1 << (classes - 1).bit_length())
    group = max(1, min(FEW // block, 1 << (rows - 1).bit_length()))
    return group, block, 8 if group * block >= VALUES else 4


@functools.cache
def _kernels() -> Any:
    return importlib.import_module("batchmix.kernels.triton_loss")
