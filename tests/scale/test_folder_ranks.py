"""A timm model on a folder under torchrun: equality, a killed worker, ranks of unequal shares."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from launching import launch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "finetune"))
from made_up_folder import make_folder

FLAGS = ["--model=test_resnet", "--size=32", "--batch-size=9", "--epochs=2", "--workers=1", "--device=cpu"]
FLAGS += ["--lr=0.001", "--no-amp", "--json", "--resume=auto"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images, which 4 batches of 9 leave 4 of; 9 to test with, of which one rank has a batch more."""
    return make_folder(tmp_path_factory.mktemp("images"), {"train": 40, "val": 9})


def trained(folder: Path, out: Path, *words: str, **how: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """Final weights and summary."""
    ran = launch("folder_script.py", "train", f"--data=folder:{folder}", *FLAGS, *words, "--out", out, **how)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "FutureWarning" not in ran.stderr
    return load_file(out / "weights.safetensors"), json.loads(ran.stdout)


def test_two_processes_equal_one_where_exact(folder: Path, tmp_path: Path) -> None:
    """Batches of nine, so that one rank has five images and the other four; partners from either."""
    one, alone = trained(folder, tmp_path / "one")
    two, both = trained(folder, tmp_path / "two", "--exact", ranks=2)
    assert one.keys() == two.keys()
    for name in one:
        assert torch.allclose(one[name], two[name], rtol=1e-4, atol=1e-6), name
    for name in ("accuracy", "loss", "accuracy_ema", "loss_ema"):
        assert both[name] == pytest.approx(alone[name], rel=1e-4)


def test_a_killed_worker_is_replaced_and_nothing_differs(folder: Path, tmp_path: Path) -> None:
    """A real SIGKILL at step 6, after the checkpoint of step 5; partners are each rank's own."""
    calm, _ = trained(folder, tmp_path / "calm", "--checkpoint-every=5", ranks=2)
    words = ("--checkpoint-every=5",)
    killed, summary = trained(folder, tmp_path / "killed", *words, ranks=2, die_at=6)
    assert all(torch.equal(calm[name], killed[name]) for name in calm)
    assert summary["ranks"] == 2
    assert curves(tmp_path / "killed") == curves(tmp_path / "calm") == logged(tmp_path / "calm")


def curves(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard shows of a run, by the names of its curves."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / "tensorboard")).Reload()
    shown = {}
    for tag in board.Tags()["scalars"]:
        points = [(point.step, point.value) for point in board.Scalars(tag)]
        assert len(points) == len(dict(points)), f"{tag} has a step twice"
        shown[tag] = dict(points)
    return shown


def logged(folder: Path) -> dict[str, dict[int, float]]:
    """The same from the log."""
    found: dict[str, dict[int, float]] = {}
    for line in (folder / "log.jsonl").read_text().splitlines():
        values = json.loads(line)
        for name in values.keys() - {"step", "part"}:
            curve = found.setdefault(f"{values['part']}/{name}", {})
            curve[values["step"]] = float(np.float32(values[name]))
    return found
