"""Numbers about predictions that mean something for mixed batches, and calibration."""

from __future__ import annotations

import torch
from torch import Tensor

from batchmix.core.plan import describe
from batchmix.core.sampling import check_count
from batchmix.core.targets import MixedTarget, count_correct
from batchmix.errors import MixError


def expected_accuracy(
    logits: Tensor, target: MixedTarget | Tensor, *, ignore_index: int = -100, top_k: int = 1
) -> Tensor:
    """Share of correct predictions; for a mixed target each label counts with its weight.

    Args:
        logits: (B, K) or (B, K, ...).
        target: Class ids, mixed or plain: (B) or (B, ...).
        ignore_index: A class id that is left out of the mean, as in ``F.cross_entropy``.
        top_k: A label counts where it is among so many of the largest logits, 1 to K.

    Returns:
        0-d float32 in [0, 1], NaN where all is ignored.

    Raises:
        MixError: If the shapes do not fit, or the targets are not class ids.

    Example:
        >>> target = MixedTarget(torch.tensor([0]), torch.tensor([1]), 0.75)
        >>> expected_accuracy(torch.tensor([[0.0, 1.0, 0.0]]), target)
        tensor(0.2500)
    """
    correct, count = count_correct(logits, target, ignore_index, top_k)
    return correct / count


def calibration_error(probs: Tensor, labels: Tensor, *, bins: int = 15) -> Tensor:
    """Expected calibration error of the most probable class: how far confidence is from accuracy.

    Samples fall into ``bins`` of equal width by confidence; the result is the mean over samples of
    ``|accuracy - confidence|`` of their bin.

    Args:
        probs: (N, K) probabilities.
        labels: (N,) class ids.
        bins: Number of bins, at least 1.

    Returns:
        0-d float32 in [0, 1].

    Raises:
        MixError: If the shapes do not fit, or ``bins`` is no whole number >= 1.

    Example:
        >>> probs = torch.tensor([[0.75, 0.25], [0.75, 0.25]])  # sure to 0.75, right in one of two
        >>> calibration_error(probs, torch.tensor([0, 1]))
        tensor(0.2500)

    Source: Guo et al. 2017, arXiv:1706.04599, eq. 3.
    """
    if probs.dim() != 2 or labels.shape != probs.shape[:1] or not len(labels):
        raise MixError(f"labels takes one class id a row of probs {describe(probs)}, got {describe(labels)}")
    bins = check_count("bins", bins)
    confidence, guess = probs.float().max(1)
    place = (confidence * bins).long().clamp(0, bins - 1)
    gap = (guess == labels).float() - confidence
    sums = torch.zeros(bins, dtype=gap.dtype, device=gap.device).index_add_(0, place, gap)
    return sums.abs().sum() / len(labels)
