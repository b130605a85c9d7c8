"""The table of results against SciPy, and the document around it to the last byte."""

from __future__ import annotations

import json
import math

import pytest

from batchmix.errors import DataError
from batchmix.recipe.config import PRESETS
from batchmix.recipe.results import BEGIN, END, insert_table, interval, read_records, table

stats = pytest.importorskip("scipy.stats")

RECORD = {
    "preset": "cpu", "mix": "mixup", "alpha": 0.4, "epochs": 6, "images": 50000, "seed": 0,
    "device": "cpu", "cpu": "A CPU", "cores": 2, "isa": "AVX2", "torch": "2.9",
    "accuracy": 0.93, "accuracy_tta": 0.94, "loss": 0.25, "confidence": 0.9, "ece": 0.03,
    "train_seconds": 300.0,
}  # fmt: skip


def rows(records):
    return [[c.strip() for c in r.split("|")[1:-1]] for r in table(records).splitlines()[2:] if r[:1] == "|"]


@pytest.mark.parametrize("count", [2, 3, 10, 31, 32, 60])
def test_intervals_are_those_of_scipy(count):
    values = [math.sin(i) for i in range(count)]
    low, high = stats.t.interval(0.95, count - 1, sum(values) / count, stats.sem(values))
    assert interval(values) == pytest.approx((high - low) / 2, rel=0.005)


def test_a_row_has_mean_and_interval_of_its_seeds():
    accuracies = [0.93, 0.94, 0.935]
    half = 100 * stats.t.ppf(0.975, 2) * stats.sem(accuracies)
    (row,) = rows([{**RECORD, "seed": i, "accuracy": a} for i, a in enumerate(accuracies)])
    assert row[:4] == ["cpu", "mixup, alpha 0.4", "6", "0 to 2"]
    assert row[4] == f"93.50 ± {half:.2f} %"
    assert row[5:] == ["94.00 ± 0.00 %", "0.250 ± 0.000", "90.0 ± 0.0 %", "0.030 ± 0.000", "300 ± 0 s"]


def test_a_run_that_is_there_twice_is_refused():
    with pytest.raises(DataError, match=r"^the records hold a run twice: mixup, seeds \[0, 0, 1\]$"):
        table([RECORD, {**RECORD, "seed": 1}, {**RECORD, "accuracy": 0.94}])


def test_mixing_is_compared_with_none_in_pairs_of_one_seed():
    gaps = [0.01, 0.02, 0.06]
    plain = [{**RECORD, "mix": "none", "seed": i, "accuracy": 0.8 + i / 50} for i in range(3)]
    mixed = [{**RECORD, "seed": i, "accuracy": 0.8 + i / 50 + gap} for i, gap in enumerate(gaps)]
    half = 100 * stats.t.ppf(0.975, 2) * stats.sem(gaps)
    said = table([*plain, *mixed, {**RECORD, "seed": 7}])
    assert f"minus none, paired by seed (n = 3): accuracy +3.00 ± {half:.2f} points" in said
    assert "paired" not in table([*plain, {**RECORD, "epochs": 9}, {**RECORD, "epochs": 9, "seed": 1}])


def test_runs_are_paired_by_their_settings_whatever_the_preset_was_called():
    runs = [
        {**RECORD, "seed": seed, "mix": mix, "preset": mix} for seed in (0, 1) for mix in ("mixup", "none")
    ]
    assert "mixup, mixup alpha 0.4 minus none, paired by seed (n = 2)" in table(runs)


@pytest.mark.parametrize(
    ("changes", "seeds", "words"),
    [
        ({"accuracy_tta": 0.94, "train_seconds": 360.0}, 5, "is reached"),
        ({"accuracy_tta": 0.9399}, 5, "is not reached"),
        ({"accuracy_tta": 0.93999999}, 5, "is reached"),  # .94 in float32
        ({"train_seconds": 361.0}, 5, "is not reached"),
        ({}, 4, "is not reached"),
    ],
)
def test_the_goal_is_held_against_accuracy_time_and_seeds(changes, seeds, words):
    said = table([{**RECORD, **changes, "seed": i} for i in range(seeds)])
    assert f"{words} by cpu" in said


def test_all_presets_that_aim_at_the_goal_are_in_one_sentence():
    quick, slow = (
        {**RECORD, "preset": name, "train_seconds": s} for name, s in (("cpu", 90.0), ("fast-bf16", 400.0))
    )
    runs = [{**record, "seed": seed} for record in (slow, quick) for seed in range(5)]
    (said,) = (line for line in table(runs).splitlines() if "goal" in line)
    assert (
        "is reached by cpu (94.000 ± 0.000%, 90 s at most, 5 seeds); "
        "not by fast-bf16 (94.000 ± 0.000%, 400 s at most" in said
    )


@pytest.mark.parametrize(
    "changes", [{"mix": "none"}, {"images": 5000}, {"device": "a GPU"}, {"preset": "quick"}, {"cores": 64}]
)
def test_other_runs_are_not_held_against_the_goal(changes):
    assert "goal" not in table([{**RECORD, **changes}])


def test_a_single_seed_has_no_interval():
    (row,) = rows([RECORD])
    assert row[3:5] == ["0", "93.00 %"]
    assert "±" not in table([RECORD])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("mix", "none"), ("alpha", 0.2), ("epochs", 3), ("cpu", "B"), ("cores", 8), ("preset", "quick")),
        ("ranks", 2),
    ],
)
def test_runs_that_differ_in_more_than_their_seed_have_rows_of_their_own(name, value):
    assert len(rows([RECORD, {**RECORD, "seed": 1, name: value}])) == 2


@pytest.mark.parametrize(("name", "value"), [("widths", [8, 8, 8]), ("batch_size", 500), ("fold", False)])
def test_so_do_runs_with_other_settings(name, value):
    settings = {"widths": [32, 128, 128], "batch_size": 250, "fold": True}
    record = {**RECORD, **settings}
    assert len(rows([record, {**record, "seed": 1, name: value}])) == 2


@pytest.mark.parametrize(
    ("device", "mode", "seconds"),
    [
        ("A GPU", "auto", "300 s with compilation"),
        ("A GPU", "off", "300 s"),
        ("cpu", "auto", "300 s"),
        ("cpu", "default", "300 s with compilation"),
    ],
)
def test_a_time_that_holds_compilation_says_so(device, mode, seconds):
    (row,) = rows([{**RECORD, "device": device, "compile": mode}])
    assert row[9] == seconds


def test_processes_are_named_and_older_records_had_one(tmp_path):
    path = tmp_path / "records.jsonl"
    settings = {**PRESETS["quick"].config.as_dict(), **RECORD, "preset": "quick"}
    runs = [settings, {**settings, "seed": 1, "ranks": 1}, {**settings, "ranks": 2}]
    path.write_text("\n".join(map(json.dumps, runs)))
    one, two = rows(read_records([path]))
    assert one[3] == "0 to 1"
    assert two[0].endswith(", 2 processes")


def test_scattered_seeds_are_listed_and_runs_without_mixing_say_so():
    first, second = rows([{**RECORD, "mix": m, "seed": s} for m in ("none", "mixup") for s in (7, 1, 4)])
    assert first[1:4] == ["none", "6", "1, 4, 7"]
    assert second[1] == "mixup, alpha 0.4"


def test_the_machine_is_named_below():
    last = table([RECORD, {**RECORD, "device": "A GPU"}]).splitlines()[-1]
    assert "A GPU, 2 cores of A CPU (AVX2)" in last
    assert "torch 2.9" in last


def test_machines_have_numbers_where_there_are_several():
    made = table([RECORD, {**RECORD, "cpu": "Another"}, {**RECORD, "epochs": 9}])
    assert [line.rsplit("|", 2)[1].strip() for line in made.splitlines()[2:5]] == ["M1", "M2", "M1"]
    assert "Made on M1: 2 cores of A CPU (AVX2); M2: 2 cores of Another (AVX2), torch 2.9." in made


def test_the_rest_of_the_document_stays():
    text = f"# T\r\n\n é {BEGIN}\nold\n{END}  \nafter {END}\n\n"
    assert insert_table(text, "new") == f"# T\r\n\n é {BEGIN}\nnew\n{END}  \nafter {END}\n\n"
    assert insert_table(insert_table(text, "new"), "new") == insert_table(text, "new")


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}\n{BEGIN}\n"])
def test_missing_marks_are_named_in_one_line(text):
    with pytest.raises(DataError, match=rf"^[^\n]*{BEGIN}[^\n]*{END}[^\n]*$"):
        insert_table(text, "new")


def test_records_come_in_the_order_of_their_files(tmp_path):
    for name, seeds in (("a", (2, 0)), ("b", (1,))):
        lines = [json.dumps({**RECORD, "seed": seed}) for seed in seeds]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    assert [r["seed"] for r in read_records([tmp_path / "b", tmp_path / "a"])] == [1, 2, 0]


CORRUPT = {
    "half a line": json.dumps(RECORD)[:40],
    "blank": " ",
    "a number": "5",
    "a list": "[]",
    "no UTF-8": b"\xff\xfe",
    **{f"no {n}": json.dumps({k: v for k, v in RECORD.items() if k != n}) for n in sorted(RECORD)},
    **{
        f"accuracy {value}": json.dumps({**RECORD, "accuracy": value})
        for value in (None, "0.9", math.nan, True)
    },
}


@pytest.mark.parametrize("kind", CORRUPT)
def test_a_corrupt_record_is_named_by_file_and_line(tmp_path, kind):
    line = CORRUPT[kind]
    good = json.dumps(RECORD).encode()
    path = tmp_path / "records.jsonl"
    path.write_bytes(good + b"\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n" + good)
    with pytest.raises(DataError, match=r"^[^\n]*records\.jsonl:2 is not [^\n]*$"):
        read_records([path])


def test_a_run_has_the_name_of_the_preset_that_has_its_settings_today(tmp_path):
    path = tmp_path / "records.jsonl"
    settings = {**PRESETS["fast-bf16"].config.as_dict(), "seed": 3, "mix": "none"}
    named, other = {**RECORD, **settings, "preset": "old-name"}, {**RECORD, "preset": "old-name"}
    path.write_text("\n".join(map(json.dumps, (named, other))))
    found = read_records([path])
    assert [record["preset"] for record in found] == ["fast-bf16", "old-name (changed)"]
    everything, few = table(found), table(found, presets_only=True)
    assert everything.endswith("Where it says (changed), the preset has other settings today.")
    assert "| old-name (changed) |" in everything
    assert "changed" not in table(found[:1])
    assert "old-name" not in few
    assert few.endswith("1 more runs on record have settings that no preset has today.")
    assert "more runs" not in table(found[:1], presets_only=True)
    with pytest.raises(DataError, match=r"^found 1 records, none with the settings of a preset$"):
        table(found[1:], presets_only=True)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"^cannot read [^\n]*none\.jsonl"):
        read_records([tmp_path / "none.jsonl"])
