"""``batchmix bench``: measures, writes and makes its page again; a wrong call is one line, said at once."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from batchmix.bench import losses
from batchmix.bench.records import read_record
from batchmix.cli import main


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tiny case and no peers."""
    monkeypatch.setattr(losses, "CLASS_COUNTS", {"quick": (5,)})
    monkeypatch.setattr("batchmix.bench.timing.MOST_ROUNDS", 3)
    monkeypatch.setattr("batchmix.bench.run.load_peers", lambda device: ([], {"timm": "ImportError: gone"}))
    monkeypatch.setattr("batchmix.bench.run.busy_share", lambda: 0.9)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    device = [] if "--from" in words else ["--device=cpu"]  # which is nothing where nothing is measured
    status = main(["bench", *map(str, words), *device])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


@pytest.mark.usefixtures("tiny")
def test_it_measures_shows_and_writes_and_makes_the_page_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, page = tmp_path / "here.json", tmp_path / "page.md"
    status, out, err = call(capsys, "--only", "loss", "--record", kept, "--page", page)
    assert (status, out) == (0, "")
    assert "loss: cross entropy, 128x5 float32, 1 thread" in err
    assert "90% of this machine was busy with something else" in err
    assert "missing: timm (ImportError: gone)" in err
    assert [row["who"] for row in read_record(kept)["rows"]][:2] == ["torch", "batchmix"]
    first, picture = page.read_bytes(), tmp_path / "pictures" / "bench-here.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert b"](pictures/bench-here.png)" in first

    page.unlink()
    assert call(capsys, "--from", kept, "--page", page)[0] == 0
    assert page.read_bytes() == first

    status, out, _ = call(capsys, "--from", kept)
    assert status == 0
    assert "batchmix, mixed target" in out
    assert "Goals" in out


@pytest.mark.usefixtures("tiny")
def test_json_is_the_record_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = call(capsys, "--only", "loss", "--json", "--repeats", "3", "--threads", "1")
    assert status == 0
    made = json.loads(out)
    assert made["options"]["repeats"] == 3
    assert "cross entropy" not in err


def refused(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    capsys.readouterr()
    try:
        status = main(["bench", *map(str, words)])
    except SystemExit as left:
        status = int(left.code or 0)
    shown = capsys.readouterr()
    assert (status, shown.out) == (2, "")
    assert shown.err.count("\n") == 1
    return shown.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "flight"), "--only takes some of blend, images, loss, sampling, price, got"),
        (("--shapes", "huge"), "--shapes takes quick or all, got 'huge'"),
        (("--repeats", "1"), "--repeats takes a whole number >= 3, got 1"),
        (("--threads", "two"), "--threads takes whole numbers with commas, such as 1,2, got 'two'"),
        (("--threads", "0"), "--threads takes whole numbers >= 1"),
        (("--device", "abacus"), "--device takes one of auto, cpu"),
        (("--record", "/no/such/folder/a.json"), "--record takes a file in a folder that exists"),
        (("--page", "/no/such/folder/a.md"), "--page takes a file in a folder that exists"),
        (("--from", "/no/such/file.json"), "cannot read /no/such/file.json"),
    ],
)
def test_a_wrong_call_is_one_line_that_names_the_flag(capsys, words, said):
    assert said in refused(capsys, *words)


@pytest.fixture
def measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever begins to measure has not checked what comes after."""

    def fail(*words: Any, **more: Any) -> None:
        raise AssertionError("measured before it was checked where the result goes")

    monkeypatch.setattr("batchmix.bench.run.measure_all", fail)


@pytest.mark.usefixtures("measures_nothing")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--record", "."), "--record takes a file in a folder that exists, got '.'"),
        (("--record", "folder"), "--record takes a file in a folder that exists, got 'folder'"),
        (("--page", "folder"), "--page takes a file in a folder that exists, got 'folder'"),
        (
            ("--page", "beside/x.md"),
            "--page takes a file beside which 'pictures' is a folder, got 'beside/x.md'",
        ),
        (
            ("--page", "taken/x.md"),
            "--page takes a file in a folder that exists, got 'taken/pictures/bench-x.png'",
        ),
    ],
)
def test_a_target_that_cannot_be_written_is_named_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("folder", "beside", "taken/pictures/bench-x.png"):
        Path(name).mkdir(parents=True)
    Path("beside/pictures").touch()
    assert said in refused(capsys, *words)


@pytest.mark.usefixtures("measures_nothing")
def test_a_page_without_matplotlib_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pictures take matplotlib, which is not installed" in refused(capsys, "--page", tmp_path / "x.md")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("--only", "loss"),
        ("--shapes", "quick"),
        ("--repeats", "5"),
        ("--threads", "1"),
        ("--device", "cpu"),
    ],
)
def test_what_is_measured_by_is_refused_where_nothing_is_measured(
    capsys: pytest.CaptureFixture[str], words: tuple[str, str]
) -> None:
    said = refused(capsys, "--from", "none.json", *words)
    assert f"{words[0]} takes what is measured now, and nothing with --from, got" in said


@pytest.mark.usefixtures("tiny")
def test_records_of_one_name_have_a_picture_each_and_names_with_spaces_are_links(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = [tmp_path / folder / "on cpu.json" for folder in ("a", "b")]
    for path in kept:
        path.parent.mkdir()
        call(capsys, "--only", "loss", "--record", path)
    page = tmp_path / "page.md"
    assert call(capsys, "--from", *kept, "--page", page)[0] == 0
    links = re.findall(r"^!\[[^]]*\]\(([^ )]*)\)$", page.read_text(), flags=re.MULTILINE)
    assert links == ["pictures/bench-on%20cpu.png", "pictures/bench-on%20cpu-2.png"]
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "bench-on cpu.png",
        "bench-on cpu-2.png",
    }


@pytest.mark.usefixtures("tiny")
def test_a_record_is_not_written_from_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "a.json"
    call(capsys, "--only", "loss", "--record", kept)
    said = refused(capsys, "--from", kept, "--record", tmp_path / "b.json")
    assert "--record takes what is measured now" in said
    assert not (tmp_path / "b.json").exists()


@pytest.mark.usefixtures("tiny")
def test_several_records_make_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cpu", "gpu"):
        call(capsys, "--only", "loss", "--record", tmp_path / f"{name}.json")
    page = tmp_path / "page.md"
    assert call(capsys, "--from", tmp_path / "cpu.json", tmp_path / "gpu.json", "--page", page)[0] == 0
    text = page.read_text()
    assert text.count("\n## On ") == 2
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"bench-cpu.png", "bench-gpu.png"}


@pytest.mark.usefixtures("tiny")
def test_tables_are_whole_in_a_file_and_folded_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    call(capsys, "--only", "loss", "--record", tmp_path / "here.json")
    _, in_a_file, _ = call(capsys, "--from", tmp_path / "here.json")
    assert "batchmix, mixed target" in in_a_file
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, on_a_terminal, _ = call(capsys, "--from", tmp_path / "here.json")
    assert len(on_a_terminal.splitlines()) > len(in_a_file.splitlines())
    assert "…" not in in_a_file + on_a_terminal
