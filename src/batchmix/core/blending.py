"""The only place where samples are combined."""

from __future__ import annotations

import torch
from torch import Tensor

from batchmix.core.plan import MixPlan, as_rows, describe
from batchmix.errors import MixError


def blend(x: Tensor, plan: MixPlan, *, other: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """Combine every sample with its partner.

    Row i becomes ``w*x[i] + (1-w)*x[partner[i]]``; ``w`` is the mask if the plan has one, else ``lam[i]``.
    Where ``w`` is 1 or 0 the result is one of the two, if both are finite. Half precision is combined in
    float32 and rounded once. Integer images are refused: mixing would truncate them, and which scale they
    are to be converted to is not ours to guess.

    Args:
        x: Batch, (B, ...), floating point. Not modified unless it is also ``out``.
        plan: One draw; ``plan.partner`` has length B.
        other: Where the partners are taken from, like ``x``; ``x`` itself if left out.
        out: Where to write, same shape and dtype as ``x``; a new tensor if left out.

    Returns:
        (B, ...), dtype, device and memory format of ``x``.

    Raises:
        MixError: If ``x`` is not floating point, its length is not the plan's, or devices or shapes differ.

    Example:
        >>> plan = MixPlan(torch.tensor([1, 0]), torch.tensor([0.75, 1.0]))
        >>> blend(torch.tensor([[0.0], [4.0]]), plan)
        tensor([[1.],
                [4.]])

    Source: Zhang et al. 2018, arXiv:1710.09412, eq. 1; one batch with itself: Gugger 2018, fast.ai.
    """
    other = x if other is None else other
    _check(x, plan, other, out)
    weight = as_rows(plan.lam, x.dim()) if plan.mask is None else plan.mask
    mixed = _lerp(other[plan.partner], x, weight, x if out is x else None)
    if out is None or out is x:
        return mixed
    return out.copy_(mixed)


def _lerp(start: Tensor, end: Tensor, weight: Tensor, out: Tensor | None) -> Tensor:
    """``start + weight*(end - start)`` at float32 or better, in the dtype of ``end``."""
    if end.dtype in (torch.float32, torch.float64):
        return torch.lerp(start, end, weight.to(end.dtype), out=out)
    mixed = torch.lerp(start.float(), end.float(), weight.float()).to(end.dtype)
    return mixed if out is None else out.copy_(mixed)


def _check(x: Tensor, plan: MixPlan, other: Tensor, out: Tensor | None) -> None:
    if not isinstance(x, Tensor) or x.dim() == 0:
        raise MixError(f"x takes a batch of samples (B, ...), got {describe(x)}")
    if not x.is_floating_point():
        raise MixError(f"x takes floating point samples, such as x.float() / 255, got {describe(x)}")
    if not isinstance(plan, MixPlan):
        raise MixError(f"plan takes a MixPlan, got {describe(plan)}")
    if len(x) != len(plan):
        raise MixError(f"plan takes as many samples as x: {len(x)}, got {len(plan)}")
    if x.device != plan.device:
        raise MixError(f"plan takes the device of x: {x.device}, got {plan.device}")
    for name, tensor in (("other", other), ("out", out)):
        if tensor is None or tensor is x:
            continue
        if (tensor.shape, tensor.dtype, tensor.device) != (x.shape, x.dtype, x.device):
            like, got = f"{describe(x)} on {x.device}", f"{describe(tensor)} on {tensor.device}"
            raise MixError(f"{name} takes what x is, {like}, got {got}")
    if plan.mask is not None and (plan.mask.dim() != x.dim() or plan.mask.shape[2:] != x.shape[2:]):
        raise MixError(f"x takes the size of the plan's mask, {describe(plan.mask)}, got {describe(x)}")
