"""The only place where samples are combined."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from batchmix.core.normalizing import Normalize, check_out
from batchmix.core.plan import MixPlan, check_plan, describe, floats_for, placed
from batchmix.core.resizing import resize_into
from batchmix.errors import MixError
from batchmix.kernels import selected
from batchmix.kernels.blocks import at_least_float32, combine, weights_of


def blend(
    x: Tensor,
    plan: MixPlan,
    *,
    other: Tensor | None = None,
    out: Tensor | None = None,
    normalize: Normalize | None = None,
) -> Tensor:
    """Combine every sample with its partner.

    Row i becomes ``w*x[i] + (1-w)*x[partner[i]]``; ``w`` is the mask if the plan has one, else ``lam[i]``.
    Where the plan has a window, the partner is resized into it first, (bi)linearly.
    Where ``w`` is 1 or 0 the result is one of the two, if both are finite. Half precision is combined in
    float32 and rounded once. Integer images are refused: mixing would truncate them, and which scale they
    are to be converted to is not ours to guess; but uint8 images with ``normalize`` become normalised floats,
    the exact ones within a unit in the last place of float32 (with a window, a few), or rounded once.

    Args:
        x: Batch, (B, ...), floating point. Not modified unless it is also ``out``.
        plan: One draw; ``plan.partner`` has length B.
        other: Where the partners are taken from, like ``x``; ``x`` itself if left out.
        out: Where to write, like the result; a new tensor if left out.
        normalize: ``x`` and ``other`` are uint8 images (B, C, H, W), the result is of ``normalize.dtype``.

    Returns:
        (B, ...), dtype, device and memory format of ``x``; of ``normalize.dtype`` where that is given.

    Raises:
        MixError: If ``x`` is not dense and floating point, its length is not the plan's, devices or shapes
            differ, or the kernel that was named does not take the call.

    Example:
        >>> plan = MixPlan(torch.tensor([1, 0]), torch.tensor([0.75, 1.0]))
        >>> blend(torch.tensor([[0.0], [4.0]]), plan)
        tensor([[1.],
                [4.]])

    Source: Zhang et al. 2018, arXiv:1710.09412, eq. 1; one batch with itself: Gugger 2018, fast.ai.
    """
    _check(x, plan, other, out, normalize)
    if normalize is not None:
        return _blend_images(x, plan, other, out, normalize)
    resized = plan.window is not None
    plan = _by_row(plan)
    kernel = selected.for_samples(x, plan.partner, plan.lam, plan.mask, other=other, out=out, resized=resized)
    if kernel is not None:  # the same bits, sooner
        mixed: Tensor = kernel.mix(x, plan.partner, plan.lam, plan.mask, other=other, out=out)
        return mixed
    partners = (x if other is None else other)[plan.partner]
    if plan.window is not None:
        partners = resize_into(at_least_float32(partners), plan.window)
    weight = weights_of(x, plan.lam, plan.mask)
    mixed = combine(x, partners, weight, _room(x, partners, weight, out))
    return mixed if out is None or mixed is out else out.copy_(mixed)


def _by_row(plan: MixPlan) -> MixPlan:
    """A soft mask of one place is a weight for each row: kernels have no need to go from place to place."""
    mask = plan.mask
    if mask is None or plan.window is not None or mask.dtype != torch.float32:
        return plan
    return MixPlan(plan.partner, mask.flatten()) if mask.numel() == len(mask) == len(plan) else plan


def _blend_images(
    x: Tensor, plan: MixPlan, other: Tensor | None, out: Tensor | None, normalize: Normalize
) -> Tensor:
    """uint8 images, normalised and mixed: the same as the one after the other, since both are affine."""
    if plan.window is not None:  # partners are resized as floats
        wide = replace(normalize, dtype=torch.float32)
        mixed = blend(wide(x), plan, other=None if other is None else wide(other))
        return mixed.to(normalize.dtype) if out is None else out.copy_(mixed)
    kernel = selected.for_images(x, plan.mask, other=other, out=out)
    images: Tensor = kernel.mix_images(
        x,
        plan.partner,
        plan.lam,
        plan.mask,
        mean=normalize.mean,
        std=normalize.std,
        other=other,
        out=out,
        dtype=normalize.dtype,
    )
    return images


def _room(x: Tensor, partners: Tensor, weight: Tensor, out: Tensor | None) -> Tensor | None:
    """Memory for the result: ``out``, or the partners', a copy already; new memory costs as much again.

    None, for torch to find it, where gradients have to flow or torch.func and torch.compile look on.
    """
    if torch.is_grad_enabled() and any(part.requires_grad for part in (x, partners, weight)):
        return None
    if torch.autograd.forward_ad._current_level >= 0:
        return None
    if out is not None or torch.compiler.is_compiling():
        return out
    if torch._C._functorch.maybe_current_level() is not None:  # a transform has no rule for `out`
        return None
    like_x = (partners.stride(), partners.dtype) == (x.stride(), x.dtype)
    return partners if like_x else torch.empty_like(x)


def _check(
    x: Tensor, plan: MixPlan, other: Tensor | None, out: Tensor | None, normalize: Normalize | None
) -> None:
    if not isinstance(x, Tensor) or x.dim() == 0:
        raise MixError(f"x takes a batch of samples (B, ...), got {describe(x)}")
    _check_dense("x", x)
    if normalize is not None:
        if not isinstance(normalize, Normalize):
            raise MixError(f"normalize takes a Normalize, got {describe(normalize)}")
        normalize.check("x", x)
        check_out(normalize, x, out)
    elif not x.is_floating_point():
        labels = ", or MixedTarget.from_plan(y, plan) for labels" if x.dim() == 1 else ""
        raise MixError(f"x takes {floats_for('x', x)}{labels}, got {describe(x)}")
    check_plan(plan, x)
    for name, tensor in (("other", other), ("out", out if normalize is None else None)):
        if tensor is None or tensor is x:
            continue
        if isinstance(tensor, Tensor):
            _check_dense(name, tensor)
        is_like = isinstance(tensor, Tensor) and (tensor.shape, tensor.dtype) == (x.shape, x.dtype)
        if not is_like or tensor.device != x.device:
            raise MixError(f"{name} takes what x is, {placed(x)}, got {placed(tensor)}")
    if plan.mask is not None:
        channels, size = plan.mask.shape[1], plan.mask.shape[2:]
        fits = x.dim() >= plan.mask.dim() and x.shape[x.dim() - len(size) :] == size
        if not fits or channels not in (1, x.shape[1]):
            takes = f"the size of the plan's mask, {describe(plan.mask)}"
            without = (
                ", or plan.without_mask() where there are no positions"
                if x.dim() <= 2 < plan.mask.dim()
                else ""
            )
            raise MixError(f"x takes {takes}{without}, got {describe(x)}")


def _check_dense(name: str, tensor: Tensor) -> None:
    if tensor.layout != torch.strided or tensor.is_nested:
        got = "a nested one" if tensor.is_nested else f"one of layout {tensor.layout}"
        raise MixError(f"{name} takes a dense tensor, got {got}")
