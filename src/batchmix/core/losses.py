"""Any other loss: a callable of output and target, for two targets and a weight."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from batchmix.core.plan import as_rows, describe
from batchmix.core.targets import MixedTarget
from batchmix.core.torch_losses import MIXED_LOSSES, TORCH_MODULES, count_labels, reduce_rows, weigh
from batchmix.errors import MixError

LossFn = Callable[..., Tensor]

# Their mean is one by class weights, without ignored labels. The last is of torch 2.13 and later.
OF_CLASSES = tuple(
    getattr(nn, name)
    for name in ("CrossEntropyLoss", "NLLLoss", "LinearCrossEntropyLoss")
    if hasattr(nn, name)
)


def mixed_loss(loss_fn: LossFn, output: Any, target: Any) -> Tensor:
    """``lam*loss_fn(output, a) + (1-lam)*loss_fn(output, b)``, for any loss.

    Torch's own losses are computed in their mixed form (cross entropy from one log-softmax, class weights
    normalised by both labels). Any other callable is called once for each target, unreduced where it lets
    itself be: it returns one loss a sample, or it has a ``reduction`` attribute or argument, which is set to
    ``"none"`` for the two calls and applied to the result; the mean of what derives from
    ``nn.CrossEntropyLoss`` or ``nn.NLLLoss`` is theirs, by class weights and without ignored labels. The
    attribute is the loss's own for so long: threads that call it at once take a copy each.

    A loss that is linear in its target (cross entropy, binary cross entropy) gives what a dense target gives.
    One that is not (focal, Dice, margin heads) gives the mean of its values at the two labels, which is not
    its value at the mixed label; squared error differs by ``lam*(1-lam)*(a-b)**2``, which has no gradient.

    A loss that knows one number alone (a sum of two that each have a ``reduction``, as Dice and cross entropy
    often are) is mixed as ``mixed_loss(dice, output, y) + mixed_loss(cross_entropy, output, y)``, or called
    sample by sample, where its mean is that over samples: ``lambda output, y: torch.stack([*map(loss_fn,
    output.split(1), y.split(1))])``.

    Args:
        loss_fn: Called as ``loss_fn(output, target)``; one of more arguments finds them in ``output``:
            ``lambda output, y: F.gaussian_nll_loss(output[0], y, output[1], reduction="none")``.
        output: What the model returned, of any structure.
        target: A MixedTarget; any other target goes to ``loss_fn`` untouched.

    Returns:
        What ``loss_fn`` returns for a plain target, 0-d or one value a sample.

    Raises:
        MixError: If ``loss_fn`` only returns one number and ``lam`` differs between the samples.

    Example:
        >>> import torch
        >>> target = MixedTarget(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0.75, 1.0]))
        >>> hinge = lambda output, y: (1 - output[torch.arange(len(y)), y]).clamp(min=0)  # one value a sample
        >>> mixed_loss(hinge, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), target)
        tensor([0.2500, 0.0000])

    Source: Gugger 2018, fast.ai; Zhang et al. 2018, arXiv:1710.09412, in the authors' code.
    """
    if not isinstance(target, MixedTarget) or isinstance(loss_fn, MixUpLoss):
        return loss_fn(output, target)
    if isinstance(loss_fn, Hashable) and loss_fn in MIXED_LOSSES:
        return MIXED_LOSSES[loss_fn](output, target)
    if isinstance(loss_fn, functools.partial) and loss_fn.func in MIXED_LOSSES and not loss_fn.args:
        return MIXED_LOSSES[loss_fn.func](output, target, **loss_fn.keywords)
    for kind, (function, options) in TORCH_MODULES.items():
        # A subclass counts as torch's own unless it computes something else.
        if isinstance(loss_fn, kind) and type(loss_fn).forward is kind.forward:
            return MIXED_LOSSES[function](
                output, target, **{name: getattr(loss_fn, name) for name in options}
            )
    return _mix_any(loss_fn, output, target)


class MixUpLoss(nn.Module):
    """Wraps a usual loss so that it takes mixed and plain targets alike.

    Args:
        loss_fn: Called as ``loss_fn(output, target)``; see ``mixed_loss`` for what is computed.

    Raises:
        MixError: If ``loss_fn`` cannot be called.

    Example:
        >>> import torch
        >>> loss_fn = MixUpLoss(nn.CrossEntropyLoss())
        >>> loss_fn(torch.zeros(2, 10), torch.tensor([3, 5]))
        tensor(2.3026)

    Source: Gugger 2018, fast.ai.
    """

    def __init__(self, loss_fn: LossFn) -> None:
        super().__init__()
        _check_callable(loss_fn)
        self.loss_fn = loss_fn

    def forward(self, output: Any, target: Any) -> Tensor:
        """The loss of ``output`` (B, ...) against a mixed or plain target."""
        return mixed_loss(self.loss_fn, output, target)


def _check_callable(loss_fn: object) -> None:
    if not callable(loss_fn):
        raise MixError.of("loss_fn", loss_fn, "a callable of output and target")


def _mix_any(loss_fn: LossFn, output: Any, target: MixedTarget) -> Tensor:
    _check_callable(loss_fn)
    reduction = _reduction_of(loss_fn)
    if reduction is None:
        return _combine(loss_fn(output, target.a), loss_fn(output, target.b), target.lam)
    with _unreduced(loss_fn) as loss_of_rows:
        loss = _combine(loss_of_rows(output, target.a), loss_of_rows(output, target.b), target.lam)
    if loss.dim() == 0:
        return loss
    if reduction == "mean" and isinstance(loss_fn, OF_CLASSES) and not target.dtype.is_floating_point:
        ignored = -100 if loss_fn.ignore_index is None else loss_fn.ignore_index
        return (loss.sum() / count_labels(target, loss_fn.weight, ignored)).to(loss.dtype)
    return reduce_rows(loss, reduction)


def _combine(loss_a: Tensor, loss_b: Tensor, lam: Tensor) -> Tensor:
    if not isinstance(loss_a, Tensor):
        raise MixError(f"loss_fn takes output and target to a tensor, got {describe(loss_a)}")
    if loss_a.dim() == 0:
        return _combine_scalars(loss_a, loss_b, lam)
    if loss_a.shape[0] != lam.shape[0]:
        raise MixError(
            f"loss_fn takes an output of {lam.shape[0]} samples to as many losses, got {loss_a.shape[0]}: "
            "flatten output and target alike, target.view(-1)"
        )
    rows = as_rows(lam, loss_a.dim())
    return (weigh(rows, loss_a) + weigh(1 - rows, loss_b)).to(loss_a.dtype)


def _combine_scalars(loss_a: Tensor, loss_b: Tensor, lam: Tensor) -> Tensor:
    """One number for the whole batch can be mixed where one ``lam`` holds for the whole batch."""
    lam = lam.reshape(-1)  # that of a lone value is one number
    if len(lam) > 1 and not bool((lam == lam[0]).all()):
        raise MixError(
            "loss_fn takes output and target to one loss a sample where lam differs between samples, got one "
            "number: give it reduction='none', call it sample by sample (help(batchmix.mixed_loss) shows how)"
            ", or mix with per='batch'"
        )
    return (weigh(lam[0], loss_a) + weigh(1 - lam[0], loss_b)).to(loss_a.dtype)


def _reduction_of(loss_fn: LossFn) -> str | None:
    """How ``loss_fn`` reduces, if it can be asked not to: by attribute (modules) or argument (functions)."""
    attribute = getattr(loss_fn, "reduction", None)
    if isinstance(attribute, str):
        return attribute
    try:
        parameter = inspect.signature(loss_fn).parameters.get("reduction")
    except (TypeError, ValueError):  # a builtin without a signature
        return None
    return parameter.default if parameter is not None and isinstance(parameter.default, str) else None


@contextmanager
def _unreduced(loss_fn: LossFn) -> Any:
    """``loss_fn`` with one loss a sample; the attribute is put back whatever happens."""
    if not isinstance(getattr(loss_fn, "reduction", None), str):
        yield functools.partial(loss_fn, reduction="none")
        return
    before = loss_fn.reduction  # type: ignore[attr-defined]
    loss_fn.reduction = "none"  # type: ignore[attr-defined]
    try:
        yield loss_fn
    finally:
        loss_fn.reduction = before  # type: ignore[attr-defined]
