"""Data parallel training in two processes: ranks draw apart, and a run can be made again bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ddp_script import STEPS, batches

import batchmix as bm

HERE = Path(__file__).parent
Ranks = list[dict[str, Any]]  # what each of the two saw


def launch(folder: Path, *ways: str) -> dict[str, Ranks]:
    """Train in these ways in two processes, which torchrun starts."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run(
        [*command, str(HERE / "ddp_script.py"), str(folder), *ways],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(HERE.parent / "shim"), "OMP_NUM_THREADS": "1"},
        timeout=280,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    return {way: [rank[way] for rank in ranks] for way in ways}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ranks]:
    return launch(tmp_path_factory.mktemp("ddp"), "plain", "lightning", "unseeded")


@pytest.fixture(params=["plain", "lightning"])
def ranks(request: pytest.FixtureRequest, runs: dict[str, Ranks]) -> Ranks:
    return runs[request.param]


def test_ranks_draw_different_plans(ranks: Ranks) -> None:
    """PL#16166, PL#20412: the same seed on all ranks does not give them the same draws."""
    first, second = ranks
    assert len(first["lams"]) == len(second["lams"]) == STEPS
    assert all(one != other for one, other in zip(first["lams"], second["lams"], strict=True))
    assert first["partners"] != second["partners"]
    assert first["mixer"] == second["mixer"] == {"seed": 5, "step": STEPS}


def test_the_first_rank_draws_what_a_process_alone_would(ranks: Ranks) -> None:
    mixer = bm.Mixup(0.4, seed=5)
    for (x, y), partners, lams in zip(batches(), ranks[0]["partners"], ranks[0]["lams"], strict=True):
        target = mixer(x, y)[1]["index"]
        assert target.b.tolist() == partners
        assert target.lam.tolist() == lams


def test_ranks_have_the_same_weights_and_learn(ranks: Ranks) -> None:
    first, second = ranks
    assert first["weights"] == second["weights"]
    for rank in ranks:
        assert sum(rank["losses"][-5:]) < 0.9 * sum(rank["losses"][:5])


def test_a_run_can_be_made_again_bit_for_bit(runs: dict[str, Ranks], tmp_path: Path) -> None:
    assert launch(tmp_path, "plain")["plain"] == runs["plain"]


def test_lightnings_run_is_that_of_plain_torch(runs: dict[str, Ranks]) -> None:
    for ours, plain in zip(runs["lightning"], runs["plain"], strict=True):
        assert (ours["partners"], ours["lams"]) == (plain["partners"], plain["lams"])
        assert ours["losses"] == pytest.approx(plain["losses"], rel=1e-6, abs=1e-6)


def test_lightning_gives_all_ranks_one_seed_and_they_still_draw_apart(runs: dict[str, Ranks]) -> None:
    """So that a checkpoint, which the first rank writes, resumes the draws of every rank."""
    first, second = runs["unseeded"]
    assert first["mixer"] == second["mixer"] == {"seed": 1000, "step": STEPS}
    assert all(one != other for one, other in zip(first["lams"], second["lams"], strict=True))
