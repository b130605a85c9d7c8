"""Train one run and write its record; what the process of a run does."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch

from batchmix._version import __version__
from batchmix.data import load_images
from batchmix.errors import DataError, MixError
from batchmix.recipe.machine import describe_machine, prepare
from batchmix.recipe.run import stop_on_signal
from batchmix.recipe.training import pick_device
from batchmix.study.arms import parse_arm
from batchmix.study.curve import Progress
from batchmix.study.image_runs import ImageRun
from batchmix.study.images import study_images
from batchmix.study.plan import RECIPE, Run, StudyPlan
from batchmix.study.records import write_record
from batchmix.study.task import digest, make
from batchmix.study.task_runs import TaskRun

Tell = Callable[[int, int], None]
"""Called with steps done and steps in all."""


class TrainingRun(Protocol):
    """What a run is to this module, whatever it trains."""

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""

    def run(self, stop: Callable[[], bool]) -> Iterator[Progress]:
        """Train to the end, or until ``stop()`` holds after a step."""

    def finish(self) -> dict[str, Any]:
        """Test, and give what the record is to hold of it."""

    def save(self, path: Path) -> None:
        """Keep the state, where that is possible."""

    def resume(self, path: Path) -> None:
        """Go on with what ``save`` kept."""


def execute(orders: Mapping[str, Any], folder: Path, tell: Tell) -> bool:
    """Train one run to its end, and write its record.

    Args:
        orders: ``plan``, ``run``, ``device``, ``root`` and ``command``, as JSON.
        folder: Of the study.
        tell: Is told of the steps.

    Returns:
        False where the run was told to stop; then its state is kept, and the same orders go on with it.

    Raises:
        MixError: If the run diverged: it has failed, and its accuracy is not to be compared.
    """
    plan, run = StudyPlan.from_dict(orders["plan"]), Run(**orders["run"])
    device = pick_device(orders["device"])
    prepare(device)
    training = begin(plan, run, device, orders["root"])
    state = folder / "unfinished" / f"{run.key}.pt"
    if state.exists():
        training.resume(state)
    with stop_on_signal() as stopped:
        for progress in training.run(stopped):
            tell(progress.step, progress.steps)
        if not training.done:
            training.save(state)
            return False
        with suppress(DataError):  # at the end too: the test may take longer than the study waits
            training.save(state)
        # A stop that is asked for from here on comes too late: the run ends, and is done.
        scores = training.finish()
        if not math.isfinite(scores["loss"]):
            state.unlink(missing_ok=True)
            raise MixError(f"diverged: the loss on the test samples is {scores['loss']}")
        record = {
            **outline(plan, run, device, orders["command"]),
            **scores,
            "peak_memory_mb": peak_memory_mb(device),
            "config": {**plan.config, "size": plan.size, "arm": parse_arm(run.arm).settings()},
            "batchmix": __version__,
        }
        write_record(folder, run.key, record)
        state.unlink(missing_ok=True)
        return True


def begin(plan: StudyPlan, run: Run, device: torch.device, root: str | None) -> TrainingRun:
    """A run that has not taken a step yet."""
    if plan.task != RECIPE:
        return TaskRun(lambda: make(plan.task, run.seed), run, device)
    image_set = load_images(plan.data or "", size=plan.size, root=root, progress=False)
    images = study_images(image_set, run.images)
    origin = {"data": plan.data, "size": plan.size, "source": plan.source}
    return ImageRun(plan.recipe_config(run), run.arm, images, device, origin)


def outline(plan: StudyPlan, run: Run, device: torch.device, command: str) -> dict[str, Any]:
    """What every record says, as that of a run that is done."""
    return {
        "status": "done",
        "error": None,
        "arm": run.arm,
        "seed": run.seed,
        "task": plan.task,
        "data": plan.data,
        "source": plan.source,
        "images": run.images,
        "epochs": run.epochs,
        "machine": describe_machine(device),
        "command": command,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def peak_memory_mb(device: torch.device) -> int:
    """The most memory this process had at once, in MB: of the GPU where it trained on one."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 1e6)
    if sys.platform == "win32":
        import psutil

        return round(psutil.Process().memory_info().peak_wset / 1e6)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)


def describe_task(name: str) -> dict[str, Any]:
    """What a plan has to know of a task of the user's own."""
    task = make(name, seed=0)
    return {"epochs": task.epochs, "images": task.images, "source": digest(name)}
