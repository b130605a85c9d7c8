"""The comparison on two cores: its parts on a net of a moment, and the page that is made of a record."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_scripts import load

from batchmix.recipe import machine
from batchmix.recipe.config import PRESETS, Preset
from batchmix.recipe.results import read_records

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "benchmarks/records/two-cores.json"


@pytest.fixture(scope="module")
def two_cores() -> ModuleType:
    return load("two_cores")


@pytest.fixture
def record(two_cores: ModuleType) -> Any:
    """A record with times that are easy to add up."""
    rows = [
        {
            "name": name,
            "kernel": "auto",
            "batch_size": 1000,
            "size": size,
            "steps": steps,
            "seconds": [0.9, 1.0, 1.0, 1.1],
            "flop": 10**12,
            "parts": {group: 1 / len(two_cores.ORDER) for group in two_cores.ORDER},
        }
        for name, size, steps in (("one", 32, 400), ("two", 28, 60), ("two", 32, 40))
    ]
    return {
        "machine": {"cpu": "Test 9000", "cores": 2, "isa": "AVX512", "torch": "2.13.0"},
        "busy_before": 0.25,
        "matrix_rate": 2e12,
        "rows": rows,
        "command": "made up",
        "date": "2026-01-01",
    }


def test_the_page_says_what_the_record_says(two_cores: ModuleType, record: Any) -> None:
    made = {"cpu": "Test 9000", "cores": 2, "preset": "its old name", **PRESETS["quick"].config.as_dict()}
    runs = [
        {**made, "mix": "none", "accuracy": 0.9 + 0.01 * seed, "accuracy_tta": 0.95, "train_seconds": 100.0}
        for seed in range(3)
    ]
    others = [{**runs[0], "cpu": "another"}, {**runs[0], "epochs": 77}]
    lines = two_cores.page(record, [*runs, *others]).splitlines()
    assert "| one | 400 | 400 s | 1.00 | 0.40 |" in lines
    assert "| two | 100 | 100 s | 0.25 | 0.10 |" in lines
    assert "| two | 1,000 of 28 px | 60 | 1000 ms (925 to 1075) | 1.00 | 1.00 | 50% |" in lines
    (row,) = (line for line in lines if line.startswith("| quick | none"))
    assert row == "| quick | none | auto | 3 | 91.00 ± 2.48 % | 95.00 ± 0.00 % | 100 ± 0 s |"
    assert "| pooling | 143 ms | 143 ms | 143 ms |" in lines
    assert any("other work took 25% of the cores" in line for line in lines)


@pytest.mark.parametrize(
    ("accuracy", "steps", "seeds", "verdict"),
    [(0.901, 100, 5, "is"), (0.899, 100, 5, "is not"), (0.95, 101, 5, "is not"), (0.95, 100, 4, "is not")],
)
def test_goals_take_accuracy_time_and_seeds(
    two_cores: ModuleType, record: Any, accuracy: float, steps: int, seeds: int, verdict: str
) -> None:
    record["rows"] = [record["rows"][0], {**record["rows"][0], "name": "quick-bf16", "steps": steps}]
    made = {"cpu": "Test 9000", "cores": 2, "accuracy": 0.9, "train_seconds": 100.0}
    made |= {"preset": "quick-bf16", **PRESETS["quick-bf16"].config.as_dict(), "accuracy_tta": accuracy}
    text = two_cores.page(record, [made] * seeds)
    assert (
        f"{verdict} reached by quick-bf16: {accuracy:.2%} in {steps / 400:.2f} of it, {seeds} seeds." in text
    )
    assert "fast-bf16:" not in text


def test_convolutions_are_shown_from_the_first_layer_on_with_their_rates(
    two_cores: ModuleType, record: Any
) -> None:
    assert "No such step is on record." in two_cores.page(record, [])
    shape = {"inputs": 64, "outputs": 64, "size": 15, "result": 15, "kernel": 3}
    shape |= {"implementation": "amx", "calls": 2}
    seconds = 2 * 1000 * 2 * 64 * 64 * 9 * 15**2 / 1e12  # at 1 TFLOP/s
    backward = {**shape, "direction": "gradient of the filters", "seconds": seconds}
    forward = {**shape, "direction": "forward", "seconds": seconds / 2}
    whitening = {**forward, "inputs": 3, "outputs": 24, "size": 32, "result": 31, "kernel": 2, "calls": 1}
    whitening["seconds"] = 1000 * 2 * 3 * 24 * 4 * 31**2 / 1e11
    for name, code in zip(two_cores.IN_DETAIL, ("amx", "other"), strict=True):
        calls = [backward, {**forward, "implementation": code}, whitening]
        record["rows"].append({**record["rows"][0], "name": name, "convolutions": calls, "reorders": 0.002})
    record["rows"][-1]["convolutions"] = record["rows"][-1]["convolutions"][:2]
    lines = two_cores.page(record, []).splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("| 32 px, 3 to 24"))
    assert lines[first : first + 4] == [
        "| 32 px, 3 to 24 channels, 2x2: forward | 1 | 5.5 ms, 0.10 TFLOP/s |  | amx |",
        "| 15 px, 64 to 64 channels, 3x3: forward | 2 | 16.6 ms, 2.00 TFLOP/s | 16.6 ms, 2.00 TFLOP/s "
        "| amx or other |",
        "| 15 px, 64 to 64 channels, 3x3: gradient of the filters | 2 | 33.2 ms, 1.00 TFLOP/s "
        "| 33.2 ms, 1.00 TFLOP/s | amx |",
        "| copies between layouts and types | | 2.0 ms | 2.0 ms | |",
    ]


def test_without_whole_runs_it_says_so(two_cores: ModuleType, record: Any) -> None:
    assert "No whole run on such a machine is on record." in two_cores.page(record, [])


def test_operations_have_their_groups(two_cores: ModuleType) -> None:
    for operation, group in {
        "aten::mkldnn_convolution": "convolution",
        "aten::convolution_backward": "its gradients",
        "_MaxPoolBackward": "pooling",
        "aten::native_batch_norm_backward": "norm",
        "aten::silu_backward": "activation",
        "Optimizer.step#Muon.step": "optimizer",
        "aten::index": "all else",
    }.items():
        assert two_cores.group_of(operation) == group


def test_steps_are_measured_in_turn(two_cores: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (500, 32, 32, 3), dtype=np.uint8)
    data = SimpleNamespace(train_x=images, train_y=draws.integers(0, 10, 500))
    small = replace(PRESETS["smoke"].config, images=500, batch_size=50, epochs=3, sizes=(16, 20))
    monkeypatch.setitem(PRESETS, "small", Preset(small, "of a moment"))
    monkeypatch.setattr(two_cores, "load_cifar10", lambda: data)
    monkeypatch.setattr(two_cores, "MATRIX", 64)
    monkeypatch.setattr(two_cores, "keep_freed_memory", lambda: True)
    pair = (two_cores.Contender("torch's", "small", "torch"), two_cores.Contender("ours", "small"))
    monkeypatch.setattr(two_cores, "CONTENDERS", pair)
    came = two_cores.measure(2)
    assert json.loads(json.dumps(came)) == came
    assert came["machine"] == machine.describe_machine(torch.device("cpu"))
    assert [(row["name"], row["size"], row["steps"]) for row in came["rows"]] == [
        ("torch's", 16, 15), ("torch's", 20, 15), ("ours", 16, 15), ("ours", 20, 15)
    ]  # fmt: skip
    for row in came["rows"]:
        assert len(row["seconds"]) == 2 * two_cores.AT_A_TIME
        assert sum(row["parts"].values()) == pytest.approx(1, abs=1e-3)
        assert row["flop"] > 1e6
        assert row["reorders"] >= 0
        if torch.backends.mkldnn.is_available():
            assert {found["direction"] for found in row["convolutions"]} == set(two_cores.DIRECTIONS.values())
        assert statistics.median(row["seconds"]) > 0
    assert two_cores.page(came, [])


def test_the_committed_page_is_that_of_the_committed_record(two_cores: ModuleType) -> None:
    record = json.loads(RECORD.read_text())
    results = read_records([ROOT / "results/cifar10.jsonl"])
    assert (ROOT / "docs/two-cores.md").read_text() == two_cores.page(record, results)


@pytest.mark.parametrize(
    ("words", "named"), [((), "--record"), (("--rounds", "0", "--record", "x"), "--rounds")]
)
def test_a_wrong_call_is_one_line(words: tuple[str, ...], named: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, ROOT / "benchmarks/two_cores.py", *words],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert named in ran.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
