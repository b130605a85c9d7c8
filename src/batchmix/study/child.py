"""The process of one run: ``python -m batchmix.study.child``, with its orders on standard input.

A process for each run, so that nothing of one run reaches another (caches, generators, freed memory), its
peak of memory is its own, and its death is the end of no other. Events leave as lines of JSON on what was
standard output; whatever the run prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from batchmix.errors import one_line

STOPPED = 75  # the exit status of a run that was told to stop, and can go on
FAILED = 1


def main() -> int:
    """Carry out the orders; the exit status."""
    orders = json.loads(sys.stdin.read())
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as events:
        os.dup2(2, 1)
        try:
            return _obey(orders, events)
        except BrokenPipeError:  # whoever asked for the run is gone
            return FAILED
        except KeyboardInterrupt:
            return STOPPED
        except BaseException as error:
            traceback.print_exc()
            _send(events, error=one_line(error))
            return FAILED


def _obey(orders: Mapping[str, Any], events: TextIO) -> int:
    from batchmix.study.execute import describe_task, execute

    if "describe" in orders:
        _send(events, task=describe_task(orders["describe"]))
        return 0
    said = 0.0

    def tell(step: int, steps: int) -> None:
        nonlocal said
        if time.monotonic() - said > 0.5:
            said = time.monotonic()
            _send(events, step=step, steps=steps)

    return 0 if execute(orders, Path(orders["folder"]), tell) else STOPPED


def _send(events: TextIO, **values: Any) -> None:
    events.write(json.dumps(values) + "\n")
    events.flush()


if __name__ == "__main__":
    sys.exit(main())
