"""MixCollate: workers do the mixing, and the batches are those of a loader without workers."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch.utils.data import DataLoader, default_collate

from batchmix import MixedTarget, MixError, Mixup, off_after
from batchmix.choice import Choice
from batchmix.collate import MixCollate
from batchmix.core.draws import as_rank
from numbered_loader import Holder, Numbers, epochs, lams, loader_of, mixes, mixup, needs_fork, seen

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core


@pytest.fixture(scope="module")
def without_workers() -> list[tuple[list, ...]]:
    return epochs(MixCollate(mixup()))


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
