"""The CIFAR-10 recipe and a timm model on a folder under torchrun: equality, a killed worker, unequal shares.

One file for both, because they take turns (see launching.py) and pytest-xdist keeps a file in one process.
"""

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

RECIPE = ["train", "--preset=smoke", "--widths=8,8,8", "--sizes=16", "--images=200", "--batch-size=50"]
RECIPE += ["--device=cpu", "--epochs=2", "--json", "--resume=auto"]
RECIPE += ["--precision=float32"]  # bfloat16 would hide what it shows

FOLDER = ["train", "--model=test_resnet", "--size=32", "--batch-size=9", "--epochs=2", "--workers=1"]
FOLDER += ["--device=cpu", "--lr=0.001", "--no-amp", "--json", "--resume=auto"]


def recipe(out: Path, *words: str, **how: Any) -> dict[str, torch.Tensor]:
    """The final weights of a run of the recipe."""
    ran = launch("recipe_script.py", *RECIPE, "--out", out, *words, **how)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert json.loads(ran.stdout)["folder"] == str(out)
    assert (out / "summary.json").exists()
    return load_file(out / "weights.safetensors")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Of a run in one process."""
    return recipe(tmp_path_factory.mktemp("one"))


def test_two_processes_equal_one_where_exact(one: dict[str, torch.Tensor], tmp_path: Path) -> None:
    assert distance(one, recipe(tmp_path, "--exact", ranks=2)) < 1e-3


def test_a_killed_worker_is_replaced_and_nothing_differs(
    one: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """A real SIGKILL in the second epoch, after the checkpoint of the first; partners are each rank's own."""
    calm = recipe(tmp_path / "calm", ranks=2)
    killed = recipe(tmp_path / "killed", ranks=2, die_at=6)
    assert all(torch.equal(calm[name], killed[name]) for name in calm)
    assert distance(one, calm) > 1e-2  # the mode that promises nothing of the kind
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "killed" / "log.jsonl").read_text().splitlines()
    ]
    assert steps == list(range(8))


def test_a_worker_killed_on_the_second_host_is_replaced(tmp_path: Path) -> None:
    """Two torchruns that share a store, in which the addresses of the killed ranks stay."""
    calm = recipe(tmp_path / "calm", ranks=2, hosts=2)
    killed = recipe(tmp_path / "killed", ranks=2, hosts=2, die_at=6)
    assert all(torch.equal(calm[name], killed[name]) for name in calm)


def test_without_restarts_the_kill_is_seen(tmp_path: Path) -> None:
    ran = launch("recipe_script.py", *RECIPE, "--out", tmp_path, ranks=2, restarts=0, die_at=6)
    assert ran.returncode != 0
    assert "[rank0]: Traceback" not in ran.stderr  # one line says that the other has ended
    assert not (tmp_path / "summary.json").exists()
    assert (tmp_path / "checkpoint.pt").exists()


def distance(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """The largest difference of a weight, beside the largest weight of its tensor."""
    pairs = [(first[name].double(), second[name].double()) for name in first]
    return max(((a - b).abs().max() / a.abs().max().clamp(min=1e-3)).item() for a, b in pairs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images, which 4 batches of 9 leave 4 of; 9 to test with, of which one rank has a batch more."""
    return make_folder(tmp_path_factory.mktemp("images"), {"train": 40, "val": 9})


def on_folder(folder: Path, out: Path, *words: str, **how: Any) -> tuple[dict[str, torch.Tensor], Any]:
    """Final weights and summary of a timm model on a folder."""
    ran = launch("folder_script.py", *FOLDER, f"--data=folder:{folder}", *words, "--out", out, **how)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "FutureWarning" not in ran.stderr
    return load_file(out / "weights.safetensors"), json.loads(ran.stdout)


def test_two_processes_on_a_folder_equal_one_where_exact(folder: Path, tmp_path: Path) -> None:
    """Batches of nine, so that one rank has five images and the other four; partners from either."""
    one, alone = on_folder(folder, tmp_path / "one")
    two, both = on_folder(folder, tmp_path / "two", "--exact", ranks=2)
    assert one.keys() == two.keys()
    for name in one:
        assert torch.allclose(one[name], two[name], rtol=1e-4, atol=1e-6), name
    for name in ("accuracy", "loss", "accuracy_ema", "loss_ema"):
        assert both[name] == pytest.approx(alone[name], rel=1e-4)


def test_a_worker_on_a_folder_that_is_killed_is_replaced_and_nothing_differs(
    folder: Path, tmp_path: Path
) -> None:
    """A real SIGKILL at step 6, after the checkpoint of step 5; partners are each rank's own."""
    calm, _ = on_folder(folder, tmp_path / "calm", "--checkpoint-every=5", ranks=2)
    words = ("--checkpoint-every=5",)
    killed, summary = on_folder(folder, tmp_path / "killed", *words, ranks=2, die_at=6)
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
