from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

import pytest

from batchmix.data.report import Report, plain_console


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _shown(progress: bool, stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with Report(progress).bar("checking", 10) as advance:
        advance(10)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("progress", "stream", "bars"),
    [(True, _Terminal(), True), (True, io.StringIO(), False), (False, _Terminal(), False)],
)
def test_bars_are_for_people_who_watch(
    progress: bool, stream: io.StringIO, bars: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")  # has rich take any stream for a terminal
    assert ("checking" in _shown(progress, stream, monkeypatch)) is bars


def test_a_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    Report(progress=False).line("refused a file")
    assert capsys.readouterr() == ("", "batchmix: refused a file\n")


def _closed_pipe() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.skipif(sys.platform != "linux", reason="the disk that is always full is Linux's")
@pytest.mark.parametrize(
    "opened", [_closed_pipe, lambda: os.open("/dev/full", os.O_WRONLY)], ids=["pipe", "disk"]
)
def test_work_goes_on_where_nobody_reads_what_is_said_beside_it(
    opened: Callable[[], int], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with os.fdopen(opened(), "w", buffering=1) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        console = plain_console(stderr=True)
        console.print("step 1 of 2")
        console.print("step 2 of 2")
        Report(progress=False).line("done")
        stream.write("by somebody else\n")  # into nothing, as what Python writes when it ends
    sys.stdout.write("the results\n")
    assert capfd.readouterr().out == "the results\n"
