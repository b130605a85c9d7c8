"""The process of a contender: ``python -m batchmix.bench.race.child``, one line of orders on standard input.

It warms up, says that it is ready, and then trains once for each line that comes. What it says are lines of
JSON on what was standard output; all that is printed goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import traceback
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from batchmix.bench.race.printed import PrintedRun, RunReader
from batchmix.bench.timing import reason

HELD_OUT = 5000  # of the training images, for a test on images that no setting was chosen by
SMALL_TEST = 200


def main() -> int:
    """Take part; the exit status."""
    orders = json.loads(sys.stdin.readline())
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as said:
        os.dup2(2, 1)
        try:
            _take_part(orders, said)
        except (BrokenPipeError, KeyboardInterrupt):
            return 1
        except Exception as error:  # another's code may raise anything; the race goes on without it
            traceback.print_exc()
            _say(said, missing=reason(error))
            return 1
    return 0


def _take_part(orders: Mapping[str, Any], said: TextIO) -> None:
    part = _theirs if orders["config"] is None else _ours
    part(orders, said)


# Ours


def _ours(orders: Mapping[str, Any], said: TextIO) -> None:
    from batchmix.data import load_cifar10
    from batchmix.recipe.config import TrainConfig
    from batchmix.recipe.flop import flop_of_run
    from batchmix.recipe.machine import prepare
    from batchmix.recipe.timed import TimedRuns
    from batchmix.recipe.training import pick_device

    device = pick_device(orders["device"])
    prepare(device)
    config = TrainConfig.from_dict(orders["config"])
    data = load_cifar10(Path(orders["root"]) if orders["root"] else None, progress=False)
    if orders["small"]:
        data = replace(data, test_x=data.test_x[:SMALL_TEST], test_y=data.test_y[:SMALL_TEST])
    if orders["held_out"]:
        test_x, test_y = data.train_x[-HELD_OUT:], data.train_y[-HELD_OUT:]
        data = replace(data, test_x=test_x, test_y=test_y)
        config = replace(config, images=min(config.images, len(data.train_x) - HELD_OUT))
    runs = TimedRuns(config, data, device)
    warm_up = runs.warm_up()
    _say(said, ready=True, warm_up_seconds=warm_up, flop=flop_of_run(config, len(data.test_x)))
    for number, _ in enumerate(sys.stdin):
        run = runs.run(number)
        _say(said, seed=number, seconds=run.seconds, **run.scores.as_dict())


# Theirs


def _theirs(orders: Mapping[str, Any], said: TextIO) -> None:
    """Run airbench as it is; whatever it prints stops it, at the end of a run, until its next turn."""
    import torch

    if orders["device"] != "cuda" or not torch.cuda.is_available():
        raise RuntimeError("airbench needs a CUDA device")
    if orders["held_out"]:
        raise RuntimeError("airbench takes its own training and test images")
    warm = False

    def on_run(run: PrintedRun) -> None:
        nonlocal warm
        if warm:
            _say(said, seed=None, **vars(run))
        else:
            _say(said, ready=True, warm_up_seconds=None, flop=None)  # its first run compiles, and is no race
            warm = True
        if not sys.stdin.readline():
            raise SystemExit

    # Where standard input ends the race is over, and ``on_run`` ends whatever runs here.
    with redirect_stdout(RunReader(on_run)), suppress(SystemExit):
        if orders["script"] is not None:
            sys.argv = [orders["script"]]
            sys.path.insert(0, str(Path(orders["script"]).parent))
            runpy.run_path(orders["script"], run_name="__main__")
            raise RuntimeError("the script has ended: it has no more runs")
        airbench = importlib.import_module("airbench")
        while True:
            getattr(airbench, orders["function"])(verbose=True)  # else it tests without augmentation


def _say(said: TextIO, **values: Any) -> None:
    said.write(json.dumps(values) + "\n")
    said.flush()


if __name__ == "__main__":
    sys.exit(main())
