"""Learning curves read as "how many epochs to this accuracy?"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from batchmix.study.records import Budget, Study

GOAL_AT = 2 / 3  # of the baseline's training

Curve = Sequence[Mapping[str, Any]]


def goal_of(study: Study, budget: Budget) -> float:
    """The accuracy to reach: the median over the baseline's runs of that at two thirds of their training.

    nan where no run of the baseline has ended.
    """
    curves = [record["curve"] for record in study.done(study.baseline, budget).values()]
    return median(accuracy_at(curve, GOAL_AT * budget[1]) for curve in curves) if curves else float("nan")


def accuracy_at(curve: Curve, epoch: float) -> float:
    """The accuracy of a curve at an epoch, in a straight line between its points, and level beyond its ends.

    Example:
        >>> accuracy_at([{"epoch": 1, "accuracy": 0.2}, {"epoch": 3, "accuracy": 0.6}], 2.5)
        0.5
    """
    if epoch <= curve[0]["epoch"]:
        return float(curve[0]["accuracy"])
    for before, after in pairwise(curve):
        if epoch <= after["epoch"]:
            share = (epoch - before["epoch"]) / (after["epoch"] - before["epoch"])
            return float(before["accuracy"] + share * (after["accuracy"] - before["accuracy"]))
    return float(curve[-1]["accuracy"])


def epochs_to(curve: Curve, goal: float) -> float | None:
    """The epoch at which a curve first reaches an accuracy, in a straight line between its points.

    Returns:
        The epoch; that of the first point where it is there already; None where it never is.

    Example:
        >>> epochs_to([{"epoch": 1, "accuracy": 0.2}, {"epoch": 3, "accuracy": 0.6}], 0.5)
        2.5
    """
    if curve[0]["accuracy"] >= goal:
        return float(curve[0]["epoch"])
    for before, after in pairwise(curve):
        if after["accuracy"] >= goal:
            share = (goal - before["accuracy"]) / (after["accuracy"] - before["accuracy"])
            return float(before["epoch"] + share * (after["epoch"] - before["epoch"]))
    return None
