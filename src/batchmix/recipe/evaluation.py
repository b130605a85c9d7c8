"""What a trained net is worth on the test images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchmix.core.metrics import calibration_error

Autocast = Callable[[], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True)
class Scores:
    """Numbers of one evaluation; shares are in [0, 1], the loss in nats."""

    accuracy: float
    accuracy_tta: float
    loss: float
    confidence: float
    ece: float
    brier: float

    def as_dict(self) -> dict[str, float]:
        """All numbers by name."""
        return dict(vars(self))


def evaluate(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int = 500,
    autocast: Autocast = contextlib.nullcontext,
) -> Scores:
    """Score ``net`` on normalised images (N, 3, H, W) and class ids (N,).

    ``accuracy_tta`` averages the logits over the image, its mirror image and both shifted by one pixel to
    two opposite corners; everything else is of the plain image.

    Source: Jordan 2024, arXiv:2404.00498, section 3.5, for the views.
    """
    was_training = net.training
    net.eval()
    with torch.inference_mode():
        parts = [_two_logits(net, part, autocast) for part in torch.split(images, batch_size)]
    net.train(was_training)
    plain, augmented = (torch.cat(logits) for logits in zip(*parts, strict=True))
    probs = plain.softmax(1)
    hot = F.one_hot(labels, probs.shape[1])
    return Scores(
        accuracy=_share(plain.argmax(1) == labels),
        accuracy_tta=_share(augmented.argmax(1) == labels),
        loss=F.cross_entropy(plain, labels).item(),
        confidence=probs.amax(1).mean().item(),
        ece=calibration_error(probs, labels).item(),
        brier=((probs - hot) ** 2).sum(1).mean().item(),
    )


def _two_logits(net: nn.Module, images: Tensor, autocast: Autocast) -> tuple[Tensor, Tensor]:
    """Float32 logits of the images as they are, and averaged over six views."""

    def both_ways(x: Tensor) -> tuple[Tensor, Tensor]:
        with autocast():
            return net(x).float(), net(x.flip(-1)).float()

    plain, mirrored = both_ways(images)
    augmented = (plain + mirrored) / 4
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    for corner in (padded[:, :, :-2, :-2], padded[:, :, 2:, 2:]):
        shifted = corner.contiguous(memory_format=torch.channels_last)
        augmented = augmented + sum(both_ways(shifted)) / 8
    return plain, augmented


def _share(hits: Tensor) -> float:
    return hits.float().mean().item()
