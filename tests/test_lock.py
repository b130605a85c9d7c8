"""Who holds a folder, and who does not any more."""

from __future__ import annotations

import errno
import os

import pytest

from batchmix import lock
from batchmix.errors import DataError
from batchmix.lock import only_one


def test_a_folder_that_is_held_is_one_line_that_names_it_and_who_holds_it(tmp_path, hold):
    holder = hold(tmp_path)
    with (
        pytest.raises(DataError, match=rf"^{tmp_path} is in use by process {holder.pid} on [^\n]+$"),
        only_one(tmp_path),
    ):
        pass
    holder.communicate()  # ends its block
    with only_one(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_was_killed_holds_nothing(tmp_path, hold):
    holder = hold(tmp_path)
    holder.kill()
    holder.wait()
    assert (tmp_path / ".lock").exists()
    with only_one(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()


def test_a_lock_that_was_removed_before_it_was_had_is_no_lock(tmp_path, monkeypatch):
    real, calls = lock._lock, []

    def lock_late(file):
        if not calls:
            (tmp_path / ".lock").unlink()  # its holder is done between the opening and the locking
        calls.append(file)
        return real(file)

    monkeypatch.setattr(lock, "_lock", lock_late)
    with only_one(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert len(calls) == 2


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(DataError, match=r"^cannot write [^\n]*\.lock: [^\n]*$"), only_one(tmp_path):
        pass


def test_a_file_system_without_locks_lets_everybody_in(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with only_one(tmp_path):
        pass
