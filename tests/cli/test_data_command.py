from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from PIL import Image

from batchmix.cli.data import add_parser
from batchmix.data import load_cifar10
from batchmix.data.cache import cache_dir
from batchmix.errors import DataError, MixError


def _run(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="batchmix")
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["data", *words])
    status = args.func(args)
    assert isinstance(status, int)
    return status


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="download is off") as caught:
        _run("--root", str(tmp_path), "--no-download")
    assert f"run `batchmix data --root {tmp_path}`" in str(caught.value)


def test_a_refused_file_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cifar10.bin").write_bytes(b"short")
    with pytest.raises(DataError, match="5 bytes instead of"):
        _run("--root", str(tmp_path), "--no-download")
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == f"CIFAR-10 in {tmp_path}"
    assert "5 bytes instead of" in shown
    assert "verified" not in shown


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MixError, match="root takes a folder"):
        _run("--root", str(tmp_path / "file"))


def test_the_real_data_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    load_cifar10(progress=False)
    capsys.readouterr()
    assert _run("--no-download") == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == f"CIFAR-10 in {cache_dir()}"
    row = next(line for line in shown.splitlines() if "cifar10.bin" in line)
    assert "184.4 MB" in row
    assert "verified" in row


def test_a_folder_of_images_is_decoded_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BATCHMIX_DATA", str(tmp_path / "cache"))
    for kind in ("cat", "dog"):
        (tmp_path / "pets" / kind).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (50, 40)).save(tmp_path / "pets" / kind / f"{number}.jpg")
    name = f"folder:{tmp_path / 'pets'}"
    assert _run(name, "--size", "24") == 0
    shown = capsys.readouterr().out
    assert shown == f"{name}: 8 images to train on, 2 to test with, 24 x 24 pixels, 2 classes\n"
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_path_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not as the emoji or the colours that rich would make of it."""
    root = tmp_path / ":cat: [red]"
    root.mkdir()
    (root / "cifar10.bin").write_bytes(b"short")
    with pytest.raises(DataError):
        _run("--root", str(root), "--no-download")
    assert capsys.readouterr().out.splitlines()[0] == f"CIFAR-10 in {root}"


def test_a_set_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^CIFAR-100 is not to be had: .*download is off"):
        _run("cifar100", "--root", str(tmp_path), "--no-download")


def test_a_size_without_a_folder() -> None:
    with pytest.raises(MixError, match=r"^--size takes nothing unless NAME is folder:PATH, got 64$"):
        _run("cifar10", "--size", "64")


def test_help_names_the_size_and_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        _run("--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "184 MB on disk" in text
    assert "$BATCHMIX_DATA" in text
