"""What a run leaves in its folder, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_runs import identical, made_up, start, tiny

from batchmix.errors import DataError, MixError
from batchmix.recipe import run as recipe_run
from batchmix.recipe.config import TrainConfig
from batchmix.recipe.images import normalize
from batchmix.recipe.network import Net
from batchmix.recipe.progress import Progress
from batchmix.recipe.restart import AUTO
from batchmix.scale.world import World

LEFT = [
    "config.json", "curves.png", "log.jsonl", "machine.json", "mixed.png", "summary.json",
    "weights.safetensors",
]  # fmt: skip


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_finished_run_leaves_all_of_its_files(train, tmp_path):
    summary = train(out=tmp_path / "new" / "runs")
    folder = Path(summary["folder"])
    assert folder.parent == tmp_path / "new" / "runs"
    assert names(folder) == LEFT
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("preset") == "tiny"
    assert TrainConfig.from_dict(config) == tiny()
    machine = json.loads((folder / "machine.json").read_text())
    assert machine["device"] == "cpu"
    assert machine["torch"] == torch.__version__
    assert {**json.loads((folder / "summary.json").read_text()), "folder": str(folder)} == summary
    assert [line["step"] for line in log_of(folder)] == list(range(12))
    assert log_of(folder)[-1]["epoch"] == 3
    for name in ("curves.png", "mixed.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_weights_give_the_accuracy_of_the_summary(train, tmp_path):
    summary = train(tiny(epochs=8), out=tmp_path)
    net = Net(tuple(summary["widths"]))
    net.load_state_dict(load_file(Path(summary["folder"]) / "weights.safetensors"))
    images, labels = made_up(100, seed=1)
    with torch.no_grad():
        guesses = net.eval()(normalize(images)).argmax(1)
    assert (guesses == labels).float().mean().item() == pytest.approx(summary["accuracy"])
    assert summary["accuracy"] >= 0.3


def test_runs_of_one_second_have_folders_of_their_own_and_a_line_each_in_the_record(train, tmp_path):
    record = tmp_path / "new" / "records.jsonl"
    made = [train(tiny(epochs=1, seed=seed), out=tmp_path / "runs", record=record) for seed in (0, 0, 1)]
    assert len(list((tmp_path / "runs").iterdir())) == 3
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert [{**line, "folder": run["folder"]} for line, run in zip(lines, made, strict=True)] == made


def test_a_record_that_takes_no_line_is_said_before_the_training(train, tmp_path):
    with pytest.raises(DataError, match=rf"^cannot write {tmp_path}: [^\n]*$"):
        train(out=tmp_path / "runs", record=tmp_path)
    assert names(tmp_path) == []


def test_a_run_that_is_done_is_recorded_where_it_is_not_yet(train, tmp_path):
    record, where = tmp_path / "records.jsonl", {"out": tmp_path / "run", "resume": AUTO}
    summary = train(tiny(epochs=1), **where)
    assert [train(tiny(epochs=1), **where, record=record) for _ in range(2)] == [summary] * 2
    (line,) = record.read_text().splitlines()
    assert json.loads(line) == {name: value for name, value in summary.items() if name != "folder"}


def test_the_picture_is_the_first_batch_as_the_net_sees_it(tmp_path, monkeypatch):
    import batchmix.pictures

    drawn = []
    real = batchmix.pictures.draw_batch
    monkeypatch.setattr(
        batchmix.pictures, "draw_batch", lambda x, y, *a, **k: drawn.append((x, y)) or real(x, y, *a, **k)
    )
    training = start(alpha=1.0)
    recipe_run.draw_mixed(training, tmp_path / "mixed.png")
    assert training.mixup.step == 0
    x, y = training.mixup(*training.batches.at(0, 16))
    assert torch.equal(drawn[0][0], x[:16])
    for mine, its in zip(drawn[0][1], y[:16], strict=True):
        assert torch.equal(mine, its)


def test_a_log_is_thinned_and_keeps_its_end(train, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe_run, "REPORTS", 5)
    folder = Path(train(out=tmp_path)["folder"])
    assert [line["step"] for line in log_of(folder)] == [0, 2, 4, 6, 8, 10, 11]


def test_on_a_gpu_reports_are_some_steps_apart(tmp_path, monkeypatch):
    reported = []
    monkeypatch.setattr(Progress, "step", lambda self, report: reported.append(report.step))
    training = start()
    training.device = torch.device("cuda")
    assert recipe_run.follow(training, tmp_path, Progress(shown=False))
    assert reported == [0, 3, 7, 8, 11]  # each eighth, and the end of each epoch
    assert [line["step"] for line in log_of(tmp_path)] == [0, 8, 11]


def test_a_run_interrupted_while_it_is_tested_is_not_lost(train, tmp_path, monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recipe_run, "evaluate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(out=tmp_path / "stopped")
    (folder,) = (tmp_path / "stopped").iterdir()
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "interrupted, the last checkpoint is kept; to go on:",
        f"  batchmix train --resume {folder}",
    ]
    resumed, unbroken = train(resume=folder), train(out=tmp_path / "unbroken")
    for name in ("accuracy", "loss", "ece"):
        assert resumed[name] == unbroken[name]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ""),
        ({"data": Path("my images")}, "--root 'my images' "),
        ({"device": "cpu", "record": Path("x.jsonl")}, "--device cpu --record x.jsonl "),
    ],
)
def test_a_stopped_run_says_how_to_go_on_as_it_was(train, tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recipe_run, "stop_on_signal", lambda _: contextlib.nullcontext(lambda: True))
    assert train(out=tmp_path / "runs", **options) is None
    (folder,) = (tmp_path / "runs").iterdir()
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "stopped at step 1 of 12; to go on:",
        f"  batchmix train {words}--resume {folder}",
    ]


def test_a_stopped_run_holds_a_checkpoint_and_goes_on_to_the_same_weights(train, stopped, tmp_path):
    assert names(stopped) == ["checkpoint.pt", "config.json", "log.jsonl", "machine.json", "mixed.png"]
    assert [line["step"] for line in log_of(stopped)] == list(range(5))
    resumed = train(tiny(seed=9), resume=stopped, preset="other")
    unbroken = train(out=tmp_path / "unbroken")
    assert resumed["folder"] == str(stopped)
    assert names(stopped) == LEFT
    assert [line["step"] for line in log_of(stopped)] == list(range(12))
    assert (resumed["preset"], resumed["seed"]) == ("tiny", 0)
    assert {k: resumed[k] for k in ("loss", "ece")} == {k: unbroken[k] for k in ("loss", "ece")}
    saved = [load_file(Path(run["folder"]) / "weights.safetensors") for run in (resumed, unbroken)]
    assert identical(*saved)


def test_under_torchrun_a_device_has_no_number(tmp_path):
    options = recipe_run.RunOptions("tiny", "made up", device="cuda:1", world=World(1, 2, 1, "cuda:1"))
    assert options.words() == ["--device", "cuda"]


def test_a_run_that_is_done_is_not_said_to_lack_a_checkpoint(train, tmp_path):
    folder = Path(train(tiny(epochs=1), out=tmp_path)["folder"])
    with pytest.raises(
        DataError, match=rf"^--resume takes a stopped run, the one in {folder} is done: [^\n]*$"
    ):
        train(resume=folder)


def test_a_run_of_a_newer_version_is_one_line(train, stopped):
    state = torch.load(stopped / "checkpoint.pt", weights_only=True)
    state["config"] |= {"wings": 2}
    torch.save(state, stopped / "checkpoint.pt")
    with pytest.raises(DataError, match=r"^--resume takes a run of this version[^\n]*: wings$"):
        train(resume=stopped)


@pytest.mark.parametrize("text", ["{}", "[]"])
def test_a_summary_that_says_nothing_is_one_line(train, tmp_path, text):
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(DataError, match=r"^[^\n]*summary\.json is not the summary of a run: mix, [^\n]*$"):
        train(out=tmp_path, resume=AUTO)


@pytest.mark.parametrize("tail", ['{"step": 4, "epo', '{"step": 5}\n{"st', "\x00\x00"])
def test_half_a_line_of_a_run_that_died_does_not_stop_it(train, stopped, tail):
    log = stopped / "log.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:4]) + tail)
    train(resume=stopped)
    assert [line["step"] for line in log_of(stopped)][-7:] == list(range(5, 12))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_resumed_folder_with_a_broken_config_is_one_line(train, stopped, text):
    (stopped / "config.json").write_text(text)
    with pytest.raises(DataError, match=r"^[^\n]*config\.json[^\n]*$"):
        train(resume=stopped)


@pytest.fixture
def fill_disk(monkeypatch):
    """``fill_disk(name)``: whatever is written for a file of this name meets a full disk."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")

    def fill(name):
        plain = Path.open

        def open_full(self, mode="r", *args, **options):
            file = plain(self, mode, *args, **options)
            if name in self.name and "r" not in mode:
                full = os.open("/dev/full", os.O_WRONLY)
                os.dup2(full, file.fileno())
                os.close(full)
            return file

        monkeypatch.setattr(Path, "open", open_full)

    return fill


@pytest.mark.parametrize("name", [*LEFT, "checkpoint.pt", "records.jsonl"])
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(train, tmp_path, fill_disk, name):
    fill_disk(name)
    with pytest.raises(DataError, match=rf"^no room to write [^\n]*{name}[^\n]*$"):
        train(out=tmp_path / "runs", record=tmp_path / "records.jsonl")
    (folder,) = (tmp_path / "runs").iterdir()
    assert set(names(folder)) <= {*LEFT, "checkpoint.pt"}
    for path in (folder / name, tmp_path / name):
        assert not path.exists() or (path.name.endswith(".jsonl") and path.read_bytes() == b"")


@pytest.mark.parametrize("epochs", [3, 0.25])
def test_a_training_that_diverges_stops_and_is_not_finished(train, tmp_path, epochs):
    """A single step's loss is that of the first weights; then the test shows it."""
    with pytest.raises(MixError, match=r"^the loss is nan at step \d+ of \d+: [^\n]*rate[^\n]*$"):
        train(tiny(epochs=epochs, filter_lr=1e30), out=tmp_path)
    (folder,) = tmp_path.iterdir()
    assert not {"summary.json", "weights.safetensors"} & set(names(folder))
    assert all(math.isfinite(line["loss"]) for line in log_of(folder))


def test_an_error_of_the_training_is_not_said_to_be_one_of_the_log(train, tmp_path, monkeypatch):
    def time_out(self):
        raise TimeoutError("the other ranks are gone")

    monkeypatch.setattr("batchmix.recipe.training.Training._one_step", time_out)
    with pytest.raises(TimeoutError, match="ranks are gone"):
        train(out=tmp_path)


@pytest.mark.parametrize("place", ["out", "out/below"])
def test_a_file_in_the_place_of_the_folder_is_one_line(train, tmp_path, place):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match=r"^cannot write [^\n]*out[^\n]*$"):
        train(out=tmp_path / place)
    assert (tmp_path / "out").read_text() == "a file"


def test_a_device_that_is_not_there_is_one_line_before_anything_is_made(train, tmp_path):
    for device in ("abacus", "cuda:99"):
        with pytest.raises((DataError, ValueError), match=rf"^[^\n]*device[^\n]*{device}[^\n]*$"):
            train(out=tmp_path / "runs", device=device)
    assert names(tmp_path) == []


def test_two_processes_do_not_go_on_with_one_run(train, stopped, hold):
    kept = (stopped / "checkpoint.pt").read_bytes()
    hold(stopped)
    with pytest.raises(DataError, match=rf"^{stopped} is in use by process \d+ on [^\n]*$"):
        train(resume=stopped)
    assert (stopped / "checkpoint.pt").read_bytes() == kept


def test_a_line_that_a_full_disk_cut_short_stays_a_line_of_its_own(tmp_path: Path) -> None:
    record = tmp_path / "records.jsonl"
    for before, lines in ((b"", 1), (b'{"seed": 1', 2), (b'{"seed": 1}\n', 2)):
        record.write_bytes(before)
        recipe_run.append_line(record, {"seed": 2})
        assert record.read_text().splitlines()[-1] == '{"seed": 2}'
        assert len(record.read_text().splitlines()) == lines
