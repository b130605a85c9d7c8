"""Runs of ``batchmix train`` in one process or under torchrun, with a worker killed if told."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def launch(
    script: str,
    *words: Any,
    ranks: int = 1,
    hosts: int = 1,
    restarts: int = 2,
    die_at: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a script of this folder with these words.

    Args:
        script: Its name.
        words: What follows ``batchmix``.
        ranks: Processes in all; torchrun starts them where there is more than one.
        hosts: Of the processes, each with a torchrun of its own, all of them on this machine.
        restarts: How often torchrun starts all of them again after one died: of the kill, or, on a machine
            that is busy, because they did not find one another in time.
        die_at: The step before which the last rank kills itself, the first time.

    Returns:
        What all hosts wrote, and the worst of their exit codes.
    """
    command = [sys.executable]
    if ranks > 1:
        command += ["-m", "torch.distributed.run", f"--nproc-per-node={ranks // hosts}"]
        command += [f"--max-restarts={restarts}", "--monitor-interval=0.1", *_meeting(hosts)]
    told = {} if die_at is None else {"DIE_AT": str(die_at)}

    def run(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, str(HERE / script), *map(str, words)],
            capture_output=True,
            text=True,
            env=os.environ | told | {"PYTHONPATH": os.pathsep.join(PATHS), "OMP_NUM_THREADS": "1"},
            timeout=300,  # a machine may be busy with other tests
        )

    with one_at_a_time(), ThreadPoolExecutor(hosts) as host:
        ran = list(host.map(run, range(hosts)))
    code = max((each.returncode for each in ran), key=abs)
    out, err = "".join(each.stdout for each in ran), "".join(each.stderr for each in ran)
    return subprocess.CompletedProcess(command, code, out, err)


def _meeting(hosts: int) -> list[str]:
    """torchrun's words for where its hosts meet."""
    if hosts == 1:
        return ["--standalone"]
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    endpoint = f"--rdzv-endpoint=localhost:{port}"
    return [f"--nnodes={hosts}", "--rdzv-backend=c10d", endpoint, "--local-addr=localhost"]


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait for the tests of other processes that launch: killed ranks leave ports to whoever asks next."""
    with (Path(tempfile.gettempdir()) / "batchmix-launching.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


TESTS = HERE.parent
PATHS = [str(TESTS / "shim"), str(TESTS / "recipe"), str(TESTS.parent / "src")]


def kill_at_step(training_class: type, method: str) -> None:
    """Have the last rank kill itself (SIGKILL) before the step that ``DIE_AT`` says, the first time."""
    step = int(os.environ.get("DIE_AT", "-1"))
    last = os.environ.get("RANK") == str(int(os.environ.get("WORLD_SIZE", "1")) - 1)
    if step < 0 or not last or os.environ.get("TORCHELASTIC_RESTART_COUNT") != "0":
        return
    real = getattr(training_class, method)

    def one_step(self: Any, *args: Any) -> Any:
        if self.step == step:
            os.kill(os.getpid(), 9)
        return real(self, *args)

    setattr(training_class, method, one_step)
