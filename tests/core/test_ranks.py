"""Partners from the next process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, distributed

from batchmix import MixError, Mixup
from batchmix.core.ranks import from_next_rank

forks = pytest.mark.skipif(
    "fork" not in torch.multiprocessing.get_all_start_methods(), reason="starts its ranks by fork"
)


def batch_of(rank: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rank)
    return torch.rand(4, 3, generator=generator), torch.arange(4) + 10 * rank


def run(rank: int, folder: str, world: int, work: Callable[[int], object]) -> None:
    # The threads of the process that was forked are not here; operations would wait for them for ever.
    torch.set_num_threads(1)
    store = distributed.FileStore(f"{folder}/store", world)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    torch.save(work(rank), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def ranks(folder: Path, work: Callable[[int], object], world: int = 2) -> list[object]:
    torch.multiprocessing.start_processes(
        run, args=(str(folder), world, work), nprocs=world, start_method="fork"
    )
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]


def exchange(rank: int) -> object:
    x, y = batch_of(rank)
    kinds = x.to(torch.bfloat16), x > 0.5, (x * 255).to(torch.uint8), x.t()  # also not contiguous
    return [*from_next_rank(x, y), *from_next_rank(*kinds, check=False)]


@forks
@pytest.mark.parametrize("world", [2, 3])
def test_each_rank_gets_the_next_ones_batch(tmp_path: Path, world: int) -> None:
    for rank, got in enumerate(ranks(tmp_path, exchange, world)):
        x, y = batch_of((rank + 1) % world)
        wanted = [x, y, x.to(torch.bfloat16), x > 0.5, (x * 255).to(torch.uint8), x.t()]
        for one, other in zip(got, wanted, strict=True):
            assert one.dtype == other.dtype
            assert one.stride() == other.stride()
            assert torch.equal(one, other)


def mix_across(rank: int) -> object:
    batch = batch_of(rank)
    x, target = Mixup(1.0, seed=0).between(batch, from_next_rank(*batch))
    return [x, *target]


@forks
def test_a_batch_is_mixed_with_another_ranks(tmp_path: Path) -> None:
    for rank, (x, a, b, lam) in enumerate(ranks(tmp_path, mix_across)):
        (x1, y1), (x2, y2) = batch_of(rank), batch_of(1 - rank)
        assert torch.equal(a, y1)
        assert torch.equal(b, y2)
        rows = lam.unsqueeze(1)
        torch.testing.assert_close(x, rows * x1 + (1 - rows) * x2)


def differ(rank: int) -> object:
    x, _ = batch_of(rank)
    messages = []
    kinds = x.to([torch.float32, torch.float64][rank])
    for tensors in ((x[: 4 - rank],), (kinds,), (x, [None, x][rank]), [(), (x,)][rank], (None,)):
        try:
            from_next_rank(*tensors)
        except MixError as error:
            messages.append(str(error))
    return messages


@forks
def test_ranks_that_differ_all_say_so(tmp_path: Path) -> None:
    for rank, (short, dtype, none, fewer, both) in enumerate(ranks(tmp_path, differ)):
        assert short.startswith(
            "tensors takes the same shapes and dtypes on every rank, got 4 samples on rank 0"
        )
        assert "and 3 on rank 1" in short
        assert f"here float32 tensor ({4 - rank}, 3)" in short
        assert f"got others on rank 1 than on rank 0; here float{[32, 64][rank]} tensor" in dtype
        assert none.endswith(("(4, 3), NoneType", "(4, 3), float32 tensor (4, 3)")[rank])
        assert fewer.endswith(("here none", "here float32 tensor (4, 3)")[rank])
        assert both == "tensors[0] takes a tensor, got NoneType None"
        assert "\n" not in short + dtype + none


def test_one_process_gets_its_own_batch() -> None:
    x, y = batch_of(0)
    got = from_next_rank(x, y)
    assert got[0] is x
    assert got[1] is y


def test_what_is_not_a_tensor_is_named() -> None:
    with pytest.raises(MixError, match=r"^tensors\[1\] takes a tensor, got list"):
        from_next_rank(torch.rand(2), [1, 2])
