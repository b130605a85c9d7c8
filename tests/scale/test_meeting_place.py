"""Where the ranks of one start find one another, in a store that keeps what killed ranks have left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from torch import distributed as dist

from batchmix.errors import DataError
from batchmix.scale import world


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torchrun's store, of which each rank has a client."""
    held = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)

    def rendezvous(_: str, rank: int, size: int) -> Iterator[tuple[Any, int, int]]:
        client = dist.TCPStore("localhost", held.port, is_master=False, timeout=timedelta(seconds=20))
        yield client, rank, size

    monkeypatch.setattr(world.dist, "rendezvous", rendezvous)
    return held


def started(size: int, order: list[int], pause: float = 0.0) -> list[Any]:
    """The store of every rank; they come in this order."""
    with ThreadPoolExecutor(size) as pool:
        coming: dict[int, Future[Any]] = {}
        for rank in order:
            coming[rank] = pool.submit(world._meeting_place, rank, size)
            time.sleep(pause)
        return [coming[rank].result() for rank in range(size)]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 0, 2]], ids=str)
def test_each_start_has_a_place_of_its_own(server: Any, order: list[int]) -> None:
    """The ranks that come before the first of their start find the name of the start before."""
    for start in range(3):
        stores = started(3, order, pause=0.2)
        stores[0].set("address", f"of start {start}")
        assert [store.get("address").decode() for store in stores] == [f"of start {start}"] * 3
        assert not stores[2].check(["what an earlier start has left"])
        stores[1].set("what an earlier start has left", "an address")


def test_a_start_that_was_killed_half_way_does_not_disturb_the_next(server: Any) -> None:
    """Its first rank had given it a name, and one of two others had answered."""
    name = "a start that is dead"
    server.set("start", name)
    server.set(f"{name}/1", "a rank that is dead")
    first, second, third = started(3, [2, 1, 0], pause=0.2)
    first.set("address", "new")
    assert second.get("address") == third.get("address") == b"new"


def test_whoever_waits_for_a_first_rank_that_never_comes_says_so(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.set("start", "a start that is dead")
    clock = iter(range(0, 1000, 15))
    monkeypatch.setattr(world.time, "monotonic", lambda: next(clock))
    with pytest.raises(DataError, match=r"^the first of 2 processes has not answered within 0:00:20$"):
        world._meeting_place(1, 2)
