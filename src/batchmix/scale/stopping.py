"""When processes that train together stop: all after the same step."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from batchmix.scale.world import World

ASK_EVERY = 5  # seconds, about, until ranks ask one another whether to stop


class Stopping:
    """Whether to stop after a step, asked so that ranks stop after the same one and soon, and rarely wait.

    A question makes a GPU's host wait, so that ranks ask where a report does so anyway, and else about every
    ``ASK_EVERY`` seconds: torchrun gives them 30 until it kills them. How many steps that is follows from
    the sum of their paces, which is told with the next question, and so is the same on all of them. It at
    most doubles from one question to the next, since first steps are not like those that follow.

    Args:
        world: Who stops together.
        stop: Whether this process has been told to.
    """

    def __init__(self, world: World, stop: Callable[[], bool]) -> None:
        self.world, self.stop = world, stop
        self.wait = 1  # steps from one question to the next
        self.pace = 0  # microseconds of a step between the last two; 0 where there are no two
        self.steps, self.since = 0, time.perf_counter()

    def asked(self, *, due: bool) -> bool:
        """Whether to stop after the step just done; ``due``, the same on all ranks, if they report it."""
        if self.world.size == 1:
            return self.stop()
        self.steps += 1
        if not due and self.steps < self.wait:
            return False
        # Whole numbers, whose sum does not depend on the order.
        told, pace = self.world.sum(torch.tensor([int(self.stop()), self.pace])).tolist()
        wanted = ASK_EVERY * 1_000_000 * self.world.size // pace if pace else 1
        self.wait = max(1, min(wanted, 2 * self.wait))
        now = time.perf_counter()  # when the device has done these steps, as it has answered
        self.pace = max(1, round((now - self.since) / self.steps * 1e6))
        self.steps, self.since = 0, now
        return bool(told)
