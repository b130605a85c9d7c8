"""The optimizers of a run: which weights go to which, and at what rates."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch

from batchmix.recipe.config import TrainConfig
from batchmix.recipe.machine import in_bfloat16
from batchmix.recipe.muon import Muon, Update, orthogonalize, update_together
from batchmix.recipe.nets import AnyNet, compile_mode

BETA2 = 0.99  # of AdamW, fastai's choice; its momentum is 0.9 unless a schedule moves it


def make_optimizers(net: AnyNet, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The optimizers that a config names; each group of weights knows its ``peak_lr``.

    ``muon``: Muon for the filters, SGD with Nesterov momentum for biases and the last layer. ``sgd``: that
    SGD for the filters too, which takes a ``filter_lr`` of its own, about 0.0015. ``adamw``: AdamW at one
    rate, ``filter_lr``, with a weight decay of its own kind.
    """
    if config.optimizer == "adamw":
        decay, rate = config.weight_decay, config.filter_lr
        learned = [weight for weight in net.parameters() if weight.requires_grad]
        return _with_peaks([torch.optim.AdamW(learned, lr=rate, betas=(0.9, BETA2), weight_decay=decay)])
    filters, biases, heads = _learned(net)
    groups = [_group(biases, config.bias_lr), _group(heads, config.head_lr)]
    if net.whitening is not None:
        groups = [{**_group([net.whitening.bias], config.bias_lr), "early": True}, *groups]
    if config.optimizer == "sgd":
        groups.append(_group(filters, config.filter_lr))
    for group in groups:
        # Decay is given per image; SGD applies it once a step, times the rate.
        decay = config.weight_decay * config.batch_size
        group["weight_decay"] = decay / group["lr"] if group["lr"] else 0.0
    device = next(net.parameters()).device
    # As one operation on a GPU, in which the rate may be a tensor that a graph reads.
    sgd = torch.optim.SGD(groups, momentum=0.85, nesterov=True, fused=device.type == "cuda")
    if config.optimizer == "sgd":
        return _with_peaks([sgd])
    if compile_mode(config, device) is not None:
        return _with_peaks([sgd, Muon(filters, lr=config.filter_lr, update=compiled_update())])
    bfloat16 = in_bfloat16(device, config.precision)
    direction = functools.partial(orthogonalize, dtype=torch.bfloat16) if bfloat16 else orthogonalize
    return _with_peaks([sgd, Muon(filters, lr=config.filter_lr, orthogonalize=direction)])


@functools.cache
def compiled_update() -> Update:
    """Muon's update of all filters as one program, for all runs of this process."""
    compiled: Update = torch.compile(update_together, dynamic=False)
    return compiled


def rates_on(device: torch.device, optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Keep every learning rate as a number on a device, which can be written to while programs read it."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32, device=device)


def set_rate(group: dict[str, Any], rate: float) -> None:
    """The learning rate of a group, written to where it lies if it is a tensor."""
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def forget(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Set all memory of past gradients to 0, in place: what a graph reads stays where it is."""
    for optimizer in optimizers:
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    value.zero_()


def _learned(net: AnyNet) -> tuple[list[Any], list[Any], list[Any]]:
    """Filters, biases (weights of norms too) and matrices that learn, but for the whitening layer's."""
    whitening = set() if net.whitening is None else set(net.whitening.parameters())
    learned = [weight for weight in net.parameters() if weight.requires_grad and weight not in whitening]
    filters, biases, heads = ([weight for weight in learned if weight.dim() == dim] for dim in (4, 1, 2))
    return filters, biases, heads


def _group(weights: list[Any], rate: float) -> dict[str, Any]:
    return {"params": weights, "lr": rate}


def _with_peaks(optimizers: list[torch.optim.Optimizer]) -> list[torch.optim.Optimizer]:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers
