"""The parts of a race: who takes part, what airbench prints, records and the page made from them."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
import torch
from benchmark_scripts import load

from batchmix.bench.race import child, turns
from batchmix.bench.race.contenders import NAMES, OURS, SCRIPTS, contender, frontier
from batchmix.bench.race.page import NOTHING, insert, page, section
from batchmix.bench.race.printed import PrintedRun, RunReader
from batchmix.bench.race.records import append_records, ratio_of, read_records, records_of
from batchmix.bench.race.turns import Entry, alone_on
from batchmix.errors import DataError, MixError
from batchmix.recipe.config import PRESETS, preset, preset_of

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ROOT / "benchmarks" / "records" / "race.jsonl"
MACHINE = {"device": "Test GPU", "cpu": "Test 9000", "cores": 8, "torch": "2.13.0"}
OPTIONS = {"small": False, "held_out": False}
# In the form of airbench's output: its columns, an epoch, and the row that ends a run.
PRINTED = """|  run   | epoch |  train_acc  |  val_acc  |  tta_val_acc  |  time_seconds  |
-------
|      0 |     0 |      0.5000 |    0.6000 |               |         0.5000 |
|        |     7 |      0.9500 |    0.9310 |               |         2.4000 |
|        |  eval |      0.9500 |           |        0.9402 |         2.6000 |
"""


# Who takes part


@pytest.mark.parametrize("name", NAMES)
def test_contenders_by_name(name):
    found = contender(name, Path("somewhere"), small=name in OURS)
    assert found.name == name
    ways = [found.config, found.function, found.script]
    assert sum(way is not None for way in ways) == 1
    json.dumps(found.orders())
    if found.config is not None:
        assert found.config.steps <= 10
        assert contender(name).config == OURS[name]


def test_ours_are_the_presets_and_what_they_are_measured_against():
    records = read_records(RECORDS)
    for name in ("gpu94", "gpu95", "gpu96", "fastai2018"):
        assert OURS[name] == preset(name)
        measured = any(preset_of(record["config"] or {}) == name for record in records)
        assert ("not measured yet" in PRESETS[name].text) == (not measured)
    assert (OURS["fastai2018"].mix, OURS["fastai2018-plain"].mix) == ("mixup", "none")
    assert (OURS["gpu94"].optimizer, OURS["gpu94-sgd"].optimizer) == ("muon", "sgd")
    assert (OURS["gpu94"].mix, OURS["gpu94-mixup"].mix) == ("none", "mixup")


def test_an_unknown_contender_is_one_line():
    with pytest.raises(MixError, match=r"^contenders takes names from gpu94, .*, got 'alexnet'$"):
        contender("alexnet")


def test_the_frontier_is_rungs_of_arms_that_differ_in_the_mixing():
    rungs = frontier()
    assert len({entry.name for rung in rungs for entry in rung}) == sum(map(len, rungs))
    for rung in rungs:
        assert [entry.config.mix for entry in rung] == ["none", "mixup", "cutmix"]
        assert len({(e.config.net, e.config.widths, e.config.epochs) for e in rung}) == 1
    assert len(frontier(small=True)) == 1


# What airbench prints


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_run_is_read_from_whatever_pieces_it_is_printed_in(size):
    runs = []
    reader = RunReader(runs.append)
    text = PRINTED + PRINTED.split("\n", 1)[1].replace("0.9402", "0.9395").replace("0.9310", "      ")
    for start in range(0, len(text), size):
        assert reader.write(text[start : start + size]) == len(text[start : start + size])
    assert runs[0] == PrintedRun(2.6, 0.9402, 0.931)
    assert runs[1] == PrintedRun(2.6, 0.9395, 0.6)


def test_a_row_without_its_numbers_is_an_error():
    with pytest.raises(ValueError, match="no time or no accuracy"):
        RunReader(print).write(PRINTED.replace("0.9402", "      "))


@pytest.fixture
def checkout(tmp_path):
    """A script that prints as airbench's do, and trains four times."""
    text = f"import sys\nassert __name__ == '__main__'\nassert sys.argv[0] == __file__\nhead = {PRINTED!r}\n"
    text += "for run in range(4):\n    print(head.replace('2.6000', f'{run}.5000'), end='')\n"
    (tmp_path / "airbench94_muon.py").write_text(text)
    return tmp_path


def take_turns(monkeypatch, checkout, turns, **changes):
    """What the process of the script says, where it is its turn so many times."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("sys.argv", ["child"])
    monkeypatch.setattr("sys.path", ["here"])
    monkeypatch.setattr("sys.stdin", io.StringIO("go\n" * turns))
    said = io.StringIO()
    orders = contender("airbench94_muon", checkout).orders() | {"device": "cuda", "held_out": False}
    child._take_part(orders | changes, said)
    return [json.loads(line) for line in said.getvalue().splitlines()]


def test_a_script_trains_once_a_turn_and_its_first_run_does_not_count(monkeypatch, checkout):
    said = take_turns(monkeypatch, checkout, 2)
    assert said[0]["ready"]
    assert [line["seconds"] for line in said[1:]] == [1.5, 2.5]
    assert {line["accuracy_tta"] for line in said[1:]} == {0.9402}


def test_a_script_that_has_no_more_runs_says_so(monkeypatch, checkout):
    with pytest.raises(RuntimeError, match="no more runs"):
        take_turns(monkeypatch, checkout, 4)


def test_airbench_does_not_run_without_a_gpu_or_on_other_images(monkeypatch, checkout):
    with pytest.raises(RuntimeError, match="its own training and test images"):
        take_turns(monkeypatch, checkout, 1, held_out=True)
    with pytest.raises(RuntimeError, match="needs a CUDA device"):
        take_turns(monkeypatch, checkout, 1, device="cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="needs a CUDA device"):
        child._theirs(contender("airbench94").orders() | {"device": "cuda"}, io.StringIO())


def test_everyone_races_on_the_one_gpu_that_was_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert alone_on(torch.device("cpu")) == ("cpu", {})
    assert alone_on(torch.device("cuda")) == ("cuda", {})
    assert alone_on(torch.device("cuda:2")) == ("cuda", {"CUDA_VISIBLE_DEVICES": "2"})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert alone_on(torch.device("cuda:1")) == ("cuda", {"CUDA_VISIBLE_DEVICES": "7"})


# Records, and the page


def made(name, seconds, accuracy, n=50, **changes):
    """The record of a race that gave the same again and again, but for the last digit."""
    entry = Entry(contender(name, Path("somewhere")))
    entry.runs = [
        {
            "seed": i,
            "seconds": seconds,
            "accuracy": accuracy - 0.01,
            "accuracy_tta": accuracy + (i % 2) * 1e-4,
        }
        for i in range(n)
    ]
    if entry.contender.config is not None:
        entry.ready = {"flop": 3e14, "warm_up_seconds": 60.0}
    (record,) = records_of(
        [entry],
        kind="race",
        race="one",
        machine=MACHINE,
        rate=8e14,
        options=OPTIONS | changes,
        command="race",
    )
    return record


def test_records_are_appended_and_read_again(tmp_path):
    path = tmp_path / "folder" / "race.jsonl"
    assert read_records(path) == []
    append_records(path, [made("gpu94", 1.5, 0.9403)])
    append_records(path, [made("airbench94_muon", 2.5, 0.9401), made("gpu96", 20.0, 0.9602)])
    records = read_records(path)
    assert [record["contender"] for record in records] == ["gpu94", "airbench94_muon", "gpu96"]
    assert {record["flop_from"] for record in records} == {"counted", "published"}
    assert records[0] == json.loads(json.dumps(made("gpu94", 1.5, 0.9403)))
    assert [found.name for found in path.parent.iterdir()] == ["race.jsonl"]


@pytest.mark.parametrize("line", ["{", "[]", '{"race": 1}'])
def test_a_line_that_is_no_record_is_named(tmp_path, line):
    (tmp_path / "race.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=r"race\.jsonl:1 is not"):
        read_records(tmp_path / "race.jsonl")


@pytest.mark.parametrize(
    ("seconds", "accuracy", "n", "reached"),
    [(1.7, 0.9403, 50, True), (1.8, 0.9403, 50, False), (1.7, 0.9399, 50, False), (1.7, 0.9403, 49, False)],
)
def test_a_goal_is_reached_in_time_with_the_interval_above_it_over_enough_runs(seconds, accuracy, n, reached):
    text = section([made("gpu94", seconds, accuracy, n), made("airbench94_muon", 2.5, 0.9401)])
    assert ("is reached" in text, "is not reached" in text) == (reached, not reached)


def test_the_table_says_what_was_measured_and_what_was_published():
    text = section([made("gpu94", 1.5, 0.9403), made("airbench94_muon", 2.5, 0.9401)])
    ours, theirs = (line for line in text.splitlines() if line.startswith(("| gpu94", "| airbench")))
    times = "1.500 s | 1.500 s | 1.500 s, 1.500 s"
    assert f"| 50 | {times} | 94.03 ± 0.00 % | 94 % | 93.03 % | 300 | 200 | 25% |" in ours
    assert "290 (published) | 116 |" in theirs
    assert "Race on Test GPU" in text


def test_a_goal_says_what_was_too_few_and_how_fast_the_other_can_be():
    ours, theirs = made("gpu94", 1.7, 0.9403, n=49), made("airbench94_muon", 2.5, 0.9401)
    theirs["runs"][3]["seconds"] = 2.0
    text = section([ours, theirs])
    assert "0.680 [0.680, 0.680] of its time over 49 runs, which are fewer than 50, and" in text
    assert "Of its fastest run, 2.000 s, the median of gpu94 is 0.85." in text
    assert "| 2.500 s | 2.490 s | 2.000 s, 2.500 s |" in text
    assert "fewer" not in section([made("gpu94", 1.7, 0.9403), theirs])


def test_a_ratio_that_rounds_drawn_again_may_take_beyond_the_goal_does_not_reach_it():
    ours, theirs = made("gpu94", 1.7, 0.9403), made("airbench94_muon", 2.5, 0.9401)
    for i in range(0, 50, 2):
        theirs["runs"][i]["seconds"] = 2.36  # half of the rounds at .72, the others at .68
    theirs["runs"][0]["seconds"] = 2.5
    ratio, low, high = ratio_of(ours, theirs)
    assert ratio == pytest.approx(0.68)
    assert (low, high) == pytest.approx((0.68, 1.7 / 2.36))
    assert "is not reached: 0.680 [0.680, 0.720]" in section([ours, theirs])
    theirs["runs"][2:20:2] = theirs["runs"][1:19:2]
    assert "is reached: 0.680 [0.680, 0.680]" in section([ours, theirs])


def test_rounds_are_drawn_whole():
    ours, theirs = made("gpu94", 1.0, 0.94), made("airbench94_muon", 2.0, 0.94)
    for i in range(50):  # a machine that slows down takes both along
        ours["runs"][i]["seconds"], theirs["runs"][i]["seconds"] = 1 + i / 50, 2 + i / 25
    assert ratio_of(ours, theirs) == pytest.approx((0.5, 0.5, 0.5))


def test_a_ratio_is_of_the_rounds_that_both_ran():
    ours, theirs = made("gpu94", 1.0, 0.94, n=10), made("airbench94_muon", 2.0, 0.94)
    for run in theirs["runs"][10:]:
        run["seconds"] = 4.0  # a machine that was slower once ours had ended
    assert ratio_of(ours, theirs) == pytest.approx((0.5, 0.5, 0.5))


def test_many_flop_are_written_in_full():
    assert "| 10,067 | 6,711 |" in section([{**made("gpu94", 1.5, 0.94), "flop": 10_067e12}])


def test_who_is_missing_is_named_with_the_reason_and_has_no_row():
    record = made("airbench96_faster", 1.0, 0.9, n=0) | {"missing": "no checkout"}
    text = section([made("gpu94", 1.5, 0.9399), record])
    assert "Missing: airbench96_faster (no checkout)." in text
    assert "| airbench96_faster |" not in text
    assert "| 93 % |" in text


def test_one_run_shows_nothing():
    assert "| nothing |" in section([made("gpu94", 1.5, 0.95, n=1)])


def test_small_races_are_no_part_of_the_page():
    assert page([]) == page([made("gpu94", 1.5, 0.9, small=True)]) == NOTHING
    assert page([made("gpu94", 1.5, 0.9)]).startswith("### Race on Test GPU")


def test_a_page_needs_its_marks():
    with pytest.raises(DataError, match="takes the lines"):
        insert("no marks", "table")


def test_the_page_in_the_docs_is_that_of_the_records():
    text = (ROOT / "docs" / "records.md").read_text()
    assert insert(text, page(read_records(RECORDS))) == text


def test_a_report_races_nobody(race_script, tmp_path, capsys):
    kept, page_file = tmp_path / "race.jsonl", tmp_path / "page.md"
    append_records(kept, [made("gpu94", 1.5, 0.9403)])
    page_file.write_text("<!-- records:begin -->\n<!-- records:end -->\n")
    assert race_script.main(["--report", "--record", str(kept), "--page", str(page_file)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("### Race on Test GPU")
    assert err == ""
    assert out.strip() in page_file.read_text()
    assert len(read_records(kept)) == 1


def test_a_report_of_no_file_leaves_the_page_as_it_is(race_script, tmp_path, capsys):
    page_file = tmp_path / "page.md"
    page_file.write_text("<!-- records:begin -->\nkept\n<!-- records:end -->\n")
    words = ["--report", "--record", str(tmp_path / "none.jsonl"), "--page", str(page_file)]
    assert race_script.main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"error: --report takes a file of records, found no {tmp_path / 'none.jsonl'}\n"
    assert "kept" in page_file.read_text()


def test_a_page_is_made_from_what_was_kept(race_script, tmp_path, capsys):
    page_file = tmp_path / "page.md"
    page_file.write_text("<!-- records:begin -->\nkept\n<!-- records:end -->\n")
    assert race_script.main(["--device", "cpu", "--small", "--page", str(page_file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert (
        err
        == "error: --page takes --record beside it, or --report: the page is made from all that was kept\n"
    )
    assert "kept" in page_file.read_text()


# Interrupted


class StoppedChild:
    """A contender's process that trains at once; Ctrl-C comes at its third turn."""

    def __init__(self, entry, folder, options):
        self.entry = entry

    def start(self):
        return "ready"

    def take_turn(self):
        if len(self.entry.runs) == 2:
            raise KeyboardInterrupt
        self.entry.runs.append({"seed": 0, "seconds": 1.0, "accuracy": 0.9, "accuracy_tta": 0.9})

    def end(self):
        pass


@pytest.mark.parametrize(("runs", "stopped"), [(2, False), (3, True)])
def test_a_race_says_whether_it_was_interrupted(monkeypatch, runs, stopped):
    monkeypatch.setattr(turns, "_Child", StoppedChild)
    entries, told = turns.race([contender("gpu94"), contender("gpu96")], runs=runs, options=OPTIONS)
    assert told == stopped
    assert [len(entry.runs) for entry in entries] == [2, 2]


def test_ctrl_c_ends_the_frontier_and_keeps_what_was_measured(race_script, monkeypatch, tmp_path, capsys):
    groups = []

    def race(group, **options):
        groups.append(group)
        entries = [Entry(one) for one in group]
        for entry in entries:
            entry.runs = [{"seed": 0, "seconds": 1.0, "accuracy": 0.9, "accuracy_tta": 0.9}]
        return entries, len(groups) == 2

    monkeypatch.setattr(race_script, "race", race)
    monkeypatch.setattr(race_script, "matmul_rate", lambda *words: 1e12)
    kept = tmp_path / "race.jsonl"
    assert race_script.main(["--frontier", "--device", "cpu", "--record", str(kept)]) == 130
    assert len(groups) == 2 < len(frontier())
    assert [record["contender"] for record in read_records(kept)] == [
        one.name for group in groups for one in group
    ]
    assert capsys.readouterr().out.startswith("### Time against accuracy")


def test_a_race_stopped_before_its_first_round_leaves_no_record(race_script, monkeypatch, tmp_path):
    monkeypatch.setattr(race_script, "race", lambda group, **options: ([Entry(one) for one in group], True))
    monkeypatch.setattr(race_script, "matmul_rate", lambda *words: 1e12)
    kept = tmp_path / "race.jsonl"
    assert race_script.main(["--device", "cpu", "--record", str(kept)]) == 130
    assert not kept.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--record", "."], "--record takes a file in a folder that exists, got '.'"),
        (["--record", "file/race.jsonl"], "cannot write "),
        (["--record", "file"], "file:1 is not a line of JSON"),
        (["--record", "new.jsonl", "--page", "none.md"], "cannot read none.md: No such file or directory"),
        (["--record", "new.jsonl", "--page", "file"], "the document takes the lines"),
    ],
)
def test_what_cannot_be_written_is_said_before_anybody_races(
    race_script, monkeypatch, tmp_path, capsys, words, said
):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("no marks\n")
    monkeypatch.setattr(race_script, "race", lambda *words, **options: pytest.fail("it raced"))
    assert race_script.main(["--device", "cpu", "--small", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err


# The whole, in processes


@pytest.fixture(scope="module")
def race_script():
    return load("records")


def test_a_small_race_on_the_cpu(race_script, tmp_path, capsys):
    from batchmix.data import load_cifar10

    try:
        load_cifar10(download=False, progress=False)
    except DataError as error:
        pytest.skip(f"CIFAR-10 is not here: {str(error).splitlines()[0]}")
    kept, page_file = tmp_path / "race.jsonl", tmp_path / "page.md"
    page_file.write_text("<!-- records:begin -->\n<!-- records:end -->\n")
    names = "gpu94,fastai2018,airbench94,airbench96_faster"
    words = ["--device", "cpu", "--small", "--runs", "2", "--contenders", names]
    assert race_script.main([*words, "--record", str(kept), "--page", str(page_file)]) == 0
    ours, wide, package, checkout = read_records(kept)
    for record in (ours, wide):
        assert record["missing"] is None
        assert [run["seed"] for run in record["runs"]] == [0, 1]
        assert all(run["seconds"] > 0 and not math.isnan(run["accuracy"]) for run in record["runs"])
        assert record["flop"] > 0
    assert "CUDA" in package["missing"]
    assert "checkout" in checkout["missing"]
    assert package["runs"] == checkout["runs"] == []
    assert NOTHING in page_file.read_text()
    out, err = capsys.readouterr()
    assert "Missing: airbench96_faster" in out
    assert "round 2 of 2" in err


@pytest.mark.parametrize("words", [["--runs", "0"], ["--contenders", "alexnet"], ["--device", "abacus"]])
def test_a_wrong_word_is_one_line(race_script, capsys, words):
    assert race_script.main(["--small", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_scripts_are_named_as_in_the_checkout():
    assert all(contender(name, Path("there")).script == Path(f"there/{name}.py") for name in SCRIPTS)
