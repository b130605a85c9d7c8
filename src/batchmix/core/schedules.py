"""Factors that follow the step: what a mixer multiplies its ``p`` or ``alpha`` by.

Any callable of the step will do; these two can be pickled and print themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from batchmix.errors import MixError

Schedule = Callable[[int], float]


class _Factor:
    """What both are to a type checker, in a dict of schedules too."""

    def __call__(self, step: int) -> float:
        """The factor at ``step``, counted from 0."""
        raise NotImplementedError


@dataclass(frozen=True)
class off_after(_Factor):  # noqa: N801  (read as a function)
    """1 for the first ``steps`` steps, then 0.

    Args:
        steps: Number of batches that are mixed, 0 or >= 1; infinity for all.

    Raises:
        MixError: If ``steps`` is negative, a share of 1 or not a number.

    Example:
        >>> schedule = off_after(1000)
        >>> schedule(999), schedule(1000)
        (1.0, 0.0)
    """

    steps: float

    def __post_init__(self) -> None:
        _check_steps(self.steps, at_least=0)
        if 0 < self.steps < 1:  # half of a training is meant, and half of a batch would be taken
            raise MixError.of("steps", self.steps, "a number of batches, such as 0.5 * epochs * len(loader)")

    def __call__(self, step: int) -> float:
        """The factor at ``step``, counted from 0."""
        return float(step < self.steps)


@dataclass(frozen=True)
class ramp(_Factor):  # noqa: N801
    """From ``start`` to ``end`` in a straight line over ``steps`` steps, then ``end``.

    Args:
        start: Factor at step 0, >= 0.
        end: Factor from step ``steps`` on, >= 0.
        steps: Length of the ramp in batches, >= 1.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> schedule = ramp(1, 0, steps=100)
        >>> schedule(0), schedule(25), schedule(200)
        (1.0, 0.75, 0.0)
    """

    start: float
    end: float
    steps: float

    def __post_init__(self) -> None:
        _check_steps(self.steps, at_least=1)
        if self.steps == math.inf:
            raise MixError.of("steps", self.steps, "a finite number of steps")
        for name, value in (("start", self.start), ("end", self.end)):
            if not isinstance(value, Real) or not 0 <= float(value) < math.inf:
                raise MixError.of(name, value, "a factor >= 0")

    def __call__(self, step: int) -> float:
        """The factor at ``step``, counted from 0."""
        done = min(max(step / self.steps, 0.0), 1.0)
        return self.start + (self.end - self.start) * done


def _check_steps(steps: object, at_least: int) -> None:
    if isinstance(steps, bool) or not isinstance(steps, Real) or not float(steps) >= at_least:
        raise MixError.of("steps", steps, f"a number of steps >= {at_least}")
