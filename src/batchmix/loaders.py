"""A pass over a DataLoader: where it starts, and how it is left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple
from weakref import ProxyTypes

from torch.utils.data import DataLoader

from batchmix.errors import MixError


class UnderWay:
    """A pass over a loader, batch by batch, as the main process sees it.

    Args:
        holder: The loader, or what holds it.
        loader: The loader in it, where one was found.
    """

    def __init__(self, holder: Iterable[Any], loader: DataLoader[Any] | None) -> None:
        self.loader = loader
        self.received = 0
        self._holder = holder
        self._batches: Iterator[Any] | None = None

    def __iter__(self) -> UnderWay:
        self._batches = iter(self._holder)
        return self

    def __next__(self) -> Any:
        if self._batches is None:
            raise MixError(
                "loader takes one pass at a time with a MixCollate, got another pass or step before this one "
                "ended: give each loader a MixCollate of its own"
            )
        batch = next(self._batches)
        self.received += 1
        return batch

    def leave(self) -> None:
        """Let go of the loader's iterator; the workers of one that does not keep them end with it."""
        self._batches = None


def finish(loader: DataLoader[Any] | None) -> None:
    """Have workers that persist make what they were sent before a pass was left; nobody gets to see it.

    After it they make no batch of that pass any more. A loader does the same before its next pass, when it
    is too late to tell them of a new one.
    """
    iterator: Any = getattr(loader, "_iterator", None)
    if not getattr(iterator, "_tasks_outstanding", 0):
        return
    iterator._sampler_iter = iter(())  # so that nothing more is sent
    while (waiting := iterator._tasks_outstanding) > 0:
        try:
            iterator._next_data()
        except StopIteration:
            return
        except Exception:  # a sample that cannot be read, in a batch that nobody waits for
            if iterator._tasks_outstanding == waiting:  # a worker has died
                return


class Resumption(NamedTuple):
    """How a loader goes on inside of a pass."""

    first: int = 0  # the worker that makes the first batch
    replayed: int = 0  # batches that are made anew before that one, to get there, and that nobody sees


FROM_THE_START = Resumption()


def drop_early_workers(loader: Any) -> None:
    """Have torchdata's StatefulDataLoader start new workers for the next pass, at the place where it is.

    One that was asked for its state before the pass, as Accelerate does, has workers already, and they make
    batches whose numbers nobody has told them. Any other loader stays as it is.
    """
    if getattr(loader, "_initial_iter_for_state_dict", False):
        loader.load_state_dict(loader.state_dict())


def resumption(loader: DataLoader[Any] | None) -> Resumption:
    """Where the next pass of torchdata's StatefulDataLoader starts; of any other loader, at the beginning.

    The state that it was given is read as torchdata 0.11 writes it.
    """
    state = getattr(loader, "next_iter_state", None)
    if loader is None or not isinstance(state, Mapping):
        return FROM_THE_START
    if "_snapshot" not in state:  # without workers
        return Resumption(replayed=state["_num_yielded"] if _is_replayed(state) else 0)
    if state["_iterator_finished"]:
        return FROM_THE_START
    snapshot, since = state["_snapshot"], state["_steps_since_snapshot"]
    if any(_is_replayed(worker) for worker in snapshot["_worker_snapshots"].values() if worker):
        return Resumption(replayed=snapshot["_snapshot_step"] + since)
    return Resumption((snapshot["_last_yielded_worker_id"] + 1) % loader.num_workers, since)


def _is_replayed(state: Mapping[str, Any]) -> bool:
    """Whether the data is an iterable that has no state, and so is gone through again from its start."""
    fetcher = state["fetcher_state"]
    return fetcher is not None and fetcher["dataset_iter_state"] is None and state["dataset_state"] is None


def loaders_in(holder: Any, depth: int = 3) -> Iterator[DataLoader[Any]]:
    """The DataLoaders of what holds one another, the innermost first."""
    if depth and not isinstance(holder, (type, ModuleType)) and hasattr(holder, "__dict__"):
        for held in list(vars(holder).values()):
            if type(held) not in ProxyTypes:  # what one stands for may be gone
                yield from loaders_in(held, depth - 1)
    if isinstance(holder, DataLoader):
        yield holder
