"""What a target says, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from batchmix.core.plan import describe
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError
from batchmix.pictures.checks import as_tensor

# What one sample is, as (label, weight) of each part.
_Shares = list[tuple[int, float]]


def label_texts(y: Any, class_names: Sequence[str] | None = None) -> list[str]:
    """Say what each target is: "dog", or "70% dog, 30% cat".

    Weights are rounded to whole percents, two that make up everything so that they still do; a class that
    rounds to 0% is left out. Of the weights of many classes the two largest are named.

    Args:
        y: A MixedTarget of labels (B,) or of class weights (B, K), or such labels or weights themselves.
        class_names: The name of each class; the labels' numbers if left out.

    Returns:
        B texts.

    Raises:
        MixError: If ``y`` is none of these, a weight is outside [0, 1], or a label has no name.

    Example:
        >>> label_texts(torch.tensor([1, 0]), ["cat", "dog"])
        ['dog', 'cat']
        >>> label_texts(torch.tensor([[0.25, 0.75]]), ["cat", "dog"])
        ['75% dog, 25% cat']
    """
    if isinstance(y, MixedTarget):
        return [_weighted_text(shares, class_names) for shares in _mixed_shares(y)]
    y = as_tensor("y", y)
    if y.dim() == 2:
        return [_weighted_text(shares, class_names) for shares in _largest_shares(y)]
    _check_labels(y)
    return [_name(label, class_names) for label in y.tolist()]


def whole_percents(weights: Sequence[float]) -> list[int]:
    """Whole percents; two weights that make up 1 still do so, where each rounded alone could give 101."""
    percents = [round(100 * weight) for weight in weights]
    if len(weights) == 2 and abs(sum(weights) - 1) < 1e-3:
        percents[1] = 100 - percents[0]
    return percents


def percent_text(percents: Sequence[int], names: Sequence[str]) -> str:
    """Percents and names as one text, without those at 0%, unless all are."""
    parts = list(zip(percents, names, strict=True))
    return ", ".join(f"{percent}% {name}" for percent, name in parts if percent) or f"0% {names[0]}"


def _mixed_shares(y: MixedTarget) -> list[_Shares]:
    """Labels and weights of each sample; one entry where both labels are the same."""
    y = y.to("cpu")
    _check_weights(y.lam)
    if y.a.dim() == 2 and y.a.is_floating_point():
        return _largest_shares(y.dense(y.a.shape[1]))
    _check_labels(y.a)
    rows = zip(y.a.tolist(), y.b.tolist(), y.lam.tolist(), strict=True)
    return [[(a, 1.0)] if a == b else [(a, lam), (b, 1 - lam)] for a, b, lam in rows]


def _largest_shares(weights: Tensor) -> list[_Shares]:
    """The two largest of (B, K) weights in each row."""
    _check_weights(weights)
    # A stable sort: of equal weights the smaller label comes first on every machine.
    largest = weights.double().sort(dim=1, descending=True, stable=True)
    tops = zip(largest.indices[:, :2].tolist(), largest.values[:, :2].tolist(), strict=True)
    return [list(zip(labels, shares, strict=True)) for labels, shares in tops]


def _weighted_text(shares: _Shares, class_names: Sequence[str] | None) -> str:
    labels, weights = zip(*shares, strict=True)
    return percent_text(whole_percents(weights), [_name(label, class_names) for label in labels])


def _name(label: int, class_names: Sequence[str] | None) -> str:
    if class_names is None:
        return str(label)
    if not 0 <= label < len(class_names):
        raise MixError(f"class_names takes a name for every label: label {label}, {len(class_names)} names")
    return str(class_names[label])


def _check_labels(y: Tensor) -> None:
    if y.dim() != 1 or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise MixError(f"y takes labels (B,), or weights of the classes (B, K), got {describe(y)}")


def _check_weights(weights: Tensor) -> None:
    """Refuse logits and the like, up to the rounding of half precision."""
    outside = not bool(((weights >= -1e-3) & (weights <= 1 + 1e-3)).all())
    if outside or not weights.numel():
        raise MixError(f"y takes weights in [0, 1], got others in a {describe(weights)}")
