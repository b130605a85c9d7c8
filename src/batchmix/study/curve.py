"""How far a run is, and its learning curve: the same for images and for tasks of the user's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

POINTS = 10  # of a learning curve
GLANCE = 2000  # test samples for each of them but the last
REPORTS = 200  # steps whose training loss is read back, at most


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    step: int
    steps: int


class Curve:
    """The learning curve of a run: up to ``POINTS`` points, of which the last is at its end.

    Args:
        steps: Of the whole run.
        steps_per_epoch: Of an epoch.

    Attributes:
        points: Those of the record, up to now.
        losses: What training read back since the last point.
    """

    def __init__(self, steps: int, steps_per_epoch: int) -> None:
        self.steps, self.steps_per_epoch = steps, steps_per_epoch
        apart = max(1, steps / POINTS) / steps_per_epoch  # epochs from one point to the next
        self._digits = max(3, 1 - math.floor(math.log10(apart)))  # so that no two points are at one place
        self.points: list[dict[str, Any]] = []
        self.losses: list[float] = []

    def is_due(self, step: int) -> bool:
        """Whether a point is to be added after ``step`` steps, before the end."""
        return step < self.steps and step * POINTS // self.steps > len(self.points)

    def add(self, step: int, scores: Mapping[str, Any]) -> None:
        """Add a point: the mean loss in training since the one before, and scores of the test samples."""
        self.points.append(
            {
                "epoch": round(step / self.steps_per_epoch, self._digits),
                "train_loss": sum(self.losses) / len(self.losses),
                "accuracy": scores["accuracy"],
                "loss": scores["loss"],
            }
        )
        self.losses = []
