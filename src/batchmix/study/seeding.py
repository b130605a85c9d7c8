"""The global generators of Python, NumPy and torch: for tasks of the user's own, which draw from them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def seed_everything(seed: int) -> None:
    """Seed all global generators.

    Args:
        seed: Below 2**32.
    """
    import numpy as np

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (the global one is what other code draws from)
    torch.manual_seed(seed)


def derived_seed(seed: int, *place: object) -> int:
    """A seed below 2**32 for a place in the run that ``seed`` belongs to.

    Example:
        >>> derived_seed(0, "epoch", 1) == derived_seed(0, "epoch", 2)
        False
    """
    text = "/".join(map(str, (seed, *place)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


class OwnRandomness:
    """Global generators of its own: what draws inside ``with`` leaves those outside as they were.

    Args:
        seed: Of the generators inside.
    """

    def __init__(self, seed: int) -> None:
        with _put_back():
            seed_everything(seed)
            self.inside = _states()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Go on drawing where the last block ended."""
        with _put_back():
            _set(self.inside)
            yield
            self.inside = _states()


def seed_loader(loader: Any, seed: int, epoch: int) -> None:
    """Set all that the order of a loader can depend on, so that it is a function of seed and epoch alone.

    That is the global generators, the loader's own and its samplers', and ``set_epoch`` where they have it.
    """
    start = derived_seed(seed, "epoch", epoch)
    seed_everything(start)
    batches = getattr(loader, "batch_sampler", None)
    for part in (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)):
        generator = getattr(part, "generator", None)
        if isinstance(generator, torch.Generator):
            generator.manual_seed(start)
        set_epoch = getattr(part, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)


@contextmanager
def _put_back() -> Iterator[None]:
    before = _states()
    try:
        yield
    finally:
        _set(before)


def _states() -> tuple[Any, ...]:
    import numpy as np

    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), gpus  # noqa: NPY002


def _set(states: tuple[Any, ...]) -> None:
    import numpy as np

    of_python, of_numpy, of_torch, gpus = states
    random.setstate(of_python)
    np.random.set_state(of_numpy)  # noqa: NPY002
    torch.set_rng_state(of_torch)
    if gpus:
        torch.cuda.set_rng_state_all(gpus)
