"""On a device that is no CPU everything stays there: a tensor that was made on the CPU by mistake is refused.

The tests marked ``gpu`` see more, where there is a GPU. These run everywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    folders = (HERE, HERE.parent, HERE.parent / "shim")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    run = subprocess.run(
        [sys.executable, HERE / "other_device.py"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert run.returncode == 0, run.stderr
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def test_the_watch_notices_what_it_is_for(found: dict[str, Any]) -> None:
    noticed = found["noticed"]
    assert noticed["two devices"].startswith("FakeTensorDeviceMismatchError: ")
    assert noticed["read_back"] == "cpu, read_back"
    assert noticed["float64"] == f"{found['device']}, float64"
    assert noticed["float64 on the way"] == "cpu, read_back, float64"


# Where the draws are made on the CPU, these read the batch back: their draws depend on its values.
LOOK_AT_VALUES = {"attentivecutmix", "by class", "cmixup", "energymixup", "saliencymix", "tokencutmix"}


@pytest.mark.parametrize("drawn", ["there", "on the CPU"])
def test_all_results_lie_on_the_device_and_nothing_is_read_back(found: dict[str, Any], drawn: str) -> None:
    results = found["results"][drawn]
    look = LOOK_AT_VALUES if drawn == "on the CPU" else set()
    expected = {name: found["device"] + (", read_back" if name in look else "") for name in results}
    if drawn == "there":
        results = {name: at.removesuffix(", float64") for name, at in results.items()}
    assert len(results) > 30
    assert {name: at for name, at in results.items() if at != expected[name]} == {}
