"""The measure of decoding: folders of JPEGs, one case of each kind, and the page made from the record."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from benchmark_scripts import load, run
from PIL import Image

from batchmix.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
COUNT = 12
NO_IMAGES = SimpleNamespace(train_x=np.zeros((1, 32, 32, 3), np.uint8), train_y=np.zeros(1, int))


@pytest.fixture(scope="module")
def decoding() -> ModuleType:
    return load("decoding")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A few JPEGs of two classes."""
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 40, 40, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        path = tmp_path / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path


@pytest.mark.parametrize("kind", [None, "crop", "square"])
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_each_case_decodes_what_it_is_given(decoding: ModuleType, folder: Path, kind: str | None) -> None:
    told = decoding.measure(folder, kind, 32, 0, COUNT)
    assert told["images_per_second"] > 1
    assert told["peak_mib"] > told["grown_mib"] >= 0


def test_the_committed_page_is_that_of_the_committed_record(decoding: ModuleType) -> None:
    record = json.loads((ROOT / "benchmarks/records/decoding.json").read_text())
    page = (ROOT / "docs/scale.md").read_text()
    between = page.split(decoding.BEGIN)[1].split(decoding.END)[0]
    assert between == f"\n{decoding.table(record)}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("none/a.json",), "RECORD takes a file in a folder that exists, got 'none/a.json'"),
        (("a.json", "--page", "none.md"), "cannot read none.md: No such file or directory"),
        (("a.json", "--page", "page.md"), "the document takes the lines"),
        (("a.json", "--repeats", "0"), "--repeats takes a whole number >= 1, got 0"),
        (("a.json", "--folder", "page.md"), "page.md"),
    ],
)
def test_a_wrong_call_is_one_line_before_anything_is_measured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("page.md").write_text("no marks")
    monkeypatch.setattr("batchmix.data.load_cifar10", lambda: NO_IMAGES)
    assert run("decoding", *words) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


def test_a_process_that_fails_is_named_and_says_why_itself(
    decoding: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"^a process that measures ended with status 1: [^\n]*--measure"):
        decoding.in_its_own_process(tmp_path / "none", "pillow", 32, 0, 1)
    assert "none" in capfd.readouterr().err


def test_the_command_is_recorded_as_typed(decoding: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"images_per_second": 1.0, "peak_mib": 1.0, "grown_mib": 1.0}
    monkeypatch.setattr(decoding, "make_folder", lambda folder, side, count: folder)
    monkeypatch.setattr(decoding, "in_its_own_process", lambda *words: told)
    monkeypatch.setattr(decoding, "train", lambda place, epochs: {})
    monkeypatch.setattr(sys, "argv", ["decoding.py", "a.json", "--folder", "/some/where"])
    made = decoding.record(Path("/some/where"), 1, 1, 1)
    assert made["command"] == "python benchmarks/decoding.py a.json --folder /some/where"
