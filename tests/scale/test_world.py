"""What one process says when another of the run is gone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from batchmix.errors import DataError, MixError
from batchmix.recipe.training import pick_device
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


def test_a_launcher_need_not_tell_the_place_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setattr(world.dist, "destroy_process_group", lambda: None)
    with world.joined("cpu") as found:
        assert found == world.World(0, 2, 0, "cpu")


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK", "LOCAL_RANK"])
@pytest.mark.parametrize("told", ["", "two", "-1"])
def test_a_word_where_a_number_belongs_is_named(
    name: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, told)
    with (
        pytest.raises(MixError, match=f"^{name} takes a whole number, .* got '{told}'$"),
        world.joined("cpu"),
    ):
        pass


def test_a_gpu_that_is_not_there_is_refused_as_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(world.torch.cuda, "device_count", lambda: 0)
    with pytest.raises(MixError) as alone:
        pick_device("cuda")
    with pytest.raises(MixError) as together, world.joined("cuda"):
        pass
    assert str(together.value) == str(alone.value)


def test_ranks_wait_for_one_that_fetches_or_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(world.dist, "init_process_group", lambda *_, **words: told.update(words))
    monkeypatch.setattr(world.dist, "destroy_process_group", lambda: None)
    with world.joined("cpu"):
        assert told["timeout"] > timedelta(minutes=30)


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the second process of a host, which sees one GPU."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(world.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(world.torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(world.torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(world.dist, "destroy_process_group", lambda: None)


@pytest.mark.usefixtures("one_gpu")
def test_a_process_that_is_shown_one_gpu_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with world.joined() as found:
        assert found == world.World(0, 2, 1, "cuda:0")


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize("seen", [False, True])
def test_a_gpus_ranks_wait_as_long_only_where_torchrun_ends_those_of_a_dead_one(
    monkeypatch: pytest.MonkeyPatch, seen: bool
) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(world.dist, "init_process_group", lambda *_, **words: told.update(words))
    monkeypatch.setattr(world.dist, "is_torchelastic_launched", lambda: seen)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with world.joined():
        assert told["timeout"] == (world.PATIENCE if seen else None)


@pytest.mark.usefixtures("one_gpu")
def test_processes_that_are_shown_the_same_gpu_name_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    says = r"^--nproc-per-node takes a GPU for each process, got several on one GPU$"
    with pytest.raises(MixError, match=says), world.joined():
        raise world.dist.DistBackendError("NCCL error ... Duplicate GPU detected : rank 0 and rank 1")


@pytest.mark.usefixtures("one_gpu")
@pytest.mark.parametrize(
    "shown",
    [{}, {"CUDA_VISIBLE_DEVICES": "3,4"}, {"CUDA_VISIBLE_DEVICES": "3", "TORCHELASTIC_RUN_ID": "none"}],
)
def test_two_processes_do_not_share_a_gpu(monkeypatch: pytest.MonkeyPatch, shown: dict[str, str]) -> None:
    """torchrun shows both of them the same one."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in shown.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MixError, match=r"^--nproc-per-node takes at most 1 here, got '?2"), world.joined():
        pass
