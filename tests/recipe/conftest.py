"""Data and runs that several tests of the recipe share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import made_up, tiny

from batchmix.data import Cifar10, load_cifar10
from batchmix.errors import DataError
from batchmix.recipe import run as recipe_run
from batchmix.recipe.progress import Progress
from batchmix.recipe.training import pick_device


@pytest.fixture(scope="session")
def real_data() -> Cifar10:
    """CIFAR-10 itself, where this machine has it already."""
    try:
        return load_cifar10(download=False, progress=False)
    except DataError as error:
        pytest.skip(f"CIFAR-10 is not here: {str(error).splitlines()[0]}")


@pytest.fixture
def run_on(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``run_on(data)(config, out=...)``: the run of ``batchmix train``, with these data for CIFAR-10."""
    monkeypatch.setattr(recipe_run, "busy_share", lambda: 0.0)
    monkeypatch.setattr(recipe_run, "prepare", lambda device: None)
    # Where there is a GPU too, whose last bits are not the same twice.
    monkeypatch.setattr(
        recipe_run, "pick_device", lambda name: pick_device("cpu" if name == "auto" else name)
    )

    def with_data(data: Cifar10) -> Callable[..., Any]:
        monkeypatch.setattr(recipe_run, "load_cifar10", lambda *_, **__: data)

        def train(config: Any = None, **options: Any) -> dict[str, Any] | None:
            told = recipe_run.RunOptions(**{"preset": "tiny", "command": "made up", **options})
            return recipe_run.train(config or tiny(), told, Progress(shown=False))

        return train

    return with_data


@pytest.fixture
def train(run_on: Callable[..., Any]) -> Callable[..., Any]:
    """The run of ``batchmix train`` on made-up images."""
    train_x, train_y = (part.numpy() for part in made_up(200))
    test_x, test_y = (part.numpy() for part in made_up(100, seed=1))
    return run_on(Cifar10(train_x, train_y, test_x, test_y))


@pytest.fixture
def train_real(run_on: Callable[..., Any], real_data: Cifar10) -> Callable[..., Any]:
    """The run of ``batchmix train`` on real images, tested on the first hundred alone."""
    return run_on(replace(real_data, test_x=real_data.test_x[:100], test_y=real_data.test_y[:100]))


@pytest.fixture
def stopped(train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a tiny run that was stopped after five of its twelve steps."""
    with monkeypatch.context() as patch:
        patch.setattr(recipe_run, "stop_on_signal", stop_after(5))
        assert train(out=tmp_path) is None
    (folder,) = (path.parent for path in tmp_path.glob("*/checkpoint.pt"))
    return folder


def stop_after(steps: int) -> Callable[..., Any]:
    """What asks a run to stop after some steps, in place of a signal."""
    import contextlib

    asked = iter(range(1, steps + 1))
    return lambda _: contextlib.nullcontext(lambda: next(asked) == steps)
