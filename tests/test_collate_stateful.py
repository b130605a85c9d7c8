"""MixCollate in torchdata's StatefulDataLoader: a stopped pass goes on with the batches it would have had."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info
from torchdata.stateful_dataloader import StatefulDataLoader

from batchmix import MixCollate, Mixup, ramp

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # on a machine of one core
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # torchdata calls it
    pytest.mark.skipif(
        "fork" not in torch.multiprocessing.get_all_start_methods(), reason="starts its workers by fork"
    ),
]

Sample = tuple[Tensor, int]
SAMPLES = [(torch.full((1, 2, 2), float(i)), i) for i in range(28)]  # seven batches of four
BATCHES = 7


class Numbers(Dataset[Sample]):
    """What is read by its place."""

    def __len__(self) -> int:
        return len(SAMPLES)

    def __getitem__(self, index: int) -> Sample:
        return SAMPLES[index]


class Stream(IterableDataset[Sample]):
    """What is read in turn, and has to be read again to get to a place; a worker has every n-th batch."""

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        own, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        batches = range(own * 4, len(SAMPLES), workers * 4)
        return itertools.chain.from_iterable(SAMPLES[i : i + 4] for i in batches)


class Places:
    """What is read in turn, from a place that is kept."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples, self.place = samples, 0

    def __iter__(self) -> Places:
        return self

    def __next__(self) -> Sample:
        if self.place == len(self.samples):
            raise StopIteration
        self.place += 1
        return self.samples[self.place - 1]

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


class StreamWithPlaces(Stream):
    def __iter__(self) -> Iterator[Sample]:
        return Places(list(super().__iter__()))


def collate_of() -> MixCollate:
    """Its schedule shows whether batches have the right numbers, too."""
    return MixCollate(Mixup(1.0, seed=0, schedule={"alpha": ramp(0.2, 1, steps=2 * BATCHES)}))


def seen(batch: Any) -> tuple[list, ...]:
    x, y = batch
    return x[:, 0, 0, 0].tolist(), y.a.tolist(), y.lam.tolist()


@pytest.fixture(scope="module")
def never_stopped() -> list[tuple[list, ...]]:
    """Two passes."""
    collate = collate_of()
    loader = DataLoader(Numbers(), 4, collate_fn=collate)
    return [seen(batch) for _ in range(2) for batch in collate.epoch(loader)]


@pytest.mark.parametrize("stop", [3, BATCHES, BATCHES + 4])
@pytest.mark.parametrize(
    ("workers", "every", "persistent"), [(0, 1, False), (2, 1, False), (3, 1, True), (2, 3, False)]
)
@pytest.mark.parametrize("data", [Numbers, Stream, StreamWithPlaces])
def test_a_stopped_pass_goes_on_with_the_same_batches(
    data: Any, workers: int, every: int, persistent: bool, stop: int, never_stopped: list
) -> None:
    options = {"num_workers": workers, "persistent_workers": persistent, "snapshot_every_n_steps": every}
    first = collate_of()
    loader = StatefulDataLoader(data(), 4, collate_fn=first, **options)
    passes = itertools.chain.from_iterable(first.epoch(loader) for _ in range(2))
    rows = [seen(batch) for batch in itertools.islice(passes, stop)]
    states = loader.state_dict(), first.state_dict()

    second = collate_of()
    loader = StatefulDataLoader(data(), 4, collate_fn=second, **options)
    loader.load_state_dict(states[0])
    second.load_state_dict(states[1])
    while len(rows) < 2 * BATCHES:
        rows += [seen(batch) for batch in second.epoch(loader)]
    assert rows == never_stopped


@pytest.mark.parametrize("resumed", [False, True])
def test_a_loader_that_was_asked_for_its_state_first_has_the_same_batches(
    resumed: bool, never_stopped: list
) -> None:
    collate = collate_of()
    loader = StatefulDataLoader(Numbers(), 4, collate_fn=collate, num_workers=2)
    rows = [seen(batch) for batch in itertools.islice(collate.epoch(loader), 3 if resumed else 0)]
    loader.load_state_dict(loader.state_dict())
    loader.state_dict()  # starts workers, as Accelerate does
    rows += [seen(batch) for batch in collate.epoch(loader)]
    assert rows == never_stopped[:BATCHES]


@pytest.mark.parametrize("workers", [0, 2])
def test_accelerates_loader_goes_on_too(workers: int, never_stopped: list) -> None:
    accelerator = Accelerator(
        cpu=True, dataloader_config=DataLoaderConfiguration(use_stateful_dataloader=True)
    )

    def prepared() -> tuple[MixCollate, Any]:
        collate = collate_of()
        loader = DataLoader(Numbers(), 4, collate_fn=collate, num_workers=workers)
        return collate, accelerator.prepare(loader)

    collate, loader = prepared()
    rows = [seen(batch) for batch in itertools.islice(collate.epoch(loader), 3)]
    states = loader.state_dict(), collate.state_dict()
    collate, loader = prepared()
    loader.load_state_dict(states[0])
    collate.load_state_dict(states[1])
    rows += [seen(batch) for batch in collate.epoch(loader)]
    assert rows == never_stopped[:BATCHES]


def test_a_resumed_pass_may_be_left_early_too(never_stopped: list) -> None:
    """What its workers still make is told from the pass after it, though the second of them came first."""
    collate = collate_of()
    loader = StatefulDataLoader(Numbers(), 4, collate_fn=collate, num_workers=2, persistent_workers=True)
    list(itertools.islice(collate.epoch(loader), 3))
    loader.load_state_dict(loader.state_dict())
    list(itertools.islice(collate.epoch(loader), 1))
    assert collate.step == 4
    collate.step = BATCHES
    assert [seen(batch) for batch in collate.epoch(loader)] == never_stopped[BATCHES:]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_where_a_pass_was_left_stays_known(workers: int, persistent: bool, never_stopped: list) -> None:
    first, second = collate_of(), collate_of()
    options = {"num_workers": workers, "persistent_workers": persistent and workers > 0}
    loader = StatefulDataLoader(Numbers(), 4, collate_fn=first, **options)
    list(itertools.islice(first.epoch(loader), 3))
    first.step = 20  # the workers are not asked for what they were sent
    resumed = StatefulDataLoader(Numbers(), 4, collate_fn=second, **options)
    resumed.load_state_dict(loader.state_dict())
    second.step = 3
    assert [seen(batch) for batch in second.epoch(resumed)] == never_stopped[3:BATCHES]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_that_only_the_data_resumes_is_drawn_from_the_steps_that_were_counted(workers: int) -> None:
    first, second = collate_of(), collate_of()
    loader = StatefulDataLoader(Stream(), 4, collate_fn=first, num_workers=workers)
    list(itertools.islice(first.epoch(loader), 3))
    state = loader.state_dict()
    loader = StatefulDataLoader(Stream(), 4, collate_fn=second, num_workers=workers)
    loader.load_state_dict(state)
    lams = [y.lam for _, y in second.epoch(loader)]
    expected = [second.mixer.plan(torch.empty(4, 1, 2, 2), step=step).lam for step in range(BATCHES - 3)]
    assert second.step == BATCHES - 3
    assert all(map(torch.equal, lams, expected))


def test_a_loader_without_a_state_starts_at_the_beginning(never_stopped: list) -> None:
    collate = collate_of()
    loader = StatefulDataLoader(Numbers(), 4, collate_fn=collate, num_workers=2)
    assert [seen(batch) for _ in range(2) for batch in collate.epoch(loader)] == never_stopped
