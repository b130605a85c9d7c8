"""A pass over a DataLoader: where it starts, and how it is left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple
from weakref import ProxyTypes, ReferenceType, ref

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

    def leave(self) -> LeftPass | None:
        """Let go of the loader's iterator; the workers of a loader that does not keep them end with it.

        Returns:
            What is to be finished before another pass; None where no loader was found.
        """
        self._batches = None
        if self.loader is None:
            return None
        return LeftPass(ref(self.loader), _order_of(self.loader))


class LeftPass(NamedTuple):
    """A pass that is over, of which workers may still have something to make."""

    loader: ReferenceType[DataLoader[Any]]  # not held, since it holds the collation that holds this
    order: Any  # the loader's own iterator over places, by which a later pass is told

    def finish(self, following: DataLoader[Any] | None = None) -> bool:
        """Have the workers make what they were sent, which nobody gets to see.

        After it they make no batch of that pass any more. A loader does the same before its next pass, when
        it is too late to tell them of a new one.

        Args:
            following: The loader of the next pass, where that is known.

        Returns:
            Whether the workers are done. Those of torchdata's StatefulDataLoader are, where it is the
            following one: else somebody may still ask it where it was left.
        """
        loader = self.loader()
        if loader is None or _order_of(loader) is not self.order or self.order is None:
            return True  # the workers are gone, or at another pass already
        if hasattr(loader, "state_dict") and loader is not following:
            return False
        iterator: Any = loader._iterator
        iterator._sampler_iter = iter(())  # so that nothing more is sent
        while iterator._tasks_outstanding > 0:
            before = iterator._tasks_outstanding, iterator._rcvd_idx
            try:
                iterator._next_data()
            except StopIteration:
                break
            except Exception:  # a sample that cannot be read, in a batch that nobody waits for
                if before == (iterator._tasks_outstanding, iterator._rcvd_idx):  # a worker has died
                    break
        return True


def _order_of(loader: DataLoader[Any]) -> Any:
    """What a loader that keeps its workers reads places from in this pass; None where it keeps none."""
    iterator = getattr(loader, "_iterator", None)
    return getattr(iterator, "_sampler_iter", None) if hasattr(iterator, "_tasks_outstanding") else None


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
