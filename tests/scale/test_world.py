"""What one process says when another of the run is gone."""

from __future__ import annotations

from typing import Any

import pytest

from batchmix.errors import DataError
from batchmix.scale import world

LOST = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:9625."


@pytest.fixture(autouse=True)
def under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the first of two processes, of which there is no second."""
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(world, "_meeting_place", lambda *_: None)

    def nothing(*_: Any, **__: Any) -> None:
        pass

    monkeypatch.setattr(world.dist, "init_process_group", nothing)


def test_a_process_that_lost_another_says_so_in_one_line() -> None:
    with pytest.raises(DataError, match=r"^another process .* Connection closed by peer") as caught:  # noqa: SIM117
        with world.joined("cpu"):
            raise RuntimeError(f"{LOST}\nThis is typically caused by a remote worker crashing.")
    assert "\n" not in str(caught.value)


def test_an_error_of_its_own_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match=r"^size mismatch$"), world.joined("cpu"):
        raise RuntimeError("size mismatch")
