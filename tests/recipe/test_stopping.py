"""Ctrl-C and a sudden death of the real command on real images, and the real command to its end."""

from __future__ import annotations

import itertools
import json
import math
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import identical, start, tiny

from batchmix.recipe import training as recipe_training
from batchmix.recipe.progress import Progress
from batchmix.recipe.run import stop_on_signal
from batchmix.recipe.training import StepReport, Training
from batchmix.scale import stopping
from batchmix.scale.stopping import ASK_EVERY, Stopping
from batchmix.scale.world import World

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent as on Unix")

RUN = {"images": 400, "epochs": 10.0}  # 80 steps: a second or more
WORDS = ["--images=400", "--epochs=10", "--batch-size=50", "--widths=8,8,8", "--sizes=16"]


def command(*words):
    """The real command, started."""
    words = [sys.executable, "-m", "batchmix", "train", *map(str, words), "--device=cpu"]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop(out, name, number):
    """Start a run, send a signal as soon as it has written a file, and return its folder and its end."""
    with command("--preset=smoke", *WORDS, "--out", out) as process:
        deadline = time.monotonic() + 200
        while not (found := list(out.glob(f"*/{name}"))) and process.poll() is None:
            assert time.monotonic() < deadline, "the run did not begin"
            time.sleep(0.01)
        process.send_signal(number)
        shown, said = process.communicate(timeout=100)
        assert found, said
        return found[0].parent, process.returncode, shown, said


@pytest.fixture(scope="module")
def unbroken():
    return {}


@pytest.fixture
def goes_on_to_the_same_weights(train_real, unbroken, tmp_path):
    """Resume the run in a folder, and compare it with a run that nothing stopped."""

    def check(folder):
        if not unbroken:
            never = Path(train_real(tiny(**RUN), out=tmp_path / "never")["folder"])
            unbroken.update(load_file(never / "weights.safetensors"))
        assert train_real(resume=folder)["epochs"] == 10
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(80))
        assert identical(load_file(folder / "weights.safetensors"), unbroken)
        assert not (folder / "checkpoint.pt").exists()

    return check


def test_ctrl_c_keeps_a_checkpoint_and_says_how_to_go_on(tmp_path, goes_on_to_the_same_weights):
    folder, status, shown, said = stop(tmp_path / "runs", "log.jsonl", signal.SIGINT)
    assert status == 130, said
    assert shown == ""
    assert "Traceback" not in said
    assert f"batchmix train --device cpu --resume {folder}" in [line.strip() for line in said.splitlines()]
    assert (folder / "checkpoint.pt").exists()
    goes_on_to_the_same_weights(folder)


def test_the_first_signal_is_said_and_the_second_ends_at_once():
    said = []
    with stop_on_signal(said.append) as stopped:
        signal.raise_signal(signal.SIGINT)
        assert (stopped(), said) == (True, ["stopping after this step ..."])
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert len(said) == 1


@pytest.mark.parametrize(
    "error", [RuntimeError("reentrant call inside <_io.BufferedWriter>"), BrokenPipeError(), SystemExit(1)]
)
def test_a_signal_amid_other_words_or_after_the_reader_left_stops_all_the_same(error):
    def busy(line):
        raise error

    with stop_on_signal(busy) as stopped:
        signal.raise_signal(signal.SIGINT)
        assert stopped()


def test_the_accuracy_shown_is_that_of_the_last_reports(capsys, monkeypatch):
    progress = Progress()
    for step in range(100):
        if step == 99:
            monkeypatch.setattr(progress, "said", -math.inf)
        progress.step(StepReport(step, 1.0, 0.1 if step < 90 else 0.8, 32, 1.0))
    assert "accuracy 80.0%" in capsys.readouterr().err


def test_a_killed_run_goes_on_from_its_last_epoch(tmp_path, goes_on_to_the_same_weights):
    folder, status, *_ = stop(tmp_path / "runs", "checkpoint.pt", signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert not (folder / "summary.json").exists()
    goes_on_to_the_same_weights(folder)


@pytest.mark.usefixtures("real_data")
def test_the_real_command_prints_its_summary_as_json_and_nothing_else(tmp_path):
    record = tmp_path / "records.jsonl"
    with command("--preset=smoke", "--json", "--out", tmp_path / "runs", "--record", record) as process:
        shown, said = process.communicate(timeout=280)
    assert (process.returncode, said) == (0, "")
    summary = json.loads(shown)
    assert shown.count("\n") == 1
    assert json.loads(record.read_text()) == {k: v for k, v in summary.items() if k != "folder"}
    assert 0.1 < summary["accuracy"] < 1
    assert summary["preset"] == "smoke"
    assert summary["command"].startswith("batchmix train --preset=smoke --json")
    assert sorted(path.name for path in Path(summary["folder"]).iterdir()) == [
        "config.json", "curves.png", "log.jsonl", "machine.json", "mixed.png", "summary.json",
        "weights.safetensors",
    ]  # fmt: skip


@pytest.fixture
def clocks(monkeypatch):
    """A clock for each thread, which stands still until ``clocks.now`` is set."""
    clocks = threading.local()
    clock = SimpleNamespace(perf_counter=lambda: getattr(clocks, "now", 0.0))
    for module in (recipe_training, stopping):
        monkeypatch.setattr(module, "time", clock)
    return clocks


class Threads(World):
    """A world whose ranks are threads."""

    meeting = threading.Barrier(2)
    values: ClassVar[dict[int, torch.Tensor]] = {}

    def sum(self, values):
        self.meeting.wait(20)
        self.values[self.rank] = values
        self.meeting.wait(20)
        return sum(self.values.values())


@pytest.mark.parametrize("seconds", [0.001, 0.1, 2.0, 8.0])
def test_ranks_stop_together_soon_and_rarely_ask(clocks, seconds):
    """The second rank is told to stop; its clock goes another way. No report is due after the first."""
    told, last = 60 * seconds + 20, 10_000 + round(60 / seconds)

    def run(rank):
        clocks.now, questions = 0.0, 0

        def stop():
            nonlocal questions
            questions += 1
            return rank == 1 and clocks.now > told

        asking = Stopping(Threads(rank, 2), stop)
        for step in range(1, last):
            clocks.now += seconds * (1 + 0.2 * rank)
            if asking.asked(due=step == 1):
                return step, clocks.now, questions
        return None

    with ThreadPoolExecutor(2) as pool:
        (first, _, _), (second, now, questions) = pool.map(run, range(2))
    assert first == second
    assert now - told <= ASK_EVERY + 2.4 * seconds
    usual = now / (ASK_EVERY - 2 * seconds) if seconds < 2 else second
    assert questions <= 3 + math.log2(1 + ASK_EVERY / seconds) + usual


@pytest.mark.parametrize(("first", "later"), [(0.02, 0.4), (0.02, 1.5)])
def test_first_steps_that_take_what_was_decoded_before_do_not_set_the_pace(clocks, first, later):
    """Eight batches are ready, and after that each one is waited for; no report is due but the first."""
    asked = []

    class Alike(World):
        def sum(self, values):
            asked.append(clocks.now)
            return 2 * values

    clocks.now = 0.0
    asking = Stopping(Alike(size=2), lambda: False)
    for step in range(1, 400):
        clocks.now += first if step <= 8 else later
        asking.asked(due=step == 1)
    gaps = [after - before for before, after in itertools.pairwise(asked)]
    assert max(gaps) <= 30 - 5
    assert sorted(gaps)[len(gaps) // 2] > ASK_EVERY / 2


def test_a_rank_is_asked_between_reports_that_are_far_apart(clocks, monkeypatch):
    def one_step(self):
        clocks.now += 2.0
        self.step += 1
        return torch.zeros(2)

    monkeypatch.setattr(Training, "_one_step", one_step)
    monkeypatch.setattr(World, "sum", lambda self, values: values)
    clocks.now = 0.0
    training = start(batch_size=2)  # 100 steps an epoch
    training.world = World(size=2)
    reports = list(training.run(stop=lambda: clocks.now > 50, every=100))
    assert (len(reports), reports[0].step) == (2, 0)
    assert 25 <= reports[-1].step <= 25 + ASK_EVERY
