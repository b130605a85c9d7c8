"""Ranks and DataLoader workers draw apart, and a run can be repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch import Tensor
from torch.utils.data import DataLoader

from batchmix import Choice, Mixer, MixError, Mixup, off_after

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core


def draws_of_a_rank(rank: int, folder: str) -> None:
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    mixup = Mixup(1.0, seed=0)
    torch.save([mixup.plan(torch.zeros(8, 2)).lam for _ in range(3)], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(
    "fork" not in torch.multiprocessing.get_all_start_methods(), reason="starts its ranks by fork"
)
def test_ranks_draw_apart_from_the_same_seed(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(
        draws_of_a_rank, args=(str(tmp_path),), nprocs=2, start_method="fork"
    )
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    alone = Mixup(1.0, seed=0)
    for first, second in zip(*ranks, strict=True):
        assert not torch.equal(first, second)
        assert torch.equal(first, alone.plan(torch.zeros(8, 2)).lam)  # rank 0 draws what one process draws


class Collate:
    """Mixes in the worker; says which worker it was."""

    def __init__(self, mixup: Mixer) -> None:
        self.mixup = mixup

    def __call__(self, indices: list[int]) -> tuple[int, Tensor]:
        info = torch.utils.data.get_worker_info()
        x = torch.tensor(indices, dtype=torch.float32)
        _, target = self.mixup(x, x.long())
        return -1 if info is None else info.id, target.lam


def epochs(mixup: Mixer, *, workers: int = 2, count: int = 2, persistent: bool = False) -> list[list]:
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(
        range(16),
        4,
        num_workers=workers,
        collate_fn=Collate(mixup),
        generator=generator,
        persistent_workers=persistent,
    )
    return [[(worker, lam.tolist()) for worker, lam in loader] for _ in range(count)]


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_and_epochs_draw_apart(persistent: bool) -> None:
    drawn = epochs(Mixup(1.0, partner="roll", seed=0), persistent=persistent)
    assert {worker for epoch in drawn for worker, _ in epoch} == {0, 1}
    lams = [tuple(lam) for epoch in drawn for _, lam in epoch]
    assert len(set(lams)) == len(lams) == 8


def test_the_loaders_generator_repeats_the_workers_draws() -> None:
    one, two = (epochs(Mixup(1.0, seed=0)) for _ in range(2))
    assert one == two
    assert one != epochs(Mixup(1.0, seed=1))


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_a_schedule_is_refused_in_workers(inside: bool, persistent: bool) -> None:
    """Each sees its own batches only, and one that is new begins to count with each epoch."""
    scheduled = Mixup(1e3, partner="roll", schedule=off_after(4), seed=0)
    mixup = Choice({scheduled: 1.0}) if inside else scheduled
    with pytest.raises(MixError, match=r"schedule takes a count of all workers' batches, .*MixCollate"):
        epochs(mixup, workers=1, persistent=persistent)
