"""The processes of runs: started with their orders, heard, and stopped."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO, cast

from batchmix.study.child import STOPPED

COMMAND = (sys.executable, "-m", "batchmix.study.child")
GRACE = 20.0  # seconds that a child has to save its state

Events = queue.SimpleQueue[tuple["Child", dict[str, Any] | None]]
"""Where children say what they do: ``(child, event)``, and ``(child, None)`` at the end of one."""


class Child:
    """The process of one run.

    Args:
        orders: What it is to do, as ``child.py`` takes it.
        events: Where its events go.
        log: A file for what it prints.
        environment: Variables on top of this process's own.

    Attributes:
        error: The one line it ended with, if it could say one.
        answer: What it was asked to describe.
        status: Its exit status, once it has ended; below 0 it is the signal that killed it.
    """

    def __init__(
        self,
        orders: Mapping[str, Any],
        events: Events,
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.log, self.events = log, events
        self.error: str | None = None
        self.answer: dict[str, Any] | None = None
        self.status: int | None = None
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environment},
                text=True,
                encoding="utf-8",
                start_new_session=True,  # a Ctrl-C is for the study, which passes it on once
            )
        self._orders = json.dumps(orders)
        threading.Thread(target=self._listen, daemon=True).start()

    def stop(self) -> None:
        """Ask it to save its state and end.

        On Windows there are no sessions: a Ctrl-C has reached it with the study, and SIGTERM would end it
        before it can save.
        """
        if sys.platform != "win32" and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now."""
        if self.process.poll() is None:
            self.process.kill()

    def why(self) -> str:
        """Why it failed, in one line."""
        if self.error:
            return self.error
        status = self.status or 0
        if status < 0:
            name = signal.Signals(-status).name
            memory = ", which is what a system short of memory does" if name == "SIGKILL" else ""
            return f"the process of the run was killed by {name}{memory}"
        if status == STOPPED:
            return "the process of the run was told to stop, by something else than the study"
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"the process of the run ended with status {status}: {last}"

    def wait(self) -> None:
        """Wait for its end, where nothing else is to be done."""
        while self.events.get()[1] is not None:
            pass

    def _listen(self) -> None:
        """Send the orders and pass events on, in a thread of its own."""
        process = self.process
        with contextlib.suppress(OSError), cast(TextIO, process.stdin) as orders:  # it may be dead already
            orders.write(self._orders)
        with cast(TextIO, process.stdout) as lines:
            for line in lines:
                event = json.loads(line)
                self.error = event.get("error", self.error)
                self.answer = event.get("task", self.answer)
                self.events.put((self, event))
        self.status = process.wait()
        self.events.put((self, None))
