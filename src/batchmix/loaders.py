"""What a DataLoader tells of a pass over it: where it starts, and what its workers were sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch.utils.data import DataLoader


@dataclass(eq=False)
class UnderWay:
    """A pass over a loader, as the main process sees it."""

    loader: DataLoader[Any] | None  # where one was found
    received: int = 0
    ended: bool = False

    def sent(self) -> int:
        """How many batches workers make of this pass; 0 where all have arrived, so that none is left over.

        A loader keeps ``prefetch_factor`` batches a worker under way, and sends one more for each that
        arrives. The iterator of workers that persist has counted, also what somebody in between has read
        ahead.
        """
        if self.ended:
            return 0
        if self.loader is None:
            return self.received
        counted: int | None = getattr(getattr(self.loader, "_iterator", None), "_send_idx", None)
        if counted is not None:
            return counted
        ahead = (self.loader.prefetch_factor or 0) * self.loader.num_workers
        try:
            return min(self.received + ahead, len(self.loader))
        except TypeError:  # an iterable dataset without a length
            return self.received + ahead


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


def loader_in(holder: Any, collate: Callable[..., Any], depth: int = 3) -> DataLoader[Any] | None:
    """The innermost DataLoader that collates so, of what holds one another."""
    for held in vars(holder).values() if depth and hasattr(holder, "__dict__") else ():
        found = loader_in(held, collate, depth - 1)
        if found is not None:
            return found
    return holder if isinstance(holder, DataLoader) and holder.collate_fn is collate else None
