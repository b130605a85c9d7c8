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
    attribute is changed on the loss itself for so long, which is not safe between threads: give each of them
    a copy of its own. A module that was compiled counts as what it was.

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
    bare = _bare(loss_fn)
    if not isinstance(target, MixedTarget) or isinstance(bare, MixUpLoss):
        return loss_fn(output, target)
    if _is_torchs(loss_fn):
        return MIXED_LOSSES[loss_fn](output, target)
    if isinstance(loss_fn, functools.partial) and _is_torchs(loss_fn.func) and not loss_fn.args:
        return MIXED_LOSSES[loss_fn.func](output, target, **loss_fn.keywords)
    for kind, (function, options) in TORCH_MODULES.items():
        # A subclass counts as torch's own unless it computes something else.
        if isinstance(bare, kind) and type(bare).forward is kind.forward:
            return MIXED_LOSSES[function](output, target, **{name: getattr(bare, name) for name in options})
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


def _is_torchs(loss_fn: LossFn) -> bool:
    return isinstance(loss_fn, Hashable) and loss_fn in MIXED_LOSSES


def _bare(loss_fn: LossFn) -> LossFn:
    """The module inside of a compiled one, which is no instance of its class."""
    compiled = isinstance(loss_fn, nn.Module) and "_orig_mod" in loss_fn._modules
    return loss_fn._orig_mod if compiled else loss_fn  # type: ignore[attr-defined]


def _mix_any(loss_fn: LossFn, output: Any, target: MixedTarget) -> Tensor:
    _check_callable(loss_fn)
    reduction = _reduction_of(loss_fn)
    if reduction is None:
        return _combine(loss_fn(output, target.a), loss_fn(output, target.b), target.lam)
    with _unreduced(loss_fn) as loss_of_rows:
        own, partners = loss_of_rows(output, target.a), loss_of_rows(output, target.b)
    loss = _combine(own, partners, target.lam, unreduced=True)
    if loss.dim() == 0:
        return loss
    bare = _bare(loss_fn)
    if reduction == "mean" and isinstance(bare, OF_CLASSES) and not target.dtype.is_floating_point:
        ignored = -100 if bare.ignore_index is None else bare.ignore_index
        return (loss.sum() / count_labels(target, bare.weight, ignored)).to(loss.dtype)
    return reduce_rows(loss, reduction)


def _combine(loss_a: Tensor, loss_b: Tensor, lam: Tensor, *, unreduced: bool = False) -> Tensor:
    """Both losses by their weights; ``unreduced`` where they were asked for without a reduction."""
    if not isinstance(loss_a, Tensor):
        raise MixError(f"loss_fn takes output and target to a tensor, got {describe(loss_a)}")
    if loss_a.dim() == 0:
        return _combine_scalars(loss_a, loss_b, lam, unreduced)
    if loss_a.shape[0] != lam.shape[0]:
        raise MixError(
            f"loss_fn takes an output of {lam.shape[0]} samples to as many losses, got {loss_a.shape[0]}: "
            "flatten output and target alike, target.view(-1)"
        )
    rows = as_rows(lam, loss_a.dim())
    return (weigh(rows, loss_a) + weigh(1 - rows, loss_b)).to(loss_a.dtype)


def _combine_scalars(loss_a: Tensor, loss_b: Tensor, lam: Tensor, unreduced: bool) -> Tensor:
    """One number for the whole batch can be mixed where one ``lam`` holds for the whole batch."""
    lam = lam.reshape(-1)  # that of a lone value is one number
    if len(lam) > 1 and not bool((lam == lam[0]).all()):
        ways_out = (  # Dice losses have a reduction from their base class, and look elsewhere
            " whatever its reduction: mix with per='batch', or masks by a method that pastes, such as "
            "CutMix, which keeps them plain tensors"
            if unreduced
            else ": give it reduction='none', call it sample by sample (help(batchmix.mixed_loss) shows how)"
            ", or mix with per='batch'"
        )
        raise MixError(
            "loss_fn takes output and target to one loss a sample where lam differs between samples, got one "
            f"number{ways_out}"
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
