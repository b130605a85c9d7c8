"""Contenders in turn, A B C A B C: each in a process of its own, warm, one of them running at any time."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

import torch

from batchmix.bench.race.contenders import Contender
from batchmix.data import CIFAR10_CLASSES, load_cifar10
from batchmix.recipe.machine import visible_gpus

COMMAND = (sys.executable, "-m", "batchmix.bench.race.child")


@dataclass
class Entry:
    """A contender and what it did.

    Attributes:
        runs: What it said of each of its runs.
        ready: What it said when it was warm.
        missing: Why it does not take part, or no longer.
    """

    contender: Contender
    runs: list[dict[str, Any]] = field(default_factory=list)
    ready: dict[str, Any] = field(default_factory=dict)
    missing: str | None = None


def race(
    contenders: Sequence[Contender],
    *,
    runs: int,
    options: Mapping[str, Any],
    tell: Callable[[str], None] = lambda line: None,
) -> tuple[list[Entry], bool]:
    """Let everyone train ``runs`` times, in turn; an interruption ends it at the last whole round.

    Args:
        contenders: In the order of their turns.
        runs: Of each.
        options: ``device``, ``root``, ``small`` and ``held_out``, for the processes.
        tell: Told of each step, in a line.

    Returns:
        The entries, and whether it was interrupted.
    """
    interrupted = False
    entries = [Entry(contender) for contender in contenders]
    with tempfile.TemporaryDirectory(prefix="batchmix-race-") as folder:
        if any(contender.config is None for contender in contenders):
            write_for_airbench(Path(folder), options["root"])
        children = [_Child(entry, Path(folder), options) for entry in entries]
        try:
            for child in children:  # one after the other: whoever warms up has the device alone
                tell(f"{child.entry.contender.name}: {child.start()}")
            for number in range(runs):
                for child in children:
                    child.take_turn()
                tell(f"round {number + 1} of {runs}")
        except KeyboardInterrupt:
            interrupted = True
            whole = min((len(entry.runs) for entry in entries if entry.missing is None), default=0)
            for entry in entries:
                del entry.runs[whole:]
            tell(f"stopped after round {whole}")
        finally:
            for child in children:
                child.end()
    return entries, interrupted


def write_for_airbench(folder: Path, root: str | None) -> None:
    """CIFAR-10 where airbench looks for it, so that it downloads nothing: ``cifar10/{train,test}.pt``."""
    data = load_cifar10(Path(root) if root else None, progress=False)
    (folder / "cifar10").mkdir()
    parts = (("train", data.train_x, data.train_y), ("test", data.test_x, data.test_y))
    for name, images, labels in parts:
        content = {
            "images": torch.from_numpy(images),
            "labels": torch.from_numpy(labels).long(),
            "classes": list(CIFAR10_CLASSES),
        }
        torch.save(content, folder / "cifar10" / f"{name}.pt")


def alone_on(device: torch.device) -> tuple[str, dict[str, str]]:
    """What a process is to call the device, and the variables under which it sees no other GPU.

    airbench takes the first that it sees.

    Raises:
        IndexError: If there is no such GPU.
    """
    if device.type != "cuda" or device.index is None:
        return str(device), {}
    return "cuda", {"CUDA_VISIBLE_DEVICES": visible_gpus()[device.index]}


class _Child:
    """The process of an entry, which it writes to."""

    def __init__(self, entry: Entry, folder: Path, options: Mapping[str, Any]) -> None:
        self.entry, self.folder, self.options = entry, folder, options
        self.log = folder / f"{entry.contender.name}.log"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> str:
        """Start it and wait until it is warm; what can be said of that."""
        entry, contender = self.entry, self.entry.contender
        if not contender.is_given:
            entry.missing = "no checkout of airbench was given (--airbench-checkout)"
        elif contender.script is not None and not contender.script.is_file():
            entry.missing = f"there is no {contender.script}"
        else:
            device, variables = alone_on(torch.device(self.options["device"]))
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    COMMAND,
                    env={**os.environ, **variables},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=self.folder if contender.config is None else None,
                    text=True,
                    encoding="utf-8",
                )
            entry.ready = self._ask({**contender.orders(), **self.options, "device": device}) or {}
        return "ready" if entry.missing is None else f"missing, {entry.missing}"

    def take_turn(self) -> None:
        """Let it train once."""
        if self.entry.missing is None:
            run = self._ask("go")
            if run is not None:
                self.entry.runs.append(run)

    def end(self) -> None:
        """Close its input, which ends it; kill it if it does not end."""
        if self.process is None:
            return
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):  # it has ended already
                cast(TextIO, pipe).close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _ask(self, line: Any) -> dict[str, Any] | None:
        """Send a line and take the answer; None where it is missing from now on."""
        process = cast("subprocess.Popen[str]", self.process)
        try:
            cast(TextIO, process.stdin).write(json.dumps(line) + "\n")
            cast(TextIO, process.stdin).flush()
            answer = cast(TextIO, process.stdout).readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.entry.missing = f"its process ended: {self._last_words()}"
            return None
        said: dict[str, Any] = json.loads(answer)
        if "missing" in said:
            self.entry.missing = said["missing"]
            return None
        return said

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
