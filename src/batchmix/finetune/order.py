"""Which images a step shows, and which of them a rank decodes: functions of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import batchmix as bm
from batchmix.core.draws import as_rank
from batchmix.finetune.views import View
from batchmix.scale.world import World


@dataclass(frozen=True)
class Part:
    """A rank's part of a batch whose mix was drawn for the whole.

    Args:
        indices: (n,) images to decode: the rank's own, and then partners that other ranks own.
        partners: (own,) places in ``indices``.
        plan: Weights of the rank's own, whose partners are in their own places.
    """

    indices: NDArray[np.int64]
    partners: Tensor
    plan: bm.MixPlan


class Order:
    """The order of the images, and each rank's part of it.

    Every rank has as many steps: what does not fill a batch of all ranks waits for another epoch's order.

    Args:
        count: Training images.
        batch_size: Of all ranks together.
        seed: Of the orders.
        world: Who shares a batch.
        mixer: Where partners may be other ranks': what draws the mix of the whole batch. Else None.
        size: Side of the images in pixels, for that draw.
        device: Where it is drawn: that of the images, as in one process, whose generator is another on a GPU.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        world: World,
        mixer: bm.Mixer | None,
        size: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.world, self.mixer, self.size, self.device = world, mixer, size, device
        self.steps_per_epoch = count // batch_size
        self._kept: tuple[int, NDArray[np.int64]] | None = None

    def batch(self, step: int) -> tuple[int, NDArray[np.int64]]:
        """Epoch of a step, and its images on all ranks, (batch_size,)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._kept is None or self._kept[0] != epoch:
            self._kept = epoch, np.random.default_rng((self.seed, epoch)).permutation(self.count)
        return epoch, self._kept[1][place * self.batch_size : (place + 1) * self.batch_size]

    def part(self, step: int) -> Part:
        """This rank's part of a mix that is drawn for all ranks, the same on each of them.

        Which images to decode is read back from a GPU: a wait for it that ``--exact`` alone has.
        """
        if self.mixer is None:
            raise TypeError("only an order with a mixer draws for the whole batch")
        _, batch = self.batch(step)
        shape = (len(batch), 3, self.size, self.size)
        with as_rank(0):
            images = torch.zeros((), dtype=torch.uint8, device=self.device).expand(shape)
            plan = self.mixer.plan(images, step=step)
        own = self.world.share(len(batch))
        partners = plan.partner[own].tolist()
        places = {row: place for place, row in enumerate(range(own.start, own.stop))}
        for row in partners:
            places.setdefault(row, len(places))
        mask = plan.mask if plan.mask is None or len(plan.mask) == 1 else plan.mask[own]
        lam = plan.lam[own]
        return Part(
            batch[list(places)],
            torch.tensor([places[row] for row in partners]),
            bm.MixPlan(torch.arange(len(lam), device=lam.device), lam, mask),
        )

    def views(self, start: int, stop: int) -> Iterator[list[View]]:
        """What this rank decodes, step by step."""
        for step in range(start, stop):
            epoch, batch = self.batch(step)
            chosen = batch[self.world.share(len(batch))] if self.mixer is None else self.part(step).indices
            yield [(index, epoch) for index in chosen.tolist()]
