"""The only place where samples are combined."""

from __future__ import annotations

import torch
from torch import Tensor

from batchmix.core.plan import MixPlan, as_rows, describe, spread
from batchmix.core.resizing import resize_into
from batchmix.errors import MixError
from batchmix.kernels import cpu


def blend(x: Tensor, plan: MixPlan, *, other: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """Combine every sample with its partner.

    Row i becomes ``w*x[i] + (1-w)*x[partner[i]]``; ``w`` is the mask if the plan has one, else ``lam[i]``.
    Where the plan has a window, the partner is resized into it first, (bi)linearly.
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
    if plan.window is None and cpu.can_mix(x, plan.partner, plan.lam, plan.mask, other=other, out=out):
        return cpu.mix(x, plan.partner, plan.lam, plan.mask, other=other, out=out)  # the same bits, sooner
    partners = other[plan.partner]
    if plan.window is not None:
        partners = resize_into(_at_least_float32(partners), plan.window)
    weight = as_rows(plan.lam, x.dim()) if plan.mask is None else spread(plan.mask, x.dim())
    mixed = _combine(x, partners, weight, None if _needs_grad(x, partners) else out)
    return mixed if out is None or mixed is out else out.copy_(mixed)


def _combine(x: Tensor, partners: Tensor, weight: Tensor, out: Tensor | None) -> Tensor:
    """``weight*x + (1-weight)*partners``, in ``out`` if it can be written there at once."""
    if weight.dtype == torch.bool:  # a paste: every value is one of the two, whatever it is
        partners = partners.to(x.dtype)
        return torch.where(weight, x, partners, out=_room(x, partners) if out is None else out)
    start, end = _at_least_float32(partners), _at_least_float32(x)
    if end.dtype != x.dtype:
        return start.lerp_(end, weight.to(end.dtype)).to(x.dtype)
    return torch.lerp(start, end, weight.to(end.dtype), out=_room(x, start) if out is None else out)


def _room(x: Tensor, partners: Tensor) -> Tensor | None:
    """Memory for the result; that of the partners, which are a copy already: new memory costs as much again.

    None, for torch to find it, where gradients have to flow or torch.func and torch.compile look on.
    """
    if torch.compiler.is_compiling() or _needs_grad(x, partners):
        return None
    if torch._C._functorch.maybe_current_level() is not None:  # a transform has no rule for `out`
        return None
    return partners if partners.stride() == x.stride() else torch.empty_like(x)


def _needs_grad(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


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
    if plan.mask is not None:
        channels, *size = plan.mask.shape[1:]
        fits = x.dim() >= plan.mask.dim() and list(x.shape[x.dim() - len(size) :]) == size
        if not fits or channels not in (1, x.shape[1]):
            raise MixError(f"x takes the size of the plan's mask, {describe(plan.mask)}, got {describe(x)}")
