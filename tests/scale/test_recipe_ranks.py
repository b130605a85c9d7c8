"""The CIFAR-10 recipe under torchrun: two processes equal one, and a killed worker changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from launching import launch
from safetensors.torch import load_file

TINY = ["train", "--preset=smoke", "--widths=8,8,8", "--sizes=16", "--images=200", "--batch-size=50"]
TINY += ["--device=cpu", "--epochs=2", "--json", "--precision=float32"]  # bfloat16 would hide what it shows


def trained(folder: Path, *words: str, **how: Any) -> dict[str, torch.Tensor]:
    """The final weights of a run in ``folder``."""
    ran = launch("recipe_script.py", *TINY, "--out", folder, "--resume=auto", *words, **how)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert json.loads(ran.stdout)["folder"] == str(folder)
    assert (folder / "summary.json").exists()
    return load_file(folder / "weights.safetensors")


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The largest difference of a weight, beside the largest weight of its tensor."""
    pairs = [(first[name].double(), second[name].double()) for name in first]
    return max(((a - b).abs().max() / a.abs().max().clamp(min=1e-3)).item() for a, b in pairs)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return trained(tmp_path_factory.mktemp("one"))


def test_two_processes_equal_one_where_exact(one: dict[str, torch.Tensor], tmp_path: Path) -> None:
    assert distance(one, trained(tmp_path, "--exact", ranks=2)) < 1e-3


def test_a_killed_worker_is_replaced_and_nothing_differs(
    one: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """A real SIGKILL in the second epoch, after the checkpoint of the first; partners are each rank's own."""
    calm = trained(tmp_path / "calm", ranks=2)
    killed = trained(tmp_path / "killed", ranks=2, die_at=6)
    assert all(torch.equal(calm[name], killed[name]) for name in calm)
    assert distance(one, calm) > 1e-2  # the mode that promises nothing of the kind
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()
    ]
    assert steps == list(range(8))


def test_a_worker_killed_on_the_second_host_is_replaced(tmp_path: Path) -> None:
    """Two torchruns that share a store, in which the addresses of the killed ranks stay."""
    calm = trained(tmp_path / "calm", ranks=2, hosts=2)
    killed = trained(tmp_path / "killed", ranks=2, hosts=2, die_at=6)
    assert all(torch.equal(calm[name], killed[name]) for name in calm)


def test_without_restarts_the_kill_is_seen(tmp_path: Path) -> None:
    words = [*TINY, "--out", tmp_path, "--resume=auto"]
    ran = launch("recipe_script.py", *words, ranks=2, restarts=0, die_at=6)
    assert ran.returncode != 0
    assert "[rank0]: Traceback" not in ran.stderr  # one line says that the other has ended
    assert not (tmp_path / "summary.json").exists()
    assert (tmp_path / "checkpoint.pt").exists()
