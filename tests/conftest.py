"""What every test can rely on: GPU tests skip with a reason, and the global RNGs can be watched."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from waiting import nothing_waits


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        no_gpu = pytest.mark.skip(reason="needs a CUDA device, and torch sees none here")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(no_gpu)


def global_rng_states() -> dict[str, object]:
    """The state of every global generator, in a form that compares with ==."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    states: dict[str, object] = {
        "random": random.getstate(),
        "numpy": (name, keys.tobytes(), *rest),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        for index in range(torch.cuda.device_count()):
            states[f"torch cuda:{index}"] = torch.cuda.get_rng_state(index).numpy().tobytes()
    return states


@pytest.fixture
def unmoved_global_rng() -> Iterator[None]:
    """Fail the test that uses this if torch's, NumPy's or Python's global generator moved during it."""
    before = global_rng_states()
    yield
    after = global_rng_states()
    moved = [name for name in before if before[name] != after[name]]
    assert not moved, f"the test moved the global generator of {', '.join(moved)}"


@pytest.fixture
def no_sync() -> Iterator[None]:
    """Fail the test that uses this if the host waits for a GPU."""
    with nothing_waits():
        yield


HOLD = """
import sys
from pathlib import Path
from batchmix.lock import only_one
with only_one(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """``hold(folder)``: another process that works on a folder, as a run and a study do, till its end."""
    held = []

    def hold(folder: Path) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", HOLD, str(folder)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        held.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in held:
        process.kill()
        process.communicate()
