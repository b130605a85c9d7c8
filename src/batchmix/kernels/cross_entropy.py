"""Cross entropy with two labels a row on a CPU, with numba: no log-probabilities, no gradient of a gather.

``can_fuse`` says whether ``cross_entropy`` takes a call. Where every weight is 0 or 1 it is the plain loss of
torch, bit for bit. A batch of ten classes takes torch 50 microseconds, so that every line here counts.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchmix.kernels import fused
from batchmix.kernels.layout import HUGE_PAGE, fresh_like, is_seen
from batchmix.kernels.threads import share, threads_for

FLOATS = frozenset((torch.float32, torch.float64, torch.bfloat16, torch.float16))
HALVES = (torch.bfloat16, torch.float16)
PRICE = 8  # how much longer a byte of logits takes than one that is mixed, for the choice of threads


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
    """Whether ``cross_entropy`` takes these: (B, K) logits on the CPU, class ids, no weights of classes.

    False wherever torch has to see each operation (tracing, compilation, torch.func, forward-mode
    derivatives, subclasses of Tensor), and where ``lam`` needs a gradient.
    """
    if weight is not None or not 0 <= label_smoothing <= 1 or reduction not in ("mean", "sum", "none"):
        return False
    if not (logits.is_cpu and a.is_cpu and b.is_cpu and lam.is_cpu and logits.layout == torch.strided):
        return False
    if logits.dtype not in FLOATS or not a.dtype == b.dtype == torch.int64 or lam.dtype != torch.float32:
        return False
    if type(logits) is not Tensor and type(logits) is not nn.Parameter:
        return False
    if not type(a) is type(b) is type(lam) is Tensor or is_seen():
        return False
    if logits.dim() != 2 or not logits.shape[:1] == a.shape == b.shape == lam.shape:
        return False
    if logits.stride(1) != 1 or logits.numel() == 0 or logits.is_neg() or lam.is_neg():
        return False
    return not (lam.requires_grad and torch.is_grad_enabled()) and _loops(logits.dtype) is not None


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

    Computed in float32, or in float64 for float64, and rounded once. Until the backward pass the logits must
    stay as they are: they are kept for it, in place of log-probabilities.

    Args:
        logits: (B, K), floating point, on the CPU.
        a: (B,) int64, the labels of the samples.
        b: (B,) int64, those of their partners.
        lam: (B,) float32, the weight of ``a``.
        weight: None.
        ignore_index: A label that counts nothing.
        reduction: "mean" divides by the sum of the weights of all labels that count; "sum", "none".
        label_smoothing: The part of the loss that is the mean over all classes, in [0, 1].

    Returns:
        0-d or (B,), in the dtype of ``logits``; half precision under autocast gives float32.

    Raises:
        IndexError: If a label is no class.
    """
    loops, by_row, is_mean = _loops(logits.dtype), reduction == "none", reduction == "mean"
    kept = logits.new_empty(3 * len(logits) + 1, dtype=_wide(logits))
    loss = logits.new_empty(
        len(logits) if by_row else (), dtype=kept.dtype if _is_cast(logits) else logits.dtype
    )
    given = _given(logits, a, b, lam, kept, ignore_index, label_smoothing)
    result = (loss.data_ptr(), loops.LIKE[loss.dtype], by_row)
    threads = threads_for(logits.nbytes * PRICE)
    if threads == 1:
        kind = loops.forward(*given, *result, is_mean)
    else:
        kind = loops.count(*given, is_mean)
        rows = len(logits) if kind == loops.MIXED else 0
        share(loops.fill_losses, loops.losses_by_team, rows, threads, *given)
        loops.write_loss(*given, *result)
    if kind != loops.MIXED:
        return _plain(logits, a, b, lam, kind == loops.PLAIN, ignore_index, reduction, label_smoothing)
    if not (logits.requires_grad and torch.is_grad_enabled()):
        return loss
    rest = (kept, ignore_index, label_smoothing)
    return _CrossEntropy.apply(logits, a, b, lam, (loss, rest))  # type: ignore[no-untyped-call, no-any-return]


class _CrossEntropy(torch.autograd.Function):
    """A loss that has been computed, as a function of the logits.

    Its value comes in a tuple with what the backward pass takes, for autograd would make a view of a tensor.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, a: Tensor, b: Tensor, lam: Tensor, loss_and_rest: tuple[Tensor, Any]
    ) -> Tensor:
        ctx.save_for_backward(logits, a, b, lam)
        loss, ctx.rest = loss_and_rest
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (logits, a, b, lam), (kept, index, smoothing) = ctx.saved_tensors, ctx.rest
        if _is_in_memory(grad):
            gradient = _gradient(grad, logits, a, b, lam, kept, index, smoothing)
        else:
            gradient = gradient_in_steps(grad, logits, a, b, lam, kept[-1], index, smoothing)
        return gradient, None, None, None, None


def _is_in_memory(grad: Tensor) -> bool:
    """Whether the values can be read where they lie, and nobody wants to see what is done with them."""
    if torch.is_grad_enabled() or type(grad) is not Tensor or is_seen():
        return False
    return torch._C._has_storage(grad) and not grad.is_neg() and not grad._is_zerotensor()


def _gradient(
    grad: Tensor, logits: Tensor, a: Tensor, b: Tensor, lam: Tensor, kept: Tensor, ignore_index: int,
    label_smoothing: float,
) -> Tensor:  # fmt: skip
    loops, rows = _loops(logits.dtype), len(logits)
    if logits.stride(1) != 1 or logits.stride(0) < logits.shape[1]:  # a hook has moved them; rows overlap
        logits = logits.contiguous()
    gradient = fresh_like(logits) if logits.nbytes > HUGE_PAGE else torch.empty_like(logits)
    given = _given(logits, a, b, lam, kept, ignore_index, label_smoothing)
    above = (grad.data_ptr(), loops.LIKE[grad.dtype], grad.stride(0) if grad.dim() else 0)
    result = (gradient.data_ptr(), gradient.stride(0))
    threads = threads_for(logits.nbytes * PRICE)
    if threads == 1:
        loops.fill_gradient(*given, *above, *result, 0, rows)
    else:
        share(loops.fill_gradient, loops.gradient_by_team, rows, threads, *given, *above, *result)
    return gradient


def gradient_in_steps(
    grad: Tensor, logits: Tensor, a: Tensor, b: Tensor, lam: Tensor, unit: Tensor, ignore_index: int,
    label_smoothing: float,
) -> Tensor:  # fmt: skip
    """The same in operations that have derivatives themselves; a loss of 1 counts ``unit`` in the result."""
    labels, shares = torch.stack((a, b), 1).long(), torch.stack((lam, 1 - lam), 1).to(unit.dtype)
    ignored = labels == ignore_index
    labels, shares = labels.masked_fill(ignored, 0), shares.masked_fill(ignored, 0)
    probs, count = torch.softmax(logits, 1, dtype=unit.dtype), shares.sum(1, keepdim=True)
    hot = torch.zeros_like(probs).scatter_add(1, labels, shares)
    wanted = (1 - label_smoothing) * hot + label_smoothing / logits.shape[1] * count
    # What does not count has no gradient, even where the loss is divided by 0.
    factor = grad.reshape(-1, 1) * torch.where(count > 0, unit, 0)
    return ((count * probs - wanted) * factor).to(logits.dtype)


def _plain(
    logits: Tensor, a: Tensor, b: Tensor, lam: Tensor, fits: bool, ignore_index: int, reduction: str,
    label_smoothing: float,
) -> Tensor:  # fmt: skip
    """Torch's loss for the labels of weight 1, or its error for the one that is no class."""
    options: dict[str, Any] = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    for labels in () if fits else (a, b):
        F.cross_entropy(logits, labels, **options)
    return F.cross_entropy(logits, torch.where(lam == 0, b, a), reduction=reduction, **options)


# What several need


def _given(
    logits: Tensor, a: Tensor, b: Tensor, lam: Tensor, kept: Tensor, ignore_index: int, label_smoothing: float
) -> tuple[Any, ...]:
    """What every loop begins with."""
    like = _loops(logits.dtype).LIKE
    return (
        logits.data_ptr(), like[logits.dtype], logits.stride(0), *logits.shape, a.data_ptr(), a.stride(0),
        b.data_ptr(), b.stride(0), lam.data_ptr(), lam.stride(0), ignore_index,
        type(like[kept.dtype])(label_smoothing), kept.data_ptr(),
    )  # fmt: skip


def _wide(logits: Tensor) -> torch.dtype:
    """The dtype to compute in."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _is_cast(logits: Tensor) -> bool:
    return logits.dtype in HALVES and torch.is_autocast_enabled(logits.device.type)


@functools.cache
def _loops(dtype: torch.dtype) -> Any:
    """The compiled loops, or None where there is no numba, or none for this dtype on this processor."""
    module = fused.loops()
    if module is None or (dtype == torch.float16 and not module.HAS_FLOAT16):
        return None
    return importlib.import_module("batchmix.kernels.loss_loops")
