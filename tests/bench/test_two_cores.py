"""The command for two cores, and the page that it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmark_scripts import run

from batchmix.bench.cores.page import page, read_record
from batchmix.recipe.results import read_records

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_page_is_that_of_the_committed_record() -> None:
    record = read_record(ROOT / "benchmarks/records/two-cores.json")
    results = read_records([ROOT / "results/cifar10.jsonl"])
    assert (ROOT / "docs/two-cores.md").read_text() == page(record, results)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "--record"),
        (("--rounds", "0", "--record", "x"), "--rounds"),
        (("--rounds", "15", "--record", "x"), "--rounds takes a whole number from 1 to 14, got 15"),
        (("--record", "x"), "results/cifar10.jsonl"),
        (("--record", "."), "--record takes a file in a folder that exists, got '.'"),
        (("--record", "x", "--page", "none/x.md"), "--page takes a file in a folder that exists"),
        (("--from", "none.json", "--results", ROOT / "results/cifar10.jsonl"), "none.json"),
    ],
)
def test_a_wrong_call_is_one_line(
    words: tuple[str | Path, ...],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("two_cores", *words) == 2
    assert named in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
