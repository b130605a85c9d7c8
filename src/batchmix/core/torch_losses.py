"""What torch's own losses compute for two targets and a weight.

Each function here has the signature of its namesake in ``torch.nn.functional`` and is reached through
``MixedTarget.__torch_function__``, so that ``F.cross_entropy(logits, target)`` and
``nn.CrossEntropyLoss()(logits, target)`` both arrive here. At ``lam`` 1 the value is the plain loss, bit for
bit: sums are left to the very kernel that makes them in the plain loss, and on a CPU the fused cross entropy
leaves it such a batch altogether. (Triton's, used where it is named, adds up in an order of its own.)
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchmix.core.plan import as_rows, describe
from batchmix.errors import MixError
from batchmix.kernels import cross_entropy as fused_on_cpu
from batchmix.kernels import selected

HALVES = (torch.bfloat16, torch.float16)
Parts = Any  # a MixedTarget, whose file imports this one


def cross_entropy(
    input: Tensor,  # noqa: A002  (torch's name)
    target: Parts,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross entropy from one log-softmax and two gathers, or in one pass where there is a kernel for it.

    Under ``reduction="mean"`` the sum is divided by the sum of ``lam*w[a] + (1-lam)*w[b]``, ignored entries
    left out. Soft labels are blended first, which for a loss linear in its target is the same.
    """
    a, b, lam = _parts_of(target)
    _refuse_legacy(size_average, reduce)
    _check_rows(input, lam)
    if a.is_floating_point():
        soft = blend_targets(a, b, lam)
        # With an ignore_index that torch refuses beside probabilities.
        return F.cross_entropy(
            input,
            soft,
            weight,
            ignore_index=ignore_index,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    _check_places(input, a)
    fused = None if torch.compiler.is_compiling() else _fused_for(input)
    if fused is not None:
        options = (weight, ignore_index, reduction, label_smoothing)
        if fused.can_fuse(input, a, b, lam, *options):
            return fused.cross_entropy(input, a, b, lam, *options)  # type: ignore[no-any-return]
    if not 0 <= label_smoothing <= 1:
        raise MixError.of("label_smoothing", label_smoothing, "a number in [0, 1]")
    log_probs = F.log_softmax(_as_autocast(input), 1)
    weight = _class_weights(weight, log_probs)
    entries = entries_of(a, b, lam, weight, ignore_index)
    loss = _pick(log_probs, entries, weight, reduction)
    if label_smoothing == 0:
        return loss
    smooth = _spread(log_probs, entries, weight, reduction)
    return (1 - label_smoothing) * loss + smooth * (label_smoothing / input.shape[1])


def nll_loss(
    input: Tensor,  # noqa: A002
    target: Parts,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Negative log likelihood from two gathers; the mean as for ``cross_entropy``."""
    a, b, lam = _parts_of(target)
    _refuse_legacy(size_average, reduce)
    _check_rows(input, lam)
    if a.is_floating_point():  # torch takes no soft labels here either
        raise MixError(f"target takes class ids, whole numbers, for nll_loss, got {describe(a)}")
    _check_places(input, a)
    log_probs = _as_autocast(input)
    weight = _class_weights(weight, log_probs)
    return _pick(log_probs, entries_of(a, b, lam, weight, ignore_index), weight, reduction)


def pointwise(loss_fn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The mixed form of a loss that compares output and target place by place."""

    def mixed(
        input: Tensor,  # noqa: A002
        target: Parts,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
        **options: Any,
    ) -> Tensor:
        a, b, lam = _parts_of(target)
        _refuse_legacy(size_average, reduce)
        if input.shape != a.shape:  # torch broadcasts, with a warning: whose row's weight would count?
            raise MixError(f"target takes the shape of the output, {describe(input)}, got {describe(a)}")
        if reduction == "batchmean" and loss_fn is not F.kl_div:
            raise _no_reduction(reduction)
        if weight is not None:
            options["weight"] = weight
        own, partners = (loss_fn(input, part, reduction="none", **options) for part in (a, b))
        rows = as_rows(lam, own.dim())  # some are a mean over the classes already
        loss = (weigh(rows, own) + weigh(1 - rows, partners)).to(own.dtype)
        if reduction == "mean" and weight is not None and loss_fn in (F.mse_loss, F.l1_loss):
            return loss.sum() / weight.sum()  # these two divide by their weights, the others by the count
        return reduce_rows(loss, reduction)

    return mixed


def gaussian_nll_loss(
    input: Tensor,  # noqa: A002
    target: Parts,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Place by place, and of a variance beside the output."""
    loss_fn = functools.partial(F.gaussian_nll_loss, var=var, full=full, eps=eps)
    return pointwise(loss_fn)(input, target, reduction=reduction)


def weigh(share: Tensor, term: Tensor) -> Tensor:
    """``share*term``, and 0 where the share is 0 even if the term is infinite.

    A share that is learned has its gradient at 0 too, which is the term.
    """
    weighed = share * term
    return weighed if share.requires_grad else torch.where(share == 0, 0, weighed)


def blend_targets(a: Tensor, b: Tensor, lam: Tensor) -> Tensor:
    """``lam*a + (1-lam)*b`` in float32 or better, in the dtype of ``a``."""
    rows = as_rows(lam, a.dim())
    return (weigh(rows, a) + weigh(1 - rows, b)).to(a.dtype)


def reduce_rows(loss: Tensor, reduction: str) -> Tensor:
    """Torch's reductions of a loss that was computed without one."""
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if reduction == "mean":
        return loss.mean()
    if reduction == "batchmean":
        return loss.sum() / loss.shape[0]
    raise _no_reduction(reduction)


def count_labels(target: Parts, weight: Tensor | None, ignore_index: int) -> Tensor:
    """What the mean over classes divides by: ``lam*w[a] + (1-lam)*w[b]``, ignored entries left out."""
    a, b, lam = _parts_of(target)
    first, second = entries_of(a, b, lam, weight, ignore_index)
    return (first.share + second.share).sum()  # of whole places where nothing is ignored, whatever lam is


def _parts_of(target: Parts) -> tuple[Tensor, Tensor, Tensor]:
    """By name, since the compilers of torch 2.8 and before unpack no object of ours."""
    return target.a, target.b, target.lam


class _Entry(NamedTuple):
    """One of the two labels of every place."""

    labels: Tensor  # ignored ones replaced by 0, so that they can be gathered
    kept: Tensor  # its weight, lam or 1-lam; 0 where it is ignored
    share: Tensor  # the same times its class weight


def entries_of(
    a: Tensor, b: Tensor, lam: Tensor, weight: Tensor | None, ignore_index: int
) -> tuple[_Entry, _Entry]:
    """Both labels of every place, and how much of each counts."""

    def entry(labels: Tensor, rows: Tensor) -> _Entry:
        labels = labels.long()  # in uint8, -100 would be 156
        ignored = labels == ignore_index
        safe = labels.masked_fill(ignored, 0)
        kept = rows.expand(labels.shape).masked_fill(ignored, 0)
        return _Entry(safe, kept, kept if weight is None else kept * weight[safe])

    rows = as_rows(lam, a.dim())
    return entry(a, rows), entry(b, 1 - rows)


def _pick(log_probs: Tensor, entries: tuple[_Entry, _Entry], weight: Tensor | None, reduction: str) -> Tensor:
    """Weighted negative log likelihood of both labels, reduced as ``F.nll_loss`` reduces."""
    first, second = [weigh(e.share, log_probs.gather(1, e.labels.unsqueeze(1)).squeeze(1)) for e in entries]
    picked = (first + second).to(log_probs.dtype)
    if reduction == "none":
        return -picked
    kept, shares = _sums(entries, weight)
    if _is_divided_in_float32(picked):
        picked, shares = picked.float(), shares.float()
    total = _sum_like_nll(picked, kept)
    if reduction == "mean":
        total = total / _sum_like_nll(-shares, kept).to(total.dtype)
    elif reduction != "sum":
        raise _no_reduction(reduction)
    return total.to(log_probs.dtype)


def _spread(
    log_probs: Tensor, entries: tuple[_Entry, _Entry], weight: Tensor | None, reduction: str
) -> Tensor:
    """The label-smoothing term: the loss against every class alike, for the labels that are not ignored."""
    by_class = log_probs if weight is None else log_probs * weight.view(1, -1, *[1] * (log_probs.dim() - 2))
    kept, shares = _sums(entries, weight)
    smooth = weigh(kept, -by_class.sum(1)).to(log_probs.dtype)
    if reduction == "mean":
        counted = shares  # 0 where nothing is kept
        if weight is not None and shares.is_cpu and not torch.compiler.is_compiling():
            # Torch adds up what is kept alone, and the order of a sum shows in its last bit. Elsewhere that
            # would wait for the device, and in compiled code be a shape that nobody knows.
            counted = shares.masked_select(kept > 0)
        return smooth.sum() / counted.sum().to(smooth.dtype)
    return reduce_rows(smooth, reduction)


def _sums(entries: tuple[_Entry, _Entry], weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """How much of each place counts, without and with class weights: ``lam*w[a] + (1-lam)*w[b]``."""
    first, second = entries
    shares = first.share + second.share
    return first.kept + second.kept, shares if weight is None else shares.to(weight.dtype)


def _sum_like_nll(values: Tensor, kept: Tensor) -> Tensor:
    """Minus the sum, added up in the order of ``F.nll_loss``: as one class that all that is kept is of."""
    only = torch.where(kept > 0, 0, -100)
    return F.nll_loss(values.unsqueeze(1), only, ignore_index=-100, reduction="sum")


def _is_divided_in_float32(picked: Tensor) -> bool:
    """Whether ``F.nll_loss`` rounds its mean alone to half precision, not the sum and the count before it."""
    return picked.is_cuda and picked.dtype in HALVES and picked.dim() == 1


def _as_autocast(input: Tensor) -> Tensor:  # noqa: A002
    """In float32 under autocast, which casts for cross entropy, not for a gather or a CPU's log-softmax."""
    device = input.device.type
    if input.dtype not in HALVES or input.is_meta:
        return input
    # Where a device has no autocast, to ask whether it is on is an error; compilers of older torch take the
    # second question alone.
    known = torch.compiler.is_compiling() or torch.amp.is_autocast_available(device)
    return input.float() if known and torch.is_autocast_enabled(device) else input


def _fused_for(input: Tensor) -> Any:  # noqa: A002
    """The module whose ``cross_entropy`` may take this device, or None."""
    name = selected.current()
    if input.is_cpu and name != "torch":
        return fused_on_cpu
    if input.is_cuda and name == "triton":
        return importlib.import_module("batchmix.kernels.gpu_loss")
    return None


def _check_rows(output: Tensor, lam: Tensor) -> None:
    if output.shape[:1] != lam.shape:  # a lone value squeezed to 0-d has a 0-d weight
        raise MixError(
            f"target takes one row a row of the output, {describe(output)}, got {lam.numel()} rows"
        )


def _check_places(output: Tensor, labels: Tensor) -> None:
    """As many labels as the output has places: a gather takes fewer, and the rest would learn nothing."""
    places = (*output.shape[:1], *output.shape[2:])
    if output.dim() > 1 and labels.shape != places:
        raise MixError(
            f"target takes a class id for each place {places} of the output, got {describe(labels)}"
        )


def _class_weights(weight: Tensor | None, log_probs: Tensor) -> Tensor | None:
    """The weights as autocast casts them. Torch checks them likewise; a gather takes any that are enough."""
    if weight is None:
        return None
    weight = _as_autocast(weight)
    if weight.shape != log_probs.shape[1:2] or weight.dtype != log_probs.dtype:
        raise MixError(f"weight takes one number a class of {describe(log_probs)}, got {describe(weight)}")
    return weight


def _no_reduction(reduction: str) -> MixError:
    return MixError(f"reduction takes 'none', 'mean' or 'sum', got {reduction!r}")


def _refuse_legacy(size_average: bool | None, reduce: bool | None) -> None:
    if size_average is not None or reduce is not None:
        raise MixError(
            "reduction takes the place of torch's deprecated size_average and reduce for a MixedTarget"
        )


MIXED_LOSSES: dict[Callable[..., Any], Callable[..., Tensor]] = {
    F.cross_entropy: cross_entropy,
    F.nll_loss: nll_loss,
    **{
        loss_fn: pointwise(loss_fn)
        for loss_fn in (
            F.binary_cross_entropy,
            F.binary_cross_entropy_with_logits,
            F.mse_loss,
            F.l1_loss,
            F.smooth_l1_loss,
            F.huber_loss,
            F.kl_div,
            F.poisson_nll_loss,
            F.soft_margin_loss,
            F.multilabel_soft_margin_loss,
        )
    },
    F.gaussian_nll_loss: gaussian_nll_loss,
}
"""Torch's loss functions, each with its form for a MixedTarget."""

TORCH_MODULES: dict[type[nn.Module], tuple[Callable[..., Any], tuple[str, ...]]] = {
    nn.CrossEntropyLoss: (F.cross_entropy, ("weight", "ignore_index", "reduction", "label_smoothing")),
    nn.NLLLoss: (F.nll_loss, ("weight", "ignore_index", "reduction")),
    nn.BCELoss: (F.binary_cross_entropy, ("weight", "reduction")),
    nn.BCEWithLogitsLoss: (F.binary_cross_entropy_with_logits, ("weight", "reduction", "pos_weight")),
    nn.MSELoss: (F.mse_loss, ("reduction",)),
    nn.L1Loss: (F.l1_loss, ("reduction",)),
    nn.SmoothL1Loss: (F.smooth_l1_loss, ("reduction", "beta")),
    nn.HuberLoss: (F.huber_loss, ("reduction", "delta")),
    nn.KLDivLoss: (F.kl_div, ("reduction", "log_target")),
    nn.PoissonNLLLoss: (F.poisson_nll_loss, ("log_input", "full", "eps", "reduction")),
    nn.SoftMarginLoss: (F.soft_margin_loss, ("reduction",)),
    nn.MultiLabelSoftMarginLoss: (F.multilabel_soft_margin_loss, ("weight", "reduction")),
}
"""Torch's loss modules: the function each one calls, and its attributes that it passes on."""
