"""Loops are shared out, among torch's threads or our own: each unit once, and no bit depends on whose."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import batchmix as bm
from batchmix.kernels import cpu, fused, team, threads

pytestmark = pytest.mark.skipif(cpu.loops() is None, reason="needs numba")

needs_team = pytest.mark.skipif(
    not team.is_there(), reason="needs torch's threads to be those of GNU's OpenMP"
)


@pytest.fixture(autouse=True)
def shared_at_any_size(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cpu, "SMALLEST", 0)
    monkeypatch.setattr(cpu, "SHORTEST", 0)
    monkeypatch.setattr(fused, "BLOCK", 256)
    monkeypatch.setattr(fused, "BLOCK_IN_PLACE", 128)
    monkeypatch.setattr(threads, "WORTH_A_THREAD", 1)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def loop_and_team(loop: Callable[..., None]) -> tuple[Any, Any]:
    """A loop of the test's own, as the kernels have theirs."""
    import numba

    from batchmix.kernels.team_code import in_team

    compiled = numba.njit(nogil=True)(loop)
    return compiled, numba.njit(nogil=True)(
        lambda given, units, threads: in_team(compiled, given, units, threads)
    )


def _count(seen: Any, first: int, last: int) -> None:
    for unit in range(first, last):
        seen[unit] += 1


def _fail(seen: Any, first: int, last: int) -> None:
    if last == seen.size:
        raise MemoryError


@needs_team
def test_every_unit_is_done_once_however_many_threads_there_are() -> None:
    loop, by_team = loop_and_team(_count)
    for of_torch in (1, 2, 5):
        torch.set_num_threads(of_torch)
        for units in (0, 1, 2, 7, 100):
            for wanted in (1, 2, 3, 8):
                seen = torch.zeros(units, dtype=torch.int64)
                threads.share(loop, by_team, units, wanted, seen.numpy())
                assert seen.tolist() == [1] * units


@needs_team
def test_a_thread_without_memory_is_an_error_of_the_caller() -> None:
    loop, by_team = loop_and_team(_fail)
    torch.set_num_threads(3)
    with pytest.raises(MemoryError):
        threads.share(loop, by_team, 9, 3, torch.zeros(9).numpy())


@pytest.mark.parametrize("whose", ["torch's", "our own"])
@pytest.mark.parametrize("method", [bm.Mixup, bm.CutMix])
def test_the_bits_are_those_of_one_thread(whose: str, method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if whose == "our own":
        monkeypatch.setattr(team, "is_there", lambda: False)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 3, 9, 8, generator=generator)
    images = torch.randint(256, x.shape, dtype=torch.uint8, generator=generator)
    plan = method(1.0, seed=0).plan(x)
    given = (plan.partner, plan.lam, plan.mask)
    results = []
    for count in (1, 2, 3, 8):
        torch.set_num_threads(count)
        logits = x.flatten(1).clone().requires_grad_()
        loss = F.cross_entropy(logits, bm.MixedTarget.from_plan(torch.arange(7), plan))  # type: ignore[arg-type]
        loss.backward()  # type: ignore[no-untyped-call]
        in_place, normal = x.clone(), {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
        mixed = [cpu.mix(x, *given), cpu.mix(in_place, *given, out=in_place)]
        results.append([*mixed, cpu.mix_images(images, *given, **normal), loss.detach(), logits.grad])
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


@needs_team
def test_torchs_threads_are_worth_handing_less_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "WORTH_A_THREAD", 1 << 24)
    torch.set_num_threads(2)
    assert threads.threads_for(1 << 20) == 2
    assert threads.threads_for(1 << 16) == 1
    monkeypatch.setattr(team, "is_there", lambda: False)
    assert threads.threads_for(1 << 20) == 1


def test_where_openmp_is_another_our_own_threads_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    find = team._is_linked.__wrapped__
    monkeypatch.setattr(
        torch.__config__, "parallel_info", lambda: "ATen parallel backend: native thread pool"
    )
    assert not find()
    monkeypatch.undo()
    monkeypatch.setattr(team, "FUNCTIONS", ("no_such_function_anywhere",))
    assert not find()
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not find()
