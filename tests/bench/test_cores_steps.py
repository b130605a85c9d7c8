"""Steps of presets in turn, on a net of a moment."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from batchmix.bench.cores import steps
from batchmix.bench.cores.page import BY_CALLER, page
from batchmix.recipe import machine
from batchmix.recipe.config import PRESETS, Preset
from batchmix.recipe.onednn import DIRECTIONS


def test_operations_have_their_groups() -> None:
    for operation, group in {
        "aten::mkldnn_convolution": "convolution",
        "aten::convolution_backward": "its gradients",
        "_MaxPoolBackward": "pooling",
        "aten::native_batch_norm_backward": "norm",
        "aten::silu_backward": "activation",
        "Optimizer.step#Muon.step": "optimizer",
        "aten::index": "all else",
    }.items():
        assert steps.group_of(SimpleNamespace(name=operation, cpu_parent=None)) == group


def test_an_operation_counts_with_what_calls_it() -> None:
    layer = torch.nn.Linear(6, 6)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    x = torch.rand(2, 3, 128, 128, requires_grad=True)  # large enough for zeros to be a fill
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        torch.nn.functional.max_pool2d(x, 2).sum().backward()
        (layer(torch.rand(6, 6)) @ torch.rand(6, 6)).sum().backward()
        torch.empty(9).fill_(1)
        optimizer.step()
    found: dict[str, set[str]] = {}
    for event in seen.events():
        found.setdefault(event.name, set()).add(steps.group_of(event))
    assert found["aten::mm"] == {"all else"}
    assert found["aten::fill_"] == {"pooling", "all else"}
    assert found["aten::add_"] == {"optimizer"}


def test_steps_are_measured_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (500, 32, 32, 3), dtype=np.uint8)
    data = SimpleNamespace(train_x=images, train_y=draws.integers(0, 10, 500))
    small = replace(PRESETS["smoke"].config, images=500, batch_size=50, epochs=3, sizes=(16, 20))
    monkeypatch.setitem(PRESETS, "small", Preset(small, "of a moment"))
    monkeypatch.setattr(steps, "load_cifar10", lambda: data)
    monkeypatch.setattr(steps, "MATRIX", 64)
    monkeypatch.setattr(steps, "keep_freed_memory", lambda: True)
    pair = (steps.Contender("torch's", "small", "torch"), steps.Contender("ours", "small"))
    monkeypatch.setattr(steps, "CONTENDERS", pair)
    came = steps.measure(2, "made up")
    assert json.loads(json.dumps(came)) == came
    assert came["machine"] == machine.describe_machine(torch.device("cpu"))
    assert [(row["name"], row["size"], row["steps"]) for row in came["rows"]] == [
        ("torch's", 16, 15), ("torch's", 20, 15), ("ours", 16, 15), ("ours", 20, 15)
    ]  # fmt: skip
    for row in came["rows"]:
        assert len(row["seconds"]) == 2 * steps.AT_A_TIME
        assert sum(row["parts"].values()) == pytest.approx(1, abs=1e-3)
        assert row["flop"] > 1e6
        assert row["reorders"] >= 0
        if torch.backends.mkldnn.is_available():
            assert {found["direction"] for found in row["convolutions"]} == set(DIRECTIONS.values())
        assert statistics.median(row["seconds"]) > 0
    assert BY_CALLER in page(came, [])


def test_rounds_end_with_the_shortest_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """24 steps on each size, the first 8 of which have a bias that learns."""
    small = replace(PRESETS["smoke"].config, images=400, batch_size=50, epochs=6, sizes=(16, 20))
    monkeypatch.setitem(PRESETS, "small", Preset(small, "of a moment"))
    contender = steps.Contender("ours", "small")
    monkeypatch.setattr(steps, "CONTENDERS", (contender,))
    assert [contender.start(size) for size in (16, 20)] == [8, 24]
    assert steps.most_rounds() == (16 - steps.WARM_UP - 2 - steps.AT_A_TIME) // steps.AT_A_TIME
