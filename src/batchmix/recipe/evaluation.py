"""What a trained net is worth on the test images."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchmix.core.metrics import calibration_error

Autocast = Callable[[], contextlib.AbstractContextManager[Any]]

BINS = 15  # of equal width, as many as ``calibration_error`` has


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
    unsure: float = 1.0,
) -> Scores:
    """Score ``net`` on normalised images (N, 3, H, W) and class ids (N,).

    ``accuracy_tta`` averages the logits over the image, its mirror image and both shifted by one pixel to
    two opposite corners, for the ``unsure`` share of images whose largest probability is smallest; everything
    else is of the plain image.

    Source: Jordan 2024, arXiv:2404.00498, section 3.5, for the views.
    """
    was_training = net.training
    net.eval()
    with torch.no_grad():  # not inference mode: there a compiled net is compiled anew for views of the images
        plain = torch.cat([_logits(net, part, autocast) for part in torch.split(images, batch_size)])
        augmented = plain.clone()
        chosen = _least_sure(plain, round(unsure * len(plain)))
        for part in torch.split(chosen, batch_size):
            views = images[part].contiguous(memory_format=torch.channels_last)
            augmented[part] = _six_views(net, views, plain[part], autocast)
    net.train(was_training)
    return Scores(**score(plain, labels), accuracy_tta=_share(augmented.argmax(1) == labels))


def score(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy, loss (nats), mean confidence, calibration error and Brier score of logits (N, K)."""
    probs = logits.softmax(1)
    hot = F.one_hot(labels, probs.shape[1])
    return {
        "accuracy": _share(logits.argmax(1) == labels),
        "loss": F.cross_entropy(logits, labels).item(),
        "confidence": probs.amax(1).mean().item(),
        "ece": calibration_error(probs, labels).item(),
        "brier": ((probs - hot) ** 2).sum(1).mean().item(),
    }


def predict(
    net: nn.Module,
    images: Tensor,
    *,
    batch_size: int = 500,
    autocast: Autocast = contextlib.nullcontext,
) -> Tensor:
    """Float32 logits (N, K) of normalised images (N, 3, H, W) as they are; the net is left in its mode."""
    was_training = net.training
    net.eval()
    with torch.no_grad():
        logits = torch.cat([_logits(net, part, autocast) for part in torch.split(images, batch_size)])
    net.train(was_training)
    return logits


def _logits(net: nn.Module, x: Tensor, autocast: Autocast) -> Tensor:
    """Float32 logits, copied: a compiled net may write its next result where the last one lies."""
    with autocast():
        logits: Tensor = net(x)
    return logits.to(torch.float32, copy=True)


def _least_sure(logits: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` images whose largest probability is smallest, in their order."""
    if count == len(logits):
        return torch.arange(count, device=logits.device)
    return logits.softmax(1).amax(1).topk(count, largest=False).indices.sort().values


def _six_views(net: nn.Module, images: Tensor, plain: Tensor, autocast: Autocast) -> Tensor:
    """Float32 logits averaged over six views; ``plain`` are those of the images as they are."""
    augmented = (plain + _logits(net, images.flip(-1), autocast)) / 4
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    for corner in (padded[:, :, :-2, :-2], padded[:, :, 2:, 2:]):
        shifted = corner.contiguous(memory_format=torch.channels_last)
        both = _logits(net, shifted, autocast) + _logits(net, shifted.flip(-1), autocast)
        augmented = augmented + both / 8
    return augmented


def _share(hits: Tensor) -> float:
    return hits.sum().item() / len(hits)  # a mean in float32 would bring noise that differs from run to run


# Calibration


def calibration_scores(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """``reliability`` and what ``scaled_scores`` gives, for logits (N, K) and class ids (N,)."""
    return {**scaled_scores(logits, labels), "reliability": reliability(logits, labels)}


def reliability(logits: Tensor, labels: Tensor) -> dict[str, list[Any]]:
    """What a reliability diagram shows: for each of 15 bins of the largest probability, who is in it.

    Args:
        logits: (N, K).
        labels: (N,) class ids.

    Returns:
        ``count``, mean ``confidence`` and ``accuracy`` of each bin; the last two are None where it is empty.

    Source: Guo et al. 2017, arXiv:1706.04599, section 2.
    """
    confidence, guess = logits.softmax(1).double().cpu().max(1)
    place = (confidence * BINS).long().clamp(0, BINS - 1)
    hits = (guess == labels.cpu()).double()
    count = torch.bincount(place, minlength=BINS)
    sums = (torch.zeros(BINS, dtype=torch.float64).index_add_(0, place, v) for v in (confidence, hits))
    means = ([s / n if n else None for s, n in zip(t.tolist(), count.tolist(), strict=True)] for t in sums)
    return {"count": count.tolist(), "confidence": next(means), "accuracy": next(means)}


def best_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that divides logits (N, K) to the smallest loss on labels (N,), in [0.01, 100].

    The loss is convex in the reciprocal of the temperature, so that its slope has one zero, which halving
    an interval finds. Where every guess is right the smallest temperature is best.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    logits = logits.double()
    own = logits.gather(1, labels[:, None]).squeeze(1)
    low, high = math.log(1 / 100), math.log(100)  # of the reciprocal
    for _ in range(40):
        middle = (low + high) / 2
        expected = ((logits * math.exp(middle)).softmax(1) * logits).sum(1)
        low, high = (low, middle) if (expected - own).mean() > 0 else (middle, high)
    return math.exp(-(low + high) / 2)


def scaled_scores(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Calibration error and loss after temperature scaling, and the temperature.

    Each half of the samples (every other one) is divided by the temperature that fits the other half best,
    so that no sample has a part in its own temperature. ``temperature`` is the geometric mean of the two.
    """
    logits, halves = logits.clone(), (slice(0, None, 2), slice(1, None, 2))
    fitted = [best_temperature(logits[half], labels[half]) for half in halves]
    for half, temperature in zip(halves, reversed(fitted), strict=True):
        logits[half] /= temperature
    scores = score(logits, labels)
    temperature = math.sqrt(fitted[0] * fitted[1])
    return {"temperature": temperature, "ece_scaled": scores["ece"], "loss_scaled": scores["loss"]}
