"""The oracle: plain loops over samples, written from the definitions and not from the library.

Everything is computed in float64 and stays differentiable.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def blend(
    x: Tensor,
    partner: Tensor,
    lam: Tensor,
    mask: Tensor | None = None,
    other: Tensor | None = None,
    window: Tensor | None = None,
) -> Tensor:
    """Sample by sample ``w*x[i] + (1-w)*other[partner[i]]``, float64; the partner resized into a window."""
    other = x if other is None else other
    rows = []
    for i, j in enumerate(partner.tolist()):
        weight = lam[i] if mask is None else mask[i if len(mask) > 1 else 0]
        mate = other[j].double()
        if window is not None:
            mate = resized(mate, window[i].tolist())
        rows.append(weight.double() * x[i].double() + (1 - weight.double()) * mate)
    return torch.stack(rows)


def resized(x: Tensor, window: list[int]) -> Tensor:
    """One sample (..., H, W) resized linearly into its window, pixels being squares; edges go on outside."""
    axes = len(window) // 2
    for axis in range(axes):
        dim = x.dim() - axes + axis
        x = torch.tensordot(
            x.movedim(dim, -1), line_weights(x.shape[dim], *window[2 * axis : 2 * axis + 2]), ([-1], [1])
        ).movedim(-1, dim)
    return x


def line_weights(side: int, start: int, end: int) -> Tensor:
    """What each old pixel of a line counts in each new one, (new, old): the two nearest by their distance."""
    weights = torch.zeros(side, side, dtype=torch.float64)
    for new in range(side):
        at = (new + 0.5 - start) / (end - start) * side - 0.5
        at = min(max(at, 0.0), side - 1.0)
        low = int(at)
        weights[new, low] += 1 - (at - low)
        weights[new, min(low + 1, side - 1)] += at - low
    return weights


def box_masks(boxes: list[list[int]], size: tuple[int, int]) -> Tensor:
    """False inside (top, bottom, left, right), true elsewhere: (B, 1, H, W), pixel by pixel."""
    masks = torch.ones(len(boxes), 1, *size, dtype=torch.bool)
    for i, (top, bottom, left, right) in enumerate(boxes):
        for row in range(size[0]):
            for column in range(size[1]):
                masks[i, 0, row, column] = not (top <= row < bottom and left <= column < right)
    return masks


def pair_loss(loss_of: Callable[[int, Tensor], Tensor], a: Tensor, b: Tensor, lam: Tensor) -> Tensor:
    """``lam*l(i, a[i]) + (1-lam)*l(i, b[i])`` for every sample, stacked; a weight of 0 counts nothing."""
    rows = []
    for i, own in enumerate(lam.double().tolist()):
        first, second = loss_of(i, a[i]).double(), loss_of(i, b[i]).double()
        rows.append(first if own == 1 else second if own == 0 else own * first + (1 - own) * second)
    return torch.stack(rows)


def cross_entropy(
    logits: Tensor,
    a: Tensor,
    b: Tensor,
    lam: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    is_log_probs: bool = False,
) -> Tensor:
    """Mixed cross entropy of class ids: every place of every sample by itself.

    The mean divides the sum of losses by the sum of ``lam*w[a] + (1-lam)*w[b]``, ignored labels left out.
    """
    classes = logits.shape[1]
    by_place = logits.double().movedim(1, -1)
    weights = [1.0] * classes if weight is None else weight.double().tolist()
    losses, counted = [], 0.0
    for place in _places(a.shape):
        scores = by_place[place]
        log_probs = scores if is_log_probs else scores - torch.logsumexp(scores, 0)
        own = float(lam[place[0]])
        loss = torch.zeros((), dtype=torch.float64)
        for label, share in ((int(a[place]), own), (int(b[place]), 1 - own)):
            if label == ignore_index or share == 0:
                continue
            hard = -weights[label] * log_probs[label]
            if label_smoothing:
                smooth = -sum(weights[k] * log_probs[k] for k in range(classes)) / classes
                hard = (1 - label_smoothing) * hard + label_smoothing * smooth
            loss = loss + share * hard
            counted += share * weights[label]
        losses.append(loss)
    return _reduce(torch.stack(losses).view(a.shape), reduction, counted)


def soft_cross_entropy(
    logits: Tensor,
    probs: Tensor,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Cross entropy (B, K) against probabilities (B, K); the mean divides by B, as torch does."""
    classes = logits.shape[1]
    losses = []
    for i in range(len(logits)):
        log_probs = logits[i].double() - torch.logsumexp(logits[i].double(), 0)
        wanted = smooth(probs[i].double().tolist(), label_smoothing)
        scale = [1.0] * classes if weight is None else weight.double().tolist()
        losses.append(-sum(scale[k] * wanted[k] * log_probs[k] for k in range(classes)))
    return _reduce(torch.stack(losses), reduction, len(losses))


def smooth(probs: Sequence[float], label_smoothing: float) -> list[float]:
    """Label smoothing as torch defines it: a share of every class alike."""
    return [(1 - label_smoothing) * p + label_smoothing / len(probs) for p in probs]


def dense(a: Tensor, b: Tensor, lam: Tensor, classes: int) -> Tensor:
    """Class ids (B, ...) as probabilities (B, ..., K)."""
    probs = torch.zeros(*a.shape, classes, dtype=torch.float64)
    for place in _places(a.shape):
        own = float(lam[place[0]])
        probs[place][int(a[place])] += own
        probs[place][int(b[place])] += 1 - own
    return probs


def expected_accuracy(logits: Tensor, a: Tensor, b: Tensor, lam: Tensor) -> float:
    """Each place earns the weight of the label that was guessed."""
    earned, count = 0.0, 0
    by_place = logits.movedim(1, -1)
    for place in _places(a.shape):
        guess = max(range(logits.shape[1]), key=lambda k, scores=by_place[place]: float(scores[k]))
        own = float(lam[place[0]])
        earned += own * (guess == int(a[place])) + (1 - own) * (guess == int(b[place]))
        count += 1
    return earned / count


def calibration_error(probs: Tensor, labels: Tensor, bins: int) -> float:
    """|accuracy - confidence| of each bin, weighted by its share of the samples."""
    members: list[list[tuple[float, float]]] = [[] for _ in range(bins)]
    for row, label in zip(probs.tolist(), labels.tolist(), strict=True):
        confidence = max(row)
        members[min(int(confidence * bins), bins - 1)].append(
            (confidence, float(row.index(confidence) == label))
        )
    error = 0.0
    for group in members:
        if group:
            confidence = sum(c for c, _ in group) / len(group)
            accuracy = sum(hit for _, hit in group) / len(group)
            error += len(group) / len(labels) * abs(accuracy - confidence)
    return error


def keep_energy(mixed: Tensor, weights: Tensor) -> Tensor:
    """Each mix of two waveforms divided by ``sqrt(p**2 + (1-p)**2)``; ``weights`` (B, 1) are the p."""
    rows = []
    for row, weight in zip(mixed.double(), weights.double().flatten().tolist(), strict=True):
        rows.append(row / (weight**2 + (1 - weight) ** 2) ** 0.5)
    return torch.stack(rows)


def energy_weight(first: Tensor, second: Tensor, lam: float) -> float:
    """Between-class learning's p of two waveforms, by their root mean squares, for ``0 < lam < 1``."""
    levels = [
        20 * math.log10(math.sqrt(sum(v * v for v in wave.double().flatten().tolist()) / wave.numel()))
        for wave in (first, second)
    ]
    return 1 / (1 + 10 ** ((levels[0] - levels[1]) / 20) * (1 - lam) / lam)


def transport_cost(x: Tensor, other: Tensor, rows: Sequence[int], columns: Sequence[int]) -> float:
    """Least sum of squared distances of any way to assign ``columns`` of ``other`` to ``rows`` of ``x``."""
    least = math.inf
    for order in itertools.permutations(columns):
        pairs = zip(rows, order, strict=True)
        least = min(least, sum(float((x[i].double() - other[j].double()).square().sum()) for i, j in pairs))
    return least


def near_probabilities(y: Tensor, i: int, sigma: float) -> list[float]:
    """C-Mixup's probability of each partner of sample i, which is not its own."""
    squares = [float((y[i].double() - y[j].double()).square().sum()) for j in range(len(y))]
    weights = [0.0 if j == i else math.exp(-d / (2 * sigma**2)) for j, d in enumerate(squares)]
    return [w / sum(weights) for w in weights]


def paste(x: Tensor, partner: Tensor, own: Tensor) -> Tensor:
    """Position by position the sample's own value or its partner's, of any dtype; ``own`` is (B, L)."""
    mixed = x.clone()
    for i, j in enumerate(partner.tolist()):
        for place in range(x.shape[1]):
            if not own[i, place]:
                mixed[i, place] = x[j, place]
    return mixed


def _places(shape: torch.Size) -> list[tuple[int, ...]]:
    places: list[tuple[int, ...]] = [()]
    for size in shape:
        places = [(*place, i) for place in places for i in range(size)]
    return places


def _reduce(losses: Tensor, reduction: str, count: float) -> Tensor:
    if reduction == "none":
        return losses
    total = losses.sum()
    return total if reduction == "sum" else total / count
