"""What is measured before a kernel is launched, and when it must not be: with a clock of the test's own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import torch

from batchmix.kernels import launching
from batchmix.kernels.launching import Config, choose

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")

CONFIGS = (Config(1024, 4), Config(2048, 4), Config(4096, 8))
GPU = torch.device("cuda", 0)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that were measured: the second is the fastest, the third the compiler refuses."""
    import triton.testing

    order: list[Config] = []

    def do_bench(call: Callable[[], None], **options: object) -> float:
        call()
        return {CONFIGS[0]: 2.0, CONFIGS[1]: 1.0}[order[-1]]

    monkeypatch.setattr(triton.testing, "do_bench", do_bench)
    monkeypatch.setattr(launching, "_chosen", {})
    monkeypatch.setattr(launching, "is_capturing", lambda device: False)
    return order


def rehearsal(order: list[Config]) -> Callable[[], Callable[[Config], None]]:
    def launch(config: Config) -> None:
        order.append(config)
        if config == CONFIGS[2]:
            raise RuntimeError("PassManager::run failed")

    return lambda: launch


def test_the_fastest_is_measured_once_a_kind_of_call(measured: list[Config]) -> None:
    for _ in range(2):
        assert choose("kind", CONFIGS, GPU, rehearsal(measured)) == CONFIGS[1]
    assert measured == list(CONFIGS)
    choose("other kind", CONFIGS, GPU, rehearsal(measured))
    assert measured == 2 * list(CONFIGS)


def test_nothing_is_measured_while_a_graph_is_captured(
    measured: list[Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "is_capturing", lambda device: True)
    assert choose("kind", CONFIGS, GPU, rehearsal(measured)) == CONFIGS[0]
    assert measured == []
    assert choose("kind", CONFIGS, torch.device("cpu"), rehearsal(measured)) == CONFIGS[0]
    assert measured == []


def test_without_memory_to_rehearse_in_the_first_is_taken(measured: list[Config]) -> None:
    def full() -> Callable[[Config], None]:
        raise torch.cuda.OutOfMemoryError

    assert choose("kind", CONFIGS, GPU, full) == CONFIGS[0]
    assert measured == []


def test_a_launch_that_fails_is_a_reason_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernels:
        INTERPRETED = True
        FLOAT32 = None
        mix_in_place = {}  # noqa: RUF012  (a launch of it raises a KeyError)

    monkeypatch.setattr(launching, "kernels", lambda: Kernels)
    monkeypatch.setattr(launching, "_failed", {})
    device = torch.device("cpu")
    reason = launching.why_not_here(device)
    assert reason is not None
    assert reason.startswith("a Triton that does not work here (")
    assert launching.why_not_here(GPU) == "tensors elsewhere than on a GPU"
    monkeypatch.setattr(launching, "kernels", lambda: None)
    assert launching.why_not_here(device) == "no Triton that is installed"
