from __future__ import annotations

import io
import sys

import pytest

from batchmix.data.report import Report


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
