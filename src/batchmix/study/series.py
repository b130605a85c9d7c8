"""What the charts draw, as plain numbers: curves over the epochs, pooled reliability, the frontier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from batchmix.files import is_number
from batchmix.study.comparisons import values
from batchmix.study.records import Budget, Study
from batchmix.study.statistics import Interval, mean_interval

COLOURS = 8  # in templates/report.css and picture.py; the first is the baseline's
FEWEST = 30  # predictions of a bin that is drawn: fewer are noise that takes the eye

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curves:
    """One number over the epochs, for all seeds of an arm.

    Attributes:
        runs: (epoch, value) of each run; values that are not finite are gaps left out.
        mean: (epoch, mean) where every run has a value.
    """

    runs: tuple[Points, ...]
    mean: Points


@dataclass(frozen=True)
class Reliability:
    """Predictions of all runs of an arm, by the probability given to the predicted class.

    Attributes:
        count: Predictions in each bin; the bins are of equal width.
        confidence: Mean probability of a bin; None where it is empty.
        accuracy: Share of a bin that was right.
    """

    count: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]

    @property
    def gap(self) -> float:
        """The calibration error of the pooled predictions."""
        bins = zip(self.share, self.confidence, self.accuracy, strict=True)
        return sum(share * abs((a or 0.0) - (c or 0.0)) for share, c, a in bins)

    @property
    def share(self) -> list[float]:
        """The part of all predictions that each bin holds."""
        return [count / sum(self.count) for count in self.count]

    @property
    def points(self) -> Points:
        """(confidence, accuracy) in percent, of the bins that hold enough predictions to say something."""
        bins = zip(self.count, self.confidence, self.accuracy, strict=True)
        return [(100 * c, 100 * a) for n, c, a in bins if n >= FEWEST and c is not None and a is not None]


def curves(study: Study, arm: str, budget: Budget, key: str) -> Curves:
    """A number of the records' ``curve`` over the epochs.

    Args:
        study: The study.
        arm: The arm.
        budget: Training images and epochs.
        key: "accuracy", "loss" or "train_loss".
    """
    runs = [
        [(float(at["epoch"]), float(at[key])) for at in record.get("curve") or [] if is_number(at.get(key))]
        for _, record in sorted(study.done(arm, budget).items())
    ]
    by_epoch: dict[float, list[float]] = {}
    for epoch, value in (point for run in runs for point in run):
        by_epoch.setdefault(round(epoch, 6), []).append(value)
    mean = [(epoch, fmean(found)) for epoch, found in sorted(by_epoch.items()) if len(found) == len(runs)]
    return Curves(tuple(runs), mean)


def reliability(study: Study, arm: str, budget: Budget) -> Reliability | None:
    """The bins of all seeds together; None where no run has any."""
    runs = [record["reliability"] for record in study.done(arm, budget).values() if record.get("reliability")]
    if not any(sum(run["count"]) for run in runs):
        return None
    counts = [sum(column) for column in zip(*(run["count"] for run in runs), strict=True)]
    return Reliability(
        tuple(counts),
        *(tuple(_pool(runs, name, counts)) for name in ("confidence", "accuracy")),
    )


def _pool(runs: Sequence[Mapping[str, Any]], name: str, counts: Sequence[int]) -> list[float | None]:
    """The mean of each bin over runs, each run with the weight of its count."""
    return [
        sum(run["count"][i] * (run[name][i] or 0.0) for run in runs) / count if count else None
        for i, count in enumerate(counts)
    ]


def frontier(study: Study, arm: str, images: int, key: str) -> list[tuple[float, Interval]]:
    """A score against the epochs of training, at one number of images: (epochs, mean with interval)."""
    found = [
        (epochs, mean_interval(list(values(study, arm, (count, epochs), key).values())))
        for count, epochs in sorted(study.budgets)
        if count == images
    ]
    return [(epochs, interval) for epochs, interval in found if interval.n]


def colour(study: Study, arm: str) -> tuple[int, bool]:
    """The place of an arm's colour among ``COLOURS``, and whether it is dashed.

    The baseline keeps the first colour for itself; more arms than colours begin again, dashed.
    """
    index = study.arms.index(arm)
    if index < COLOURS:
        return index, False
    return 1 + (index - 1) % (COLOURS - 1), True


def aside(study: Study, arm: str) -> float:
    """A factor for the epochs of an arm's points, so that intervals do not cover one another."""
    return 1 + 0.015 * (study.arms.index(arm) - (len(study.arms) - 1) / 2)


def frontiers(study: Study) -> list[int]:
    """The numbers of images that were trained for more than one length."""
    counts = [images for images, _ in study.budgets]
    return [images for images in dict.fromkeys(counts) if counts.count(images) > 1]
