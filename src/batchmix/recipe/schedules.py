"""How the learning rate, and AdamW's momentum with it, follow the progress of a run."""

from __future__ import annotations

import math

# The triangle of airbench94: where it begins, where its peak lies, where it ends.
START, PEAK, END = 0.2, 0.23, 0.07
# fastai's one cycle: what the peak is divided by at the start, and again by the end, and where the peak lies.
DIVISION, FINAL_DIVISION, HALF = 10, 1e4, 0.5
MOMENTA = 0.95, 0.85  # at the ends of the cycle and at its peak


def rate_at(schedule: str, progress: float) -> float:
    """What the peak learning rate is multiplied by.

    Args:
        schedule: ``"linear"``, ``"triangle"`` or ``"one-cycle"``.
        progress: Share of the steps that are done, in [0, 1].

    Returns:
        A factor in [0, 1].

    Source: Jordan 2024, arXiv:2404.00498 (triangle); Smith 2018, arXiv:1803.09820, with the
    cosines and divisions of fastai 1 (one cycle).

    Example:
        >>> [rate_at("linear", share) for share in (0, 0.5, 1)]
        [1.0, 0.5, 0.0]
    """
    if schedule == "triangle":
        return _line(START, 1, progress / PEAK) if progress < PEAK else _line(1, END, _since(PEAK, progress))
    if schedule == "one-cycle":
        low, last = 1 / DIVISION, 1 / (DIVISION * FINAL_DIVISION)
        return _cycle(low, 1, last, progress)
    return 1.0 - progress


def momentum_at(progress: float) -> float:
    """The momentum of a one-cycle run, which falls while the learning rate rises."""
    ends, peak = MOMENTA
    return _cycle(ends, peak, ends, progress)


def _cycle(first: float, peak: float, last: float, progress: float) -> float:
    """Half a cosine up to the peak, half a cosine down from it."""
    if progress < HALF:
        return _cosine(first, peak, progress / HALF)
    return _cosine(peak, last, _since(HALF, progress))


def _since(place: float, progress: float) -> float:
    return (progress - place) / (1 - place)


def _line(first: float, last: float, share: float) -> float:
    return first + (last - first) * share


def _cosine(first: float, last: float, share: float) -> float:
    return _line(first, last, (1 - math.cos(math.pi * share)) / 2)
