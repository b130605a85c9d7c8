"""MixCollate: passes that are left early, broken, or begun beside another."""

from __future__ import annotations

import contextlib
import gc
import itertools
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from threading import Timer
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import Tensor
from torch.utils.data import DataLoader

from batchmix import MixedTarget, MixError, off_after
from batchmix.collate import MixCollate
from batchmix.loaders import LeftPass
from numbered_loader import Holder, Numbers, epochs, loader_of, mixup, needs_fork, seen

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core


@pytest.fixture(scope="module")
def without_workers() -> list[tuple[list, ...]]:
    return epochs(MixCollate(mixup()))


@needs_fork
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True), (3, True)])
def test_a_pass_that_is_left_early_goes_on_at_the_batch_that_arrived_last(
    workers: int, persistent: bool, without_workers: list
) -> None:
    collate = MixCollate(mixup())
    loader = loader_of(collate, workers=workers, persistent=persistent, batch_size=2)
    drawn: list = []
    for taken in (1, 1, 2, 1):  # the workers are far ahead of each
        drawn += [seen(batch) for batch in itertools.islice(collate.epoch(loader), taken)]
        assert collate.step == len(drawn)
    drawn += [seen(batch) for batch in collate.epoch(loader)]
    alone = mixup()
    for row in drawn:
        _, target = alone(torch.zeros(len(row[3]), 1), torch.zeros(len(row[3]), dtype=torch.long))
        assert row[3] == target.lam.tolist()
    assert len(drawn) == 15


class Slow(Numbers):
    """Workers are still at it when a loop is left."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        time.sleep(0.01)
        return super().__getitem__(index)


def ahead_by_one(batches: Iterable[Any]) -> Iterator[Any]:
    """Read a batch ahead, as Accelerate does."""
    batches = iter(batches)
    for following in batches:
        batch = following
        break
    for following in batches:
        yield batch
        batch = following
    yield batch


class Outer(DataLoader):
    """A loader around another one, as Accelerate prepares it."""

    def __init__(self, inner: DataLoader) -> None:
        super().__init__(inner.dataset, inner.batch_size, collate_fn=inner.collate_fn)
        self.base = inner

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return ahead_by_one(self.base)


@needs_fork
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize(
    "hold",
    [lambda x: x, Holder, lambda x: Holder(Holder(x), ahead_by_one), Outer],
    ids=["", "1", "2", "outer"],
)
def test_a_loop_over_what_holds_a_loader_may_be_left_early_too(
    hold: Callable[[DataLoader], Iterable[Any]], persistent: bool
) -> None:
    collate, alone = MixCollate(mixup()), mixup()
    loader = DataLoader(Slow(), 2, num_workers=2, persistent_workers=persistent, collate_fn=collate)
    for taken in (3, 2, 3):
        for _, target in itertools.islice(collate.epoch(hold(loader)), taken):
            assert target.lam.tolist() == alone.plan(torch.zeros(len(target), 1)).lam.tolist()
    assert collate.step == 8


@pytest.mark.parametrize("hold", [lambda x: Holder(x, ahead_by_one), Outer], ids=["holder", "outer"])
def test_what_reads_ahead_without_workers_repeats_no_draw(
    hold: Callable[[DataLoader], Iterable[Any]], without_workers: list
) -> None:
    collate = MixCollate(mixup())
    loader = hold(loader_of(collate))
    assert [seen(batch) for _ in range(2) for batch in collate.epoch(loader)] == without_workers
    collate.step = 5
    assert [seen(batch) for batch in itertools.islice(collate.epoch(loader), 3)] == without_workers[5:8]
    assert collate.step == 8


def test_what_holds_a_loader_may_hold_anything(without_workers: list) -> None:
    collate = MixCollate(mixup())
    holder, gone = Holder(loader_of(collate)), Numbers()
    holder.torch, holder.kind, holder.gone = torch, Numbers, weakref.proxy(gone)  # type: ignore[attr-defined]
    holder.test = DataLoader(Numbers())  # type: ignore[attr-defined]
    del gone
    assert [seen(batch) for batch in collate.epoch(holder)] == without_workers[:5]


@needs_fork
@pytest.mark.parametrize("persistent", [False, True])
def test_a_loop_that_nobody_closes_may_be_followed_by_another(persistent: bool) -> None:
    collate, alone = MixCollate(mixup(schedule=off_after(100))), mixup()
    loader = DataLoader(Slow(), 2, num_workers=2, persistent_workers=persistent, collate_fn=collate)
    looked_at = iter(collate.epoch(loader))  # as in a notebook
    drawn = [next(looked_at), *collate.epoch(loader)]
    looked_at.close()
    drawn += collate.epoch(loader)
    assert len(drawn) == collate.step == 21
    for _, target in drawn:
        assert target.lam.tolist() == alone.plan(torch.zeros(len(target), 1)).lam.tolist()


@needs_fork
@pytest.mark.parametrize("persistent", [False, True])
def test_loaders_may_take_turns(persistent: bool) -> None:
    collate = MixCollate(mixup())
    loaders = [loader_of(collate, workers=2, persistent=persistent, batch_size=size) for size in (3, 4)]
    alone = mixup()
    for loader in (*loaders, *loaders, loaders[0], *loaders):
        for _, target in collate.epoch(loader):
            _, same = alone(torch.zeros(len(target.lam), 1), torch.zeros(len(target.lam), dtype=torch.long))
            assert target.lam.tolist() == same.lam.tolist()


def steps_of(targets: Iterable[MixedTarget]) -> list[int]:
    """The step that each was drawn at, found by drawing anew at every step."""
    known = {tuple(mixup().plan(torch.zeros(2, 1), step=step).lam.tolist()): step for step in range(40)}
    return [known[tuple(target.lam.tolist())] for target in targets]


class Twelve(torch.utils.data.IterableDataset):
    """Six batches of two from all workers together, in turn."""

    def __iter__(self) -> Iterator[Any]:
        worker = torch.utils.data.get_worker_info()
        own, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        return ((torch.rand(3), i) for i in range(12) if i // 2 % workers == own)


@needs_fork
@pytest.mark.parametrize("taken", [3, 4, 5, 6])
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (1, True), (2, False), (2, True)])
def test_what_an_iterable_dataset_was_asked_for_in_vain_does_not_count(
    workers: int, persistent: bool, taken: int
) -> None:
    collate = MixCollate(mixup())
    loader = DataLoader(Twelve(), 2, num_workers=workers, persistent_workers=persistent, collate_fn=collate)
    for epoch in range(3):
        targets = [target for _, target in itertools.islice(collate.epoch(loader), taken)]
        assert steps_of(targets) == list(range(epoch * taken, (epoch + 1) * taken))


class Broken(Numbers):
    """One sample cannot be read until it is mended, in whatever process."""

    def __init__(self, broken: int) -> None:
        super().__init__(24)
        self.broken = torch.tensor(broken).share_memory_()

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == self.broken:
            raise OSError("a broken image")
        return super().__getitem__(index)


@needs_fork
@pytest.mark.parametrize("taken", [1, 12])
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (1, True), (2, True), (3, False)])
def test_a_batch_that_could_not_be_made_does_not_count(workers: int, persistent: bool, taken: int) -> None:
    collate, data = MixCollate(mixup()), Broken(9)
    loader = DataLoader(data, 2, num_workers=workers, persistent_workers=persistent, collate_fn=collate)
    with contextlib.suppress(OSError):  # seen, or prefetched alone
        list(itertools.islice(collate.epoch(loader), taken))
    assert collate.step == min(taken, 4)
    data.broken.fill_(-1)
    collate.step = 20
    assert steps_of(target for _, target in collate.epoch(loader)) == list(range(20, 32))


class Gated(Numbers):
    """Its first sample cannot be read, and the others not before the gate is open."""

    def __init__(self, gate: Tensor) -> None:
        super().__init__(24)
        self.gate = gate

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 0:
            raise OSError("a broken image")
        while not self.gate:
            time.sleep(0.001)
        return super().__getitem__(index)


class Opening(Gated):
    """Opens the gate of the other data, and waits until that was gone through."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not self.gate:
            self.gate.fill_(1)
            time.sleep(0.3)
        return Numbers.__getitem__(self, index)


@needs_fork
@pytest.mark.parametrize("persistent", [False, True])
def test_workers_whom_an_error_keeps_alive_take_no_part_in_the_next_pass(persistent: bool) -> None:
    collate, gate = MixCollate(mixup()), torch.tensor(0).share_memory_()
    loader = DataLoader(Gated(gate), 2, num_workers=2, persistent_workers=persistent, collate_fn=collate)
    with pytest.raises(OSError, match="a broken image") as kept:  # as a notebook keeps its last error
        list(collate.epoch(loader))
    del loader
    opened = Timer(0.05, gate.fill_, [1])
    if persistent:  # before the next pass begins, they have to be done
        opened.start()
    loader = DataLoader(Opening(gate), 2, num_workers=2, persistent_workers=persistent, collate_fn=collate)
    assert steps_of(target for _, target in collate.epoch(loader)) == list(range(12))
    del kept


@needs_fork
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_a_loader_may_follow_one_that_was_left_early(workers: int, persistent: bool) -> None:
    collate = MixCollate(mixup())
    one, other = (
        DataLoader(
            data, 2, num_workers=workers, persistent_workers=persistent and workers > 0, collate_fn=collate
        )
        for data in (Slow(24), Numbers(24))
    )
    for start in (0, 8):
        early = [target for _, target in itertools.islice(collate.epoch(one), 3)]
        assert steps_of(early) == list(range(start, start + 3))
        later = [target for _, target in itertools.islice(collate.epoch(other), 5)]
        assert steps_of(later) == list(range(start + 3, start + 8))


@needs_fork
@pytest.mark.parametrize("workers", [0, 2])
def test_two_passes_at_once_are_refused(workers: int) -> None:
    collate = MixCollate(mixup())
    one, other = loader_of(collate, workers=workers), loader_of(collate, workers=workers)
    for begin in (lambda: next(collate.epoch(other)), lambda: setattr(collate, "step", 7)):
        loop = collate.epoch(one)
        next(loop)
        begin()
        with pytest.raises(MixError, match="loader takes one pass at a time with a MixCollate, got another"):
            next(loop)
    assert collate.step == 7


@needs_fork
@pytest.mark.parametrize("whole", [False, True])
def test_workers_that_persist_end_with_their_loader(whole: bool) -> None:
    collate = MixCollate(mixup())
    loader = loader_of(collate, workers=2, persistent=True)
    list(itertools.islice(collate.epoch(loader), 5 if whole else 2))
    workers = loader._iterator._workers
    gone = weakref.ref(loader)
    gc.disable()  # which would find them some time
    try:
        del loader
        assert gone() is None
    finally:
        gc.enable()
    assert not any(worker.is_alive() for worker in workers)
    collate.step = 0


def test_workers_that_die_after_a_pass_was_left_keep_nobody_waiting() -> None:
    order = iter(range(5))
    waiting = SimpleNamespace(
        _tasks_outstanding=2, _rcvd_idx=1, _next_data=lambda: 1 / 0, _sampler_iter=order
    )
    loader = loader_of(MixCollate(mixup()))
    loader._iterator = waiting  # type: ignore[assignment]
    assert LeftPass(weakref.ref(loader), order).finish()
    assert next(waiting._sampler_iter, None) is None


class Uneven(Numbers):
    """The first worker is slow, and the second one's next batch cannot be made."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if torch.utils.data.get_worker_info().id == 0:
            time.sleep(0.05)
        elif index == 6:
            raise OSError("a broken image")
        return super().__getitem__(index)


@needs_fork
def test_an_error_that_overtook_other_batches_is_waited_for_with_them() -> None:
    collate = MixCollate(mixup())
    loader = DataLoader(
        Uneven(24), 2, num_workers=2, persistent_workers=True, prefetch_factor=4, collate_fn=collate
    )
    next(collate.epoch(loader))
    collate.step = 20
    assert loader._iterator._tasks_outstanding == 0
    drawn: list[MixedTarget] = []
    with pytest.raises(OSError, match="a broken image"):
        drawn.extend(target for _, target in collate.epoch(loader))
    assert collate.step == 23


@needs_fork
def test_a_pass_that_somebody_else_has_begun_is_not_finished() -> None:
    collate = MixCollate(mixup())
    loader = loader_of(collate, workers=2, persistent=True, batch_size=2)
    next(collate.epoch(loader))  # a look at one batch
    batches = iter(loader)
    next(batches)
    collate.step = 0  # late, as by a hook of a framework's first epoch
    assert len(list(batches)) == 9


class SlowAt4(Numbers):
    """Sample 4, the first of the second worker, takes its time."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        time.sleep(0.2 if index == 4 else 0)
        return super().__getitem__(index)


@needs_fork
def test_a_worker_that_lags_behind_a_whole_pass_finds_its_place(without_workers: list) -> None:
    collate = MixCollate(mixup())
    loader = DataLoader(SlowAt4(), 4, num_workers=2, persistent_workers=True, collate_fn=collate)
    list(collate.epoch(loader))
    next(collate.epoch(loader))
    collate.step = 0
    assert [seen(batch) for batch in collate.epoch(loader)] == without_workers[:5]
