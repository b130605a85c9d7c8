"""Checkpoints: whole or not at all, and one line where they can't be read."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import start

from batchmix.errors import DataError
from batchmix.recipe.training import STATE, load_checkpoint, save_checkpoint

BROKEN = {
    "empty": lambda path, whole: path.write_bytes(b""),
    "garbage": lambda path, whole: path.write_bytes(b"not a checkpoint\n" * 9),
    "cut": lambda path, whole: path.write_bytes(whole[: len(whole) // 2]),
    "a list": lambda path, whole: torch.save([1, 2], path),
    "weights alone": lambda path, whole: torch.save({"net": {}}, path),
    "a config of another kind": lambda path, whole: torch.save({**dict.fromkeys(STATE), "config": []}, path),
    "code": lambda path, whole: torch.save(pytest.raises, path),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "checkpoint.pt"
    save_checkpoint(start(), path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_checkpoint_is_one_line_that_names_it(tmp_path, whole, kind):
    path = tmp_path / "checkpoint.pt"
    BROKEN[kind](path, whole)
    with pytest.raises(DataError, match=r"^--resume [^\n]*checkpoint\.pt[^\n]*$") as caught:
        load_checkpoint(path)
    assert "weights_only" not in str(caught.value)


def test_a_checkpoint_that_cannot_be_read_is_not_said_to_be_damaged(tmp_path):
    (tmp_path / "checkpoint.pt").mkdir()
    with pytest.raises(DataError, match=r"^--resume cannot read [^\n]*checkpoint\.pt: Is a directory$"):
        load_checkpoint(tmp_path / "checkpoint.pt")


def test_no_checkpoint_is_one_line_that_says_what_is_taken(tmp_path):
    with pytest.raises(DataError, match=r"^--resume takes a run folder with a checkpoint[^\n]*$"):
        load_checkpoint(tmp_path / "checkpoint.pt")


def test_an_older_checkpoint_stays_where_a_new_one_fails(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"old")

    def fail(*_, **__):
        raise KeyboardInterrupt

    training = start()
    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(training, path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("checkpoint.pt", b"old")]


def test_a_checkpoint_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"^cannot write [^\n]*checkpoint\.pt[^\n]*$"):
        save_checkpoint(start(), tmp_path / "missing" / "checkpoint.pt")
