"""Batch norm over the batches of all ranks, for any net as it stands, on any backend.

``torch.nn.SyncBatchNorm`` does it on GPUs alone, and has to take the place of each layer. Here the function
beneath the layers is what changes, while a context lasts: the net keeps its modules and the names of its
weights, and subclasses such as timm's norm with activation need no case of their own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from batchmix.errors import MixError

_ARGUMENTS = inspect.signature(F.batch_norm)


class GlobalNorm(TorchFunctionMode):
    """While it lasts, ``F.batch_norm`` in training takes mean and variance over the samples of all ranks.

    Every rank has to call the same norms in the same order, as any collective. Running statistics come out
    the same on all ranks. Two passes, mean and then variance, as in the kernels for one process: the results
    are theirs to rounding.

    Sends, for each layer of C channels, C + 1 and C numbers forward, and as many backward.

    Attributes:
        seen: Norms that were computed so.

    Example:
        >>> norms = GlobalNorm()
        >>> with norms:  # in one process: plain batch norm
        ...     y = nn.BatchNorm1d(3)(torch.rand(8, 3))
        >>> norms.seen
        1
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Compute training's batch norm otherwise; let all else pass."""
        given = dict(kwargs or {})
        if func is F.batch_norm:
            bound = _ARGUMENTS.bind(*args, **given)
            bound.apply_defaults()
            if bound.arguments["training"]:
                self.seen += 1
                return _norm(**{**bound.arguments, "training": None})
        return func(*args, **given)

    def check(self, net: nn.Module) -> None:
        """After a step, refuse a net with norms that do not call ``F.batch_norm``: each rank had its own.

        Raises:
            MixError: If there are more layers with running statistics than norms were seen.
        """
        layers = sum(getattr(module, "running_mean", None) is not None for module in net.modules())
        if layers > self.seen:
            raise MixError(
                f"--exact takes nets whose norms call F.batch_norm, {layers - self.seen} here do not"
            )


def _norm(
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
    training: None,
) -> Tensor:
    """``F.batch_norm`` of a batch (B, C, ...) that lies on several ranks; at least in float32."""
    x = input if input.dtype == torch.float64 else input.float()
    places = [0, *range(2, x.dim())]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    own = x.new_full((1,), x.numel() / x.shape[1])  # filled on the device, which nobody waits for
    summed = _Sum.apply(torch.cat([x.sum(places), own]))  # type: ignore[no-untyped-call]
    count = summed[-1].detach()
    mean: Tensor = summed[:-1] / count
    centred = x - mean.view(shape)
    var: Tensor = _Sum.apply(centred.square().sum(places)) / count  # type: ignore[no-untyped-call]
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.detach().to(running_mean.dtype), momentum)
            running_var.lerp_((var.detach() * (count / (count - 1))).to(running_var.dtype), momentum)
    y = centred * (var + eps).rsqrt().view(shape)
    if weight is not None:
        y = y * weight.view(shape)
    if bias is not None:
        y = y + bias.view(shape)
    normed: Tensor = y.to(input.dtype)
    return normed


class _Sum(torch.autograd.Function):
    """The sum over all ranks. Each rank's loss depends on it, so its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return _total(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _total(gradient)


def _total(value: Tensor) -> Tensor:
    total = value.clone()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(total)
    return total
