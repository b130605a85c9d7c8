"""MixCollate: workers do the mixing, and the batches are those of a loader without workers."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import itertools
import pickle
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy.random  # noqa: F401 (else forked workers import it, and what a collection prints there breaks in)
import pytest
import torch
import torch.multiprocessing
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from batchmix import MixedTarget, MixError, Mixup, off_after
from batchmix.choice import Choice
from batchmix.collate import MixCollate
from batchmix.core.draws import as_rank
from batchmix.loaders import LeftPass

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core

needs_fork = pytest.mark.skipif(
    "fork" not in torch.multiprocessing.get_all_start_methods(), reason="starts its workers by fork"
)


class Numbers(Dataset[tuple[Tensor, int]]):
    """Sample i is the image full of i, of class i."""

    def __init__(self, count: int = 19) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((1, 2, 2), float(index)), index


def loader_of(
    collate: MixCollate, *, workers: int = 0, persistent: bool = False, **options: Any
) -> DataLoader:
    """Five batches: four of 4 samples and one of 3."""
    return DataLoader(
        Numbers(),
        options.pop("batch_size", 4),
        num_workers=workers,
        persistent_workers=persistent,
        collate_fn=collate,
        **options,
    )


def mixup(**options: Any) -> Mixup:
    return Mixup(1.0, partner="derangement", fold=False, seed=0, **options)


def seen(batch: tuple[Tensor, MixedTarget]) -> tuple[list, ...]:
    x, (a, b, lam) = batch
    torch.testing.assert_close(x[:, 0, 0, 0], lam * a + (1 - lam) * b)
    return x[:, 0, 0, 0].tolist(), a.tolist(), b.tolist(), lam.tolist()


def epochs(collate: MixCollate, count: int = 2, **options: Any) -> list[tuple[list, ...]]:
    loader = loader_of(collate, **options)
    return [seen(batch) for _ in range(count) for batch in collate.epoch(loader)]


def lams(rows: list[tuple[list, ...]]) -> list[list[float]]:
    return [row[3] for row in rows]


def mixes(row: tuple[list, ...]) -> bool:
    return row[3] != [1.0] * len(row[3])


@pytest.fixture(scope="module")
def without_workers() -> list[tuple[list, ...]]:
    return epochs(MixCollate(mixup()))


# Where nobody else works


def test_the_batches_are_those_of_the_mixer_itself(without_workers: list) -> None:
    mixer, batches = mixup(), [range(i, min(i + 4, 19)) for i in range(0, 19, 4)] * 2
    for row, batch in zip(without_workers, batches, strict=True):
        y = torch.tensor(list(batch))
        x, target = mixer(y.float().view(-1, 1, 1, 1), y)
        assert row == seen((x, target))
    assert len({tuple(row) for row in lams(without_workers)}) == 10


def test_without_workers_no_word_is_needed() -> None:
    collate = MixCollate(mixup(schedule=off_after(7)))
    loader = loader_of(collate)
    rows = [seen(batch) for _ in range(2) for batch in loader]
    assert [mixes(row) for row in rows] == [True] * 7 + [False] * 3
    assert collate.step == 10


def test_the_batch_keeps_its_structure() -> None:
    samples = [{"image": torch.rand(3, 4, 4), "label": 1, "name": "a"}] * 3
    batch = MixCollate(mixup(), kinds={"name": "pass"})(samples)
    assert list(batch) == ["image", "label", "name"]
    assert isinstance(batch["label"], MixedTarget)
    assert batch["name"] == ["a", "a", "a"]
    pair = MixCollate(mixup(), collate_fn=lambda rows: tuple(map(torch.stack, zip(*rows, strict=True))))(
        [(torch.rand(2), torch.tensor(i)) for i in range(3)]
    )
    assert type(pair) is tuple


# Workers


@needs_fork
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_yield_what_none_yield(workers: int, persistent: bool, without_workers: list) -> None:
    assert epochs(MixCollate(mixup()), workers=workers, persistent=persistent) == without_workers


@pytest.mark.parametrize("method", ["spawn"])
def test_spawned_workers_too(method: str, without_workers: list) -> None:
    collate = MixCollate(mixup())
    assert epochs(collate, workers=2, persistent=True, multiprocessing_context=method) == without_workers


def test_spawned_workers_draw_as_the_rank_that_starts_them(
    monkeypatch: pytest.MonkeyPatch, without_workers: list
) -> None:
    monkeypatch.delenv("RANK", raising=False)  # as where torch.multiprocessing.spawn starts the ranks
    with as_rank(1):
        alone = epochs(MixCollate(mixup()), 1)
        assert epochs(MixCollate(mixup()), 1, workers=1, multiprocessing_context="spawn") == alone
    assert alone != without_workers[:5]


class Own:
    """A collate function of a user's, around a mixer."""

    def __init__(self) -> None:
        self.mixer = mixup()

    def __call__(self, samples: list[Any]) -> Any:
        return self.mixer(*default_collate(samples))


@pytest.mark.parametrize("told", [None, "0"])  # torchrun's word; or that of a launcher that counts hosts
@pytest.mark.parametrize("make", [Own, lambda: MixCollate(mixup())], ids=["own", "ours"])
def test_what_the_starting_process_is_goes_with_the_mixer(
    make: Callable[[], Any], told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", told) if told else monkeypatch.delenv("RANK", raising=False)
    drawn, samples = [], [Numbers()[i] for i in range(4)]
    for own in (0, 1):
        with as_rank(own), monkeypatch.context() as patch:  # a process group has it, but not its workers
            patch.setattr("batchmix.mixer.get_spawning_popen", object)
            sent = pickle.dumps(make())
        with monkeypatch.context() as patch:
            patch.setattr("batchmix.core.draws.get_worker_info", lambda: SimpleNamespace(seed=3))
            arrived = pickle.loads(sent)
            drawn.append(arrived(samples)[1].lam.tolist())
            assert lam_at_0(arrived.mixer) == drawn[-1]
            patch.setattr("batchmix.mixer.os.getpid", lambda: -1)  # a fork of it goes by what it is told
            assert lam_at_0(arrived.mixer) == lam_at_0(mixup())
    assert drawn[0] != drawn[1]


def lam_at_0(mixer: Mixup) -> list[float]:
    return mixer.plan(torch.zeros(4, 1), step=0).lam.tolist()


def test_a_copy_or_a_file_has_no_rank() -> None:
    with as_rank(3):
        copies = [copy.deepcopy(mixup()), pickle.loads(pickle.dumps(mixup()))]
    assert [lam_at_0(twin) for twin in copies] == [lam_at_0(mixup())] * 2


@needs_fork
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("stop", [0, 1, 7, 10])
def test_a_schedule_ends_at_the_very_batch_it_names(stop: int, persistent: bool) -> None:
    collate = MixCollate(mixup(schedule=off_after(stop)))
    rows = epochs(collate, workers=2, persistent=persistent)
    assert [mixes(row) for row in rows] == [True] * stop + [False] * (10 - stop)


@needs_fork
def test_batches_of_one_sample_stay_as_they_are() -> None:
    rows = epochs(MixCollate(mixup()), count=1, workers=2, batch_size=1)
    assert [row[0] for row in rows] == [[float(i)] for i in range(19)]
    assert not any(map(mixes, rows))


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


class Holder:
    """What stands between a loop and a loader: a bar, a prefetcher."""

    def __init__(self, inner: Any, read: Callable[[Iterable[Any]], Iterator[Any]] = iter) -> None:
        self.inner, self.read = inner, read

    def __iter__(self) -> Iterator[Any]:
        return self.read(self.inner)


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


@needs_fork
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (1, True), (2, False), (2, True)])
def test_mixing_can_be_switched_off_and_on_for_whole_epochs(
    workers: int, persistent: bool, without_workers: list
):
    collate = MixCollate(mixup())
    loader = loader_of(collate, workers=workers, persistent=persistent)
    for on in (True, False, True):
        collate.enabled = on
        rows = [seen(batch) for batch in collate.epoch(loader)]
        assert [mixes(row) for row in rows] == [on] * 5
    assert collate.step == 15
    alone = mixup()
    alone.step = 10
    assert rows[0][3] == alone.plan(torch.zeros(4, 1)).lam.tolist()
    assert alone.p == collate.mixer.p == 1.0


@needs_fork
@pytest.mark.parametrize("persistent", [False, True])
def test_a_run_goes_on_where_its_state_was_taken(persistent: bool, without_workers: list) -> None:
    first = MixCollate(mixup())
    loader = loader_of(first, workers=2)
    stopped = [seen(batch) for batch in itertools.islice(first.epoch(loader), 3)]
    state = first.state_dict()
    assert state == {"seed": 0, "step": 3}

    second = MixCollate(Mixup(1.0, partner="derangement", fold=False, seed=99))
    loader = loader_of(second, workers=2, persistent=persistent, sampler=range(12, 19))
    if persistent:  # its workers have seen another seed
        list(second.epoch(loader))
    second.load_state_dict(state)
    rest = [seen(batch) for batch in second.epoch(loader)]
    assert stopped + rest == without_workers[:5]


@needs_fork
@pytest.mark.parametrize("persistent", [False, True])
def test_assigning_the_step_announces_a_pass_too(persistent: bool, without_workers: list) -> None:
    collate = MixCollate(mixup())
    loader, rows = loader_of(collate, workers=2, persistent=persistent), []
    for epoch in range(2):
        collate.step = epoch * len(loader)
        rows += [seen(batch) for batch in loader]
    assert rows == without_workers


@needs_fork
@pytest.mark.parametrize("persistent", [False, True])
def test_without_a_word_workers_and_epochs_draw_apart(persistent: bool) -> None:
    for announced in (False, True):  # the second time the first epoch only
        collate = MixCollate(mixup())
        if announced:
            collate.step = 0
        loader = loader_of(collate, workers=2, persistent=persistent)
        rows = [seen(batch) for _ in range(2) for batch in loader]
        assert all(map(mixes, rows))
        assert len({tuple(row) for row in lams(rows)}) == 10


@needs_fork
@pytest.mark.parametrize("inside", [False, True])
def test_a_schedule_in_workers_asks_for_the_count(inside: bool) -> None:
    scheduled = mixup(schedule=off_after(3))
    collate = MixCollate(Choice({scheduled: 1.0}) if inside else scheduled)
    with pytest.raises(MixError, match=r"iterate with `for batch in collate.epoch\(loader\)`"):
        list(loader_of(collate, workers=1))


@needs_fork
def test_the_largest_seed_reaches_the_workers() -> None:
    draws = []
    for workers in (0, 2):
        collate = MixCollate(Mixup(1.0, seed=2**64 - 1))
        draws.append(lams(epochs(collate, workers=workers)))
    assert draws[0] == draws[1]


class Stream(torch.utils.data.IterableDataset):
    """Five batches of four from the first worker, two from the second."""

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        return ((torch.rand(1, 2, 2), i) for i in range(8 if info.id else 20))


@needs_fork
@pytest.mark.parametrize("persistent", [False, True])
def test_an_iterable_dataset_keeps_draws_apart_and_follows_what_is_said(persistent: bool) -> None:
    collate = MixCollate(mixup())
    loader = DataLoader(Stream(), 4, num_workers=2, persistent_workers=persistent, collate_fn=collate)
    drawn = []
    for collate.enabled in (True, False, True):
        targets = [target for _, target in collate.epoch(loader)]
        assert [bool((target.lam < 1).any()) for target in targets] == [collate.enabled] * 7
        drawn += [tuple(target.lam.tolist()) for target in targets if collate.enabled]
    assert len(drawn) == len(set(drawn)) == 14


@pytest.mark.gpu
def test_batches_arrive_in_pinned_memory() -> None:
    collate = MixCollate(mixup())
    x, target = next(iter(loader_of(collate, workers=1, pin_memory=True)))
    assert x.is_pinned()
    assert all(part.is_pinned() for part in target)


# As a value


def test_a_copy_is_on_its_own(without_workers: list) -> None:
    for copied in (lambda c: pickle.loads(pickle.dumps(c)), copy.deepcopy):
        collate = MixCollate(mixup())
        twin = copied(collate)
        collate.enabled = False
        assert epochs(twin, workers=2) == without_workers
        assert collate.step == 0


def test_torch_saves_and_loads_it(without_workers: list) -> None:
    file = io.BytesIO()
    torch.save(MixCollate(mixup()), file)
    file.seek(0)
    assert epochs(torch.load(file, weights_only=False), workers=2) == without_workers


def test_the_default_device_is_not_that_of_what_workers_read() -> None:
    torch.set_default_device("meta")
    try:
        collate = MixCollate(mixup())
    finally:
        torch.set_default_device(None)
    assert collate._shared.is_cpu


def test_global_generators_stay(unmoved_global_rng: None) -> None:
    MixCollate(mixup())([Numbers()[i] for i in range(4)])


# Wrong calls


def test_wrong_calls_say_what_they_take() -> None:
    collate = MixCollate(mixup())
    wrong = [
        (lambda: MixCollate(0.4), "mixer takes a method such as Mixup(0.4), got float 0.4"),
        (lambda: MixCollate(mixup(), 3), "collate_fn takes a callable of a list of samples, got 3"),
        (
            lambda: MixCollate(Mixup(seed=2**64)),
            "seed takes a number below 2**64, to reach DataLoader workers",
        ),
        (lambda: setattr(collate, "enabled", 1), "enabled takes True or False, got 1"),
        (lambda: setattr(collate, "step", -1), "step takes a whole number >= 0, got -1"),
        (
            lambda: list(collate.epoch(DataLoader(Numbers()))),
            "loader takes a DataLoader with collate_fn=this",
        ),
        (
            lambda: next(collate.epoch(Holder(DataLoader(Numbers())))),
            "loader takes a DataLoader with collate_fn=this",
        ),
        (
            lambda: next(collate.epoch(Holder(DataLoader(Numbers(), num_workers=1)))),
            "loader takes a DataLoader with collate_fn=this",
        ),
        (lambda: collate.load_state_dict({"seed": 2**70, "step": 3}), "seed takes a number below 2**64"),
        (lambda: collate.load_state_dict(None), "state takes the keys 'seed' and 'step', got NoneType None"),
        (
            lambda: collate([(torch.zeros(3, 2, 2, dtype=torch.uint8), 0)] * 2),
            "x takes floating point samples",
        ),
    ]
    for call, message in wrong:
        with pytest.raises(MixError) as caught:
            call()
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)
    assert collate.state_dict() == {"seed": 0, "step": 0}
