"""A file that could not be written is refused before anything is measured, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchmix.bench.targets import check_target, text_of
from batchmix.errors import DataError, MixError


def test_a_file_that_can_be_written_is_let_through_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "old.md").write_text("kept")
    for name in ("old.md", "new.md"):
        check_target("--page", tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["old.md"]
    assert text_of(tmp_path / "old.md") == "kept"


@pytest.mark.parametrize("name", [".", "..", "folder", "none/a.json", "file/a.json"])
def test_a_folder_or_a_file_in_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(MixError) as caught:
        check_target("--record", Path(name))
    assert str(caught.value) == f"--record takes a file in a folder that exists, got {name!r}"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="there is no folder that refuses root's files")
def test_a_folder_that_takes_no_files_is_named() -> None:
    with pytest.raises(DataError, match=r"^cannot write /proc/a\.json: [^\n]+$"):
        check_target("--record", Path("/proc/a.json"))


def test_a_page_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^cannot read .*none\.md: No such file"):
        text_of(tmp_path / "none.md")
