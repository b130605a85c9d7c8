"""``batchmix results``: a table printed, or written into a document whose rest stays as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_main import call, refused

RECORD = {
    "preset": "cpu", "mix": "mixup", "alpha": 0.4, "epochs": 6, "images": 50000, "seed": 0,
    "device": "cpu", "cpu": "A CPU", "cores": 2, "isa": "AVX2", "torch": "2.9",
    "accuracy": 0.93, "accuracy_tta": 0.94, "loss": 0.25, "confidence": 0.9, "ece": 0.03,
    "train_seconds": 300.0,
}  # fmt: skip
BEGIN, END = b"<!-- results:begin -->", b"<!-- results:end -->"


@pytest.fixture
def records(tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps({**RECORD, "seed": seed}) + "\n" for seed in range(3)))
    return path


def test_the_table_is_printed(capsys, records):
    status, out, err = call(capsys, "results", records)
    assert (status, err) == (0, "")
    assert out.startswith("| preset |")
    assert "| 0 to 2 | 93.00 ± 0.00 % |" in out


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_document_keeps_the_rest_byte_for_byte(capsys, records, tmp_path, line_end):
    document = tmp_path / "README.md"
    before = line_end.join([b"# T\xc3\xaftle", b"", b"text", b""])
    after = line_end.join([b"", b"", b"\tmore  ", b"no end of line"])
    document.write_bytes(before + BEGIN + line_end + b"old" + line_end + END + after)
    assert call(capsys, "results", records, "--write", document) == (0, "", "")
    written = document.read_bytes()
    assert written.startswith(before + BEGIN)
    assert written.endswith(END + after)
    assert "93.00 ± 0.00 %".encode() in written
    assert b"old" not in written
    call(capsys, "results", records, "--write", document)
    assert document.read_bytes() == written


@pytest.mark.parametrize("text", [b"no marks", END + BEGIN, b"\xff\xfe" + BEGIN + END])
def test_a_document_that_does_not_take_a_table_stays(capsys, records, tmp_path, text):
    document = tmp_path / "README.md"
    document.write_bytes(text)
    assert str(document) in refused(capsys, "results", records, "--write", document)
    assert document.read_bytes() == text


def test_what_is_missing_or_corrupt_is_named(capsys, records, tmp_path):
    assert "none.jsonl" in refused(capsys, "results", tmp_path / "none.jsonl")
    assert "none.md" in refused(capsys, "results", records, "--write", tmp_path / "none.md")
    with records.open("a") as file:
        file.write("{half")
    assert f"{records}:4" in refused(capsys, "results", records)


def test_no_records_at_all_is_said(capsys, tmp_path):
    (tmp_path / "empty.jsonl").touch()
    assert "empty.jsonl" in refused(capsys, "results", tmp_path / "empty.jsonl")


def real(records, *, buffered, stdout):
    """Exit status and standard error of the real command; Python has a buffer for its output or has none."""
    words = [sys.executable, *(["-u"] if not buffered else []), "-m", "batchmix", "results", str(records)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ran = subprocess.run(
        words, stdout=stdout, stderr=subprocess.PIPE, env=env, text=True, timeout=120, check=False
    )
    return ran.returncode, ran.stderr


both = pytest.mark.parametrize("buffered", [False, True])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@both
def test_an_output_that_is_full_is_one_line(records, buffered):
    with Path("/dev/full").open("w") as full:
        status, said = real(records, buffered=buffered, stdout=full)
    assert (status, said) == (1, "error: cannot write the output: No space left on device\n")


def test_an_output_that_lacks_a_letter_is_one_line(records, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    status, said = real(records, buffered=True, stdout=subprocess.DEVNULL)
    assert (status, said) == (1, "error: the output has '\\xb1', which is not in ascii\n")


@both
def test_an_output_that_nobody_reads_any_more_is_left_in_silence(records, buffered):
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        assert real(records, buffered=buffered, stdout=theirs) == (1, "")
    finally:
        os.close(theirs)
