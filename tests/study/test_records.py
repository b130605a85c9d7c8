"""The folder of a study: what is written is what is read, and what is broken is named."""

from __future__ import annotations

import json

import pytest

from batchmix.errors import DataError
from batchmix.study.records import read_record, read_study, write_asked, write_record

ASKED = {
    "arms": ["none", "mixup"], "seeds": [3, 0], "epochs": [10.0, 5.0], "images": 500, "data": "cifar10",
    "task": "recipe", "config": {}, "command": "batchmix compare",
}  # fmt: skip


def record(arm="none", seed=0, epochs=5.0, *, images=500, status="done", **scores):
    of_every_run = {
        "status": status, "error": None if status == "done" else "it broke", "arm": arm, "seed": seed,
        "task": "recipe", "data": "cifar10", "images": images, "epochs": epochs, "machine": {},
        "command": "batchmix compare", "date": "2020-01-01",
    }  # fmt: skip
    if status == "failed":
        return of_every_run
    names = ("accuracy", "loss", "confidence", "ece", "brier", "reliability", "curve", "train_seconds")
    return {**of_every_run, **dict.fromkeys(names), **scores}


@pytest.fixture
def folder(tmp_path):
    write_asked(tmp_path / "new" / "study", ASKED)
    return tmp_path / "new" / "study"


def fill(folder, records):
    for number, values in enumerate(records):
        write_record(folder, f"run{number}", values)


def test_a_study_is_read_as_it_was_written_in_the_order_asked(folder):
    every = [
        record(arm, seed, epochs) for epochs in (10.0, 5.0) for arm in ("mixup", "none") for seed in (0, 3)
    ]
    fill(folder, every)
    study = read_study(folder)
    assert study.asked == ASKED
    order = [(r["seed"], r["epochs"], r["arm"]) for r in study.records]
    assert order == [(s, e, a) for s in (3, 0) for e in (5.0, 10.0) for a in ("none", "mixup")]
    assert all(r in every for r in study.records)
    assert (study.arms, study.baseline) == (["none", "mixup"], "none")
    assert study.budgets == [(500, 5.0), (500, 10.0)]


def test_done_is_by_arm_budget_and_seed_and_failures_are_apart(folder):
    fill(folder, [record(accuracy=0.5), record(seed=3, status="failed"), record("mixup", 3, 10.0)])
    study = read_study(folder)
    assert {seed: r["accuracy"] for seed, r in study.done("none", (500, 5.0)).items()} == {0: 0.5}
    assert list(study.done("mixup", (500, 10.0))) == [3]
    assert study.done("mixup", (500, 5.0)) == {}
    assert [(r["arm"], r["seed"], r["error"]) for r in study.failed] == [("none", 3, "it broke")]


def test_what_was_not_asked_for_is_left_out(folder):
    fill(folder, [record("cutmix"), record(seed=9), record(epochs=7.0), record(images=400)])
    assert read_study(folder).records == []


def test_a_run_that_has_not_ended_has_no_record(folder):
    assert read_record(folder, "run") is None
    write_record(folder, "run", record())
    assert read_record(folder, "run") == record()


def test_no_study_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"^found no study in [^\n]+study.json$"):
        read_study(tmp_path)


@pytest.mark.parametrize("name", ["study.json", "runs/run0.json"])
@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "is not JSON"), ("[]", " missing"), ("{}", " missing"), ("\xff", "is not JSON")],
)
def test_a_broken_file_is_named_in_one_line(folder, name, text, said):
    fill(folder, [record()])
    (folder / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=said) as raised:
        read_study(folder)
    assert str(folder / name) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"status": "running"}, "running"),
        ({"accuracy": ...}, "accuracy missing"),
        ({"seed": ...}, "seed missing"),
    ],
)
def test_a_record_that_lacks_something_is_refused(folder, changed, said):
    values = {name: value for name, value in {**record(), **changed}.items() if value is not ...}
    (folder / "runs" / "run0.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match=said):
        read_study(folder)


@pytest.mark.parametrize(
    "changed",
    [
        {"seeds": 5}, {"seeds": [True]}, {"arms": []}, {"arms": [1]}, {"epochs": ["a"]}, {"epochs": []},
        {"images": "500"}, {"task": None}, {"config": []},
    ],
    ids=str,
)  # fmt: skip
def test_a_study_of_other_kinds_of_values_is_one_line(folder, changed):
    (folder / "study.json").write_text(json.dumps({**ASKED, **changed}))
    (name,) = changed
    with pytest.raises(DataError, match=rf"study\.json is not what a study was asked: {name} takes [^\n]*$"):
        read_study(folder)


BINS = {"count": [1] * 15, "confidence": [0.5] * 15, "accuracy": [None] * 15}


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": [1]}, {"arm": []}, {"epochs": "5"}, {"images": None}, {"machine": 3}, {"accuracy": "high"},
        {"curve": 5}, {"curve": [3]}, {"curve": [{"epoch": None}]}, {"curve": [{"epoch": 1, "loss": "low"}]},
        {"reliability": 3}, {"reliability": {"count": [1]}}, {"reliability": {**BINS, "count": [1] * 14}},
        {"reliability": {**BINS, "count": ["1"] * 15}}, {"train_seconds": "long"}, {"peak_memory_mb": []},
    ],
    ids=str,
)  # fmt: skip
def test_a_record_of_other_kinds_of_values_is_one_line(folder, changed):
    fill(folder, [{**record(), **changed}])
    (name,) = changed
    with pytest.raises(DataError, match=rf"run0\.json is not the record of a run: {name} takes [^\n]*$"):
        read_study(folder)


def test_a_record_may_lack_scores_and_hold_what_diverged(folder):
    made = [record(loss=float("nan"), curve=[{"epoch": 1, "loss": None}]), record(seed=3, reliability=BINS)]
    fill(folder, made)
    assert len(read_study(folder).records) == 2


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="cannot write"):
        write_asked(tmp_path / "file" / "study", ASKED)
    assert (tmp_path / "file").read_text() == "mine"
