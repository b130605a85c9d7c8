"""The command line as a whole: what can't be carried out is one line that names the argument."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from batchmix._version import __version__
from batchmix.cli import build_parser, main
from batchmix.errors import DataError, MixError

Call = Callable[..., tuple[int, str, str]]


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of ``batchmix WORDS``."""
    capsys.readouterr()
    try:
        status = main([str(word) for word in words])
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 0
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line of a call that can't be carried out."""
    status, out, err = call(capsys, *words)
    assert (status, out) == (2, ""), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert err.endswith("\n")
    return err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "COMMAND"),
        (("fly",), "fly"),
        (("train", "--wings"), "--wings"),
        (("train", "now"), "now"),
        (("--fast", "train"), "--fast"),
        (("results",), "FILE"),
        (("data", "--wings"), "--wings"),
        (("show", "--alpha", "x"), "--alpha"),
    ],
)
def test_a_call_that_makes_no_sense_is_one_line_that_names_what(capsys, words, named):
    assert named in refused(capsys, *words)


def test_version_and_help_are_no_errors(capsys):
    assert call(capsys, "--version") == (0, f"batchmix {__version__}\n", "")
    status, out, err = call(capsys, "--help")
    assert (status, err) == (0, "")
    for name in commands():
        assert f"\n    {name} " in out


def commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(found.choices)


@pytest.mark.parametrize("name", ["train", "compare", "bench", "show", "data", "results"])
def test_every_command_has_help_for_all_it_takes(capsys, name):
    status, out, err = call(capsys, name, "--help")
    assert (status, err) == (0, "")
    assert "%%" not in out
    for action in commands()[name]._actions:
        assert action.help, action.dest


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(args: Any) -> int:
        raise error

    monkeypatch.setattr("batchmix.cli.results.run", run)


@pytest.mark.parametrize("error", [MixError("alpha takes this"), DataError("no room")])
def test_the_errors_of_the_library_are_their_line(capsys, monkeypatch, error):
    fail_with(monkeypatch, error)
    assert refused(capsys, "results", "file") == f"error: {error}\n"


def test_a_package_that_is_missing_is_named_with_the_way_to_get_it(capsys, monkeypatch):
    fail_with(monkeypatch, ModuleNotFoundError("No module named 'rich'", name="rich"))
    assert refused(capsys, "results", "file") == (
        "error: this command needs rich: pip install 'batchmix[cli]'\n"
    )


def test_an_extra_of_the_library_is_named_as_what_needs_it_does(capsys, monkeypatch):
    said = "this needs timm: pip install 'batchmix[timm]'"
    fail_with(monkeypatch, ModuleNotFoundError(said, name="timm"))
    assert refused(capsys, "results", "file") == f"error: {said}\n"


def test_a_large_picture_is_no_warning_without_a_name(capsys, monkeypatch, tmp_path):
    path = tmp_path / "large.png"
    Image.new("L", (100, 100)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_999)
    monkeypatch.setattr("batchmix.cli.results.run", lambda args: Image.open(path).close() or 0)
    assert call(capsys, "results", "file") == (0, "", "")


def test_a_bug_is_not_hidden(monkeypatch):
    fail_with(monkeypatch, ModuleNotFoundError("No module", name="batchmix.nothing"))
    with pytest.raises(ModuleNotFoundError):
        main(["results", "file"])


def test_ctrl_c_is_status_130(capsys, monkeypatch):
    fail_with(monkeypatch, KeyboardInterrupt())
    assert call(capsys, "results", "file") == (130, "", "")


def test_a_flag_is_not_guessed_from_its_beginning(capsys):
    with pytest.raises(SystemExit) as left:
        main(["train", "--no"])
    assert left.value.code == 2
    assert capsys.readouterr().err == (
        "error: unrecognized arguments: --no (batchmix train --help lists what there is)\n"
    )


@pytest.mark.parametrize("command", ["train", "show"])
def test_a_folder_of_data_that_is_not_there_is_not_made(capsys, tmp_path, command):
    line = refused(capsys, command, "--root", tmp_path / "typo")
    assert "--root: takes a folder that is there ('batchmix data --root' makes one)" in line
    assert list(tmp_path.iterdir()) == []
