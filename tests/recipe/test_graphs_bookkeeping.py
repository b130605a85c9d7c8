"""When a step is taken as it is, captured and replayed, on a GPU that a few lines of Python play."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

import batchmix as bm
from batchmix.recipe import graphs
from batchmix.recipe.graphs import EAGER, StepGraphs


class Played:
    """A GPU: inside ``graph`` nothing is done, and ``replay`` does it to where the step was captured."""

    def __init__(self):
        self.recording, self.eager, self.captured = None, 0, 0
        self.asked = set()  # the devices whose stream was asked for

    def learn(self, x, y):
        """A step: what it learns is the sum of all that it is given."""
        out = torch.zeros(2)

        def work():
            parts = list(y) if isinstance(y, bm.MixedTarget) else [y]
            out.copy_(torch.stack([x.sum(), sum(part.double().sum() for part in parts).float()]))

        if self.recording is None:
            self.eager += 1
            work()
        else:
            self.recording.work = work
            self.captured += 1
        return out

    def cuda(self):
        """What stands in for ``torch.cuda``."""

        @contextmanager
        def graph(made, *, stream):
            self.recording = made
            yield
            self.recording = None

        @contextmanager
        def stream(_):
            yield

        waits = SimpleNamespace(wait_stream=lambda other: None)
        graph_class = type("CUDAGraph", (), {"replay": lambda made: made.work()})
        return SimpleNamespace(
            Stream=lambda device: waits,
            current_stream=lambda device: self.asked.add(device) or waits,
            stream=stream,
            CUDAGraph=graph_class,
            graph=graph,
        )


@pytest.fixture
def played(monkeypatch):
    gpu = Played()
    stand_in = SimpleNamespace(**{**vars(torch), "cuda": gpu.cuda()})
    monkeypatch.setattr(graphs, "torch", stand_in)
    return gpu


def batch(number, samples=4):
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(samples, 3, 5, 5, generator=generator).to(memory_format=torch.channels_last)
    a, b = torch.randint(10, (2, samples), generator=generator)
    return x, bm.MixedTarget(a, b, torch.rand(samples, generator=generator))


def by_hand(x, y):
    parts = list(y) if isinstance(y, bm.MixedTarget) else [y]
    return [x.sum().item(), sum(part.double().sum() for part in parts).item()]


def test_every_step_learns_from_its_own_batch_and_results_stay(played):
    steps = StepGraphs(torch.device("cuda"))
    batches = [batch(number) for number in range(8)]
    results = [steps(played.learn, x, y, kind=True) for x, y in batches]
    assert (played.eager, played.captured) == (EAGER, 1)
    for result, (x, y) in zip(results, batches, strict=True):
        assert result.tolist() == pytest.approx(by_hand(x, y), abs=1e-4)


def test_a_step_waits_for_the_stream_of_its_own_device(played):
    steps = StepGraphs(torch.device("cuda:1"))
    steps(played.learn, *batch(0), kind=True)
    assert played.asked == {torch.device("cuda:1")}


def test_each_kind_and_each_shape_has_a_graph_of_its_own(played):
    steps = StepGraphs(torch.device("cuda"))
    dense = torch.rand(4, 10, generator=torch.Generator().manual_seed(0))
    kinds = [
        lambda number: (*batch(number), True),
        lambda number: (*batch(number), False),
        lambda number: (*batch(number, samples=6), True),
        lambda number: (batch(number)[0], dense + number, True),
    ]
    for number in range(6):
        for make in kinds:
            x, y, kind = make(number)
            assert steps(played.learn, x, y, kind=kind).tolist() == pytest.approx(by_hand(x, y), abs=1e-4)
    assert (played.eager, played.captured) == (len(kinds) * EAGER, len(kinds))


def test_one_weight_for_the_whole_batch_is_captured_too(played):
    steps = StepGraphs(torch.device("cuda"))
    for number in range(6):
        x, y = batch(number)
        y = bm.MixedTarget(y.a, y.b, 0.1 * number)
        assert steps(played.learn, x, y, kind=True).tolist() == pytest.approx(by_hand(x, y), abs=1e-4)
    assert played.captured == 1
