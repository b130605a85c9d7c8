"""The randomness of one step: a function of its place in the run alone, known on the host."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch.utils.data import get_worker_info

_taken: ContextVar[int | None] = ContextVar("rank", default=None)


class Draws(NamedTuple):
    """What one step draws from."""

    step: int
    seed: int  # of the generator that a method draws from
    coin: float  # in [0, 1): whether the batch is mixed

    @classmethod
    def of(cls, step: int, place: str) -> Draws:
        """The randomness that belongs to a place, such as a seed, a rank and a step."""
        digest = hashlib.blake2b(place.encode(), digest_size=16).digest()
        seed, coin = (int.from_bytes(part, "big") for part in (digest[:8], digest[8:15]))
        return cls(step, seed >> 1, coin / 2**56)

    def fork(self, name: str) -> Draws:
        """Randomness of its own for a part of the step."""
        return Draws.of(self.step, f"{self.seed}/{name}")

    def generator(self, device: torch.device) -> torch.Generator:
        """A new generator, on the CPU where a device lacks samplers or generators to rely on (mps, xpu)."""
        return torch.Generator(device if device.type in ("cpu", "cuda") else "cpu").manual_seed(self.seed)


def rank(parents: int | None = None, given: int | None = None) -> int:
    """This process's place among those that train together; 0 where nothing tells it.

    Args:
        parents: That of the process which spawned this one, where it is known: nothing else may tell a
            DataLoader worker, which belongs to no process group.
        given: The one that the user says.
    """
    for known in (_taken.get(), given):
        if known is not None:
            return known
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    if parents is not None and get_worker_info() is not None:
        return parents
    told = os.environ.get("RANK", "")  # torchrun's word; a launcher of one's own may mean the host by it
    return int(told) if told.isdecimal() else parents or 0


@contextmanager
def as_rank(number: int) -> Iterator[None]:
    """Inside, draws are those of another rank: of 0 on every rank, for a batch that all of them share."""
    before = _taken.set(number)
    try:
        yield
    finally:
        _taken.reset(before)
