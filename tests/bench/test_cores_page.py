"""The page of two cores, from a made-up record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batchmix.bench.cores.page import IN_DETAIL, page, read_record
from batchmix.bench.cores.steps import ORDER
from batchmix.errors import DataError
from batchmix.recipe.config import PRESETS


@pytest.fixture
def record() -> Any:
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
            "parts": {group: 1 / len(ORDER) for group in ORDER},
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


def test_the_page_says_what_the_record_says(record: Any) -> None:
    made = {"cpu": "Test 9000", "cores": 2, "preset": "its old name", **PRESETS["quick"].config.as_dict()}
    runs = [
        {**made, "mix": "none", "accuracy": 0.9 + 0.01 * seed, "accuracy_tta": 0.95, "train_seconds": 100.0}
        for seed in range(3)
    ]
    others = [{**runs[0], "cpu": "another"}, {**runs[0], "epochs": 77}]
    lines = page(record, [*runs, *others]).splitlines()
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
    record: Any, accuracy: float, steps: int, seeds: int, verdict: str
) -> None:
    record["rows"] = [record["rows"][0], {**record["rows"][0], "name": "quick-bf16", "steps": steps}]
    made = {"cpu": "Test 9000", "cores": 2, "accuracy": 0.9, "train_seconds": 100.0}
    made |= {"preset": "quick-bf16", **PRESETS["quick-bf16"].config.as_dict(), "accuracy_tta": accuracy}
    text = page(record, [made] * seeds)
    came = f"{100 * accuracy:.3f} ± 0.000% in {steps / 400:.3f} of it, {seeds} seeds."
    assert f"{verdict} reached by quick-bf16: {came}" in text
    assert "fast-bf16:" not in text


def test_convolutions_are_shown_from_the_first_layer_on_with_their_rates(record: Any) -> None:
    assert "No such step is on record." in page(record, [])
    shape = {"inputs": 64, "outputs": 64, "size": 15, "result": 15, "kernel": 3}
    shape |= {"implementation": "amx", "calls": 2}
    seconds = 2 * 1000 * 2 * 64 * 64 * 9 * 15**2 / 1e12  # at 1 TFLOP/s
    backward = {**shape, "direction": "gradient of the filters", "seconds": seconds}
    forward = {**shape, "direction": "forward", "seconds": seconds / 2}
    whitening = {**forward, "inputs": 3, "outputs": 24, "size": 32, "result": 31, "kernel": 2, "calls": 1}
    whitening["seconds"] = 1000 * 2 * 3 * 24 * 4 * 31**2 / 1e11
    for name, code in zip(IN_DETAIL, ("amx", "other"), strict=True):
        calls = [backward, {**forward, "implementation": code}, whitening]
        record["rows"].append({**record["rows"][0], "name": name, "convolutions": calls, "reorders": 0.002})
    record["rows"][-1]["convolutions"] = record["rows"][-1]["convolutions"][:2]
    lines = page(record, []).splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("| 32 px, 3 to 24"))
    assert lines[first : first + 4] == [
        "| 32 px, 3 to 24 channels, 2x2: forward | 1 | 5.5 ms, 0.10 TFLOP/s |  | amx |",
        "| 15 px, 64 to 64 channels, 3x3: forward | 2 | 16.6 ms, 2.00 TFLOP/s | 16.6 ms, 2.00 TFLOP/s "
        "| amx or other |",
        "| 15 px, 64 to 64 channels, 3x3: gradient of the filters | 2 | 33.2 ms, 1.00 TFLOP/s "
        "| 33.2 ms, 1.00 TFLOP/s | amx |",
        "| copies between layouts and types | | 2.0 ms | 2.0 ms | |",
    ]


def test_without_whole_runs_it_says_so(record: Any) -> None:
    assert "No whole run on such a machine is on record." in page(record, [])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a record"),
        ('{"rows": []}', "machine, busy_before"),
        (None, "cannot read"),
    ],
)
def test_what_is_no_record_is_named(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "some.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"^[^\n]*some\.json[^\n]*") as error:
        read_record(path)
    assert said in str(error.value)
