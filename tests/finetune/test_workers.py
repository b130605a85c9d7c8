"""How workers start and end: beside other ranks, and where their training is signalled or killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from made_up_folder import make_folder
from torch import distributed as dist

from batchmix.data.listing import list_images
from batchmix.finetune import views
from batchmix.finetune.files import ImageFiles
from batchmix.finetune.views import Views, stream

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="workers start and stop as on Unix")

HERE = Path(__file__).parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path, {"train": 10, "val": 2})


@pytest.fixture
def files(folder: Path) -> ImageFiles:
    listing = list_images(folder)
    return ImageFiles(listing.folder, listing.train)


@pytest.fixture
def rank(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that decodes as a rank of torchrun does, in a group of its own; its workers start."""
    words = [sys.executable, str(HERE / "streaming_script.py"), str(folder)]
    source = str(HERE.parents[1] / "src")
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert said(process) == "begins"
        yield process
        process.kill()


def said(process: subprocess.Popen[str]) -> str:
    """The next line of a process."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def below(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that it started, and those that they did."""
    return psutil.Process(process.pid).children(recursive=True)


def test_workers_are_not_signalled_with_their_parent(files: ImageFiles) -> None:
    """Ctrl-C and torchrun signal a group of processes, and the training has yet to write its checkpoint."""
    loading = stream(Views(files, 32), [[(4, 0)], [(5, 0)]], workers=1)
    next(loading)
    (worker,) = multiprocessing.active_children()
    assert os.getpgid(worker.pid) != os.getpgrp()
    assert len(list(loading)) == 1


@pytest.fixture
def one_rank() -> Iterator[None]:
    """This process as a rank, with the threads of gloo."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_rank_has_its_workers_forked_by_a_process_without_threads(
    files: ImageFiles, request: pytest.FixtureRequest
) -> None:
    batches = [[(0, 0), (3, 0)], [(7, 1)]]
    here = list(stream(Views(files, 32, crop=0.3), batches, workers=0))
    request.getfixturevalue("one_rank")
    loading = stream(Views(files, 32, crop=0.3), batches, workers=1)
    there = [next(loading)]
    (worker,) = multiprocessing.active_children()
    server = psutil.Process(worker.pid).parent()
    assert server.pid != os.getpid()
    assert server.num_threads() == 1
    there += loading
    assert all(torch.equal(x, y) for x, y in zip(sum(here, ()), sum(there, ()), strict=True))


@pytest.mark.parametrize(("method", "prepared"), [("fork", False), ("spawn", False), ("forkserver", True)])
def test_a_server_of_pythons_own_has_imported_torch_before_it_forks(
    method: str, prepared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Python 3.14 on it is how processes start on Linux; every worker would take seconds."""
    asked: list[list[str]] = []
    context = multiprocessing.get_context("forkserver")
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda: method)
    monkeypatch.setattr(context, "set_forkserver_preload", asked.append)
    assert views._way_to_start() is (context if prepared else None)
    assert [views.__name__ in modules for modules in asked] == [True] * prepared


def test_a_signal_to_all_while_workers_start_leaves_them_be(rank: subprocess.Popen[str]) -> None:
    while not any("forkserver" in word for child in below(rank) for word in child.cmdline()):
        time.sleep(0.01)
    os.killpg(rank.pid, signal.SIGTERM)
    assert said(rank) == "decodes"
    assert said(rank) == "stopped in good order"
    assert rank.wait(60) == 0


def test_a_rank_that_is_killed_leaves_no_process_behind(rank: subprocess.Popen[str]) -> None:
    assert said(rank) == "decodes"
    started = below(rank)
    assert len(started) >= 3  # a server and two workers, beside what Python itself has
    rank.kill()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert alive == []
