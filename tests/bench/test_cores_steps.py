"""Steps of presets in turn, on a net of a moment."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from batchmix.bench.cores import steps
from batchmix.bench.cores.page import page
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
        assert steps.group_of(operation) == group


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
    assert page(came, [])
