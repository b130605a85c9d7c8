"""The study: every run of a plan that is not done yet, in processes side by side."""

from __future__ import annotations

import queue
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from batchmix._version import __version__
from batchmix.data.image_sets import digest
from batchmix.errors import DataError, MixError, why
from batchmix.files import make_folder
from batchmix.lock import only_one
from batchmix.recipe.machine import visible_gpus
from batchmix.recipe.run import stop_on_signal
from batchmix.recipe.training import pick_device
from batchmix.study.children import GRACE, Child, Events
from batchmix.study.execute import outline
from batchmix.study.plan import RECIPE, Run, StudyPlan
from batchmix.study.progress import StudyProgress
from batchmix.study.records import (
    REMOVE_IT,
    RUN,
    Record,
    Study,
    read_asked,
    read_record,
    read_study,
    record_path,
    write_asked,
    write_record,
)


@dataclass(frozen=True)
class EngineOptions:
    """How the runs of a study are carried out; none of it is to change what comes of them.

    Args:
        folder: Of the study, new or of a study to go on with.
        command: As typed, for the records.
        jobs: Runs side by side; one, or one a GPU, if left out.
        threads: CPU threads of each run; those of this process, shared out, if left out.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        root: A folder with the data, or None for the usual places.
    """

    folder: Path
    command: str = ""
    jobs: int | None = None
    threads: int | None = None
    device: str = "auto"
    root: Path | None = None


def compare(plan: StudyPlan, options: EngineOptions, progress: StudyProgress | None = None) -> Study:
    """Train every run that is not done yet.

    Args:
        plan: What is asked for. A folder that holds a study already goes on with it, and takes more arms,
            seeds and epochs.
        options: How it is carried out.
        progress: Follows the study; nothing is shown if left out.

    Returns:
        The study as it stands, with all runs that have ended; ``progress.stopped`` says whether some have
        not, because of a Ctrl-C.

    Raises:
        MixError: If the folder holds a study of other settings, or the record of one, or there is no such
            device.
        DataError: If a file cannot be read or written.
    """
    progress = progress or StudyProgress(shown=False)
    folder, device = options.folder, pick_device(options.device)
    make_folder(folder)
    with only_one(folder):
        before = plan_of(read_asked(folder), folder) if (folder / "study.json").exists() else None
        plan = _asked(plan, before, folder)
        records = {run: read_record(folder, run.key) for run in plan.runs()}
        for run, record in records.items():
            if record is not None and record["status"] == "done":
                _check_same_study(plan, record, record_path(folder, run.key))
        if plan != before:
            write_asked(folder, {**plan.as_dict(), "command": options.command, "batchmix": __version__})
        missing = [run for run, record in records.items() if record is None or record["status"] != "done"]
        progress.start(list(records), missing)
        with stop_on_signal(progress.note) as stopped, progress:
            progress.stopped = not _Runs(plan, options, device, progress).carry_out(missing, stopped)
            progress.interrupted = stopped()
    return read_study(folder)


class _Runs:
    """The runs under way."""

    def __init__(
        self, plan: StudyPlan, options: EngineOptions, device: torch.device, progress: StudyProgress
    ) -> None:
        self.plan, self.options, self.device, self.progress = plan, options, device, progress
        self.free = deque(environments(options.jobs, options.threads, device))
        self.events: Events = queue.SimpleQueue()
        self.active: dict[Child, tuple[Run, dict[str, str]]] = {}
        self.stopping = self.cut_short = False

    def carry_out(self, missing: list[Run], stopped: Callable[[], bool]) -> bool:
        """Start and follow the runs until all have ended, or ``stopped()`` holds.

        Returns:
            Whether all have ended.
        """
        waiting = deque(missing)
        try:
            while not stopped() and (waiting or self.active):
                while waiting and self.free:
                    self._start(waiting.popleft())
                self._hear()
            self._stop()
        finally:  # whatever happens, no child outlives the study
            for child in self.active:
                child.kill()
        return not (waiting or self.cut_short)

    def _start(self, run: Run) -> None:
        logs = self.options.folder / "logs"
        make_folder(logs)
        environment = self.free.popleft()
        root = self.options.root
        orders = {
            "plan": self.plan.as_dict(),
            "run": asdict(run),
            "folder": str(self.options.folder),
            # A child is shown one GPU alone, under the number 0.
            "device": "cuda" if "CUDA_VISIBLE_DEVICES" in environment else str(self.device),
            "root": None if root is None else str(root),
            "command": self.options.command,
        }
        child = Child(orders, self.events, logs / f"{run.key}.txt", environment)
        self.active[child] = run, environment

    def _hear(self) -> None:
        """Wait a moment for the next event."""
        try:
            child, event = self.events.get(timeout=0.2)
        except queue.Empty:
            return
        run, environment = self.active[child]
        if event is not None:
            if "step" in event:
                self.progress.step(run, event["step"] / event["steps"])
            return
        del self.active[child]
        self.free.append(environment)
        self._end(child, run)

    def _end(self, child: Child, run: Run) -> None:
        """Say what came of a run; a failure becomes a record."""
        folder = self.options.folder
        record = read_record(folder, run.key) if child.status == 0 else None
        if record is None and self.stopping:
            self.cut_short = True
            return
        if record is None:
            record = outline(self.plan, run, self.device, self.options.command)
            record |= {"status": "failed", "error": child.why()}
            write_record(folder, run.key, record)
        else:
            child.log.unlink(missing_ok=True)
        self.progress.ended(run, record)

    def _stop(self) -> None:
        """Have the runs under way save their state; those that take too long for it are killed."""
        self.stopping = True
        for child in self.active:
            child.stop()
        deadline = time.monotonic() + GRACE
        while self.active and time.monotonic() < deadline:
            self._hear()
        self.cut_short = self.cut_short or bool(self.active)


def environments(jobs: int | None, threads: int | None, device: torch.device) -> list[dict[str, str]]:
    """The variables of each of the processes side by side: its threads, and its GPU.

    Args:
        jobs: How many, or None for one, or one a GPU.
        threads: Of each, or None to share out those of this process.
        device: Where to train; ``cuda`` is all GPUs, ``cuda:1`` that one.
    """
    gpus: list[str] = []
    if device.type == "cuda":
        gpus = visible_gpus() if device.index is None else [visible_gpus()[device.index]]
    jobs = jobs or max(1, len(gpus))
    threads = threads or max(1, torch.get_num_threads() // jobs)
    made = []
    for place in range(jobs):
        made.append({name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")})
        if gpus:
            made[-1]["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
    return made


def _asked(plan: StudyPlan, before: StudyPlan | None, folder: Path) -> StudyPlan:
    """What is asked, on top of what a study in the folder was asked for before."""
    if plan.task == RECIPE:
        plan = replace(plan, source=digest(plan.data or ""))
    if before is None:
        return plan
    failed = all(record["status"] == "failed" for record in read_study(folder).records)
    mended = failed and plan.task != RECIPE  # the file of a task of which nothing has come out yet
    return (replace(before, source=plan.source) if mended else before).extended(plan)


def _check_same_study(plan: StudyPlan, record: Record, path: Path) -> None:
    """Refuse the record of another study, whose study.json was removed: its name tells the budget alone.

    A record of an earlier version may lack some of what is compared.
    """
    config = record.get("config")
    found = {**record, **(config if isinstance(config, dict) else {})}
    advice = f"{REMOVE_IT}, or take another folder"
    asked = {"task": plan.task, "data": plan.data, "size": plan.size, **plan.config}
    for name, value in asked.items():
        if found.get(name, value) != value:
            flag = name.replace("_", "-")
            raise MixError(f"{path} is {RUN} with {flag} {found[name]}, got {value}{advice}")
    if None not in (plan.source, found.get("source")) and found["source"] != plan.source:
        changed = "images" if plan.task == RECIPE else "file"
        raise MixError(f"{path} is {RUN} before its {changed} changed{advice}")


def plan_of(asked: dict[str, Any], folder: Path) -> StudyPlan:
    """The plan of a study from its ``study.json``.

    Raises:
        DataError: If it is none.
    """
    names = [field.name for field in fields(StudyPlan)]
    try:
        # A study of an earlier version has no source.
        return StudyPlan.from_dict({name: asked[name] for name in names if name in asked or name != "source"})
    except (KeyError, TypeError, MixError) as error:
        raise DataError(f"{folder / 'study.json'} is not the plan of a study: {why(error)}") from None


def ask_task(name: str) -> dict[str, Any]:
    """How long a task of the user's own trains, on how many samples, and what its file is.

    It is made in a process of its own.

    Raises:
        MixError: If there is no such task, or it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        child = Child({"describe": name}, queue.SimpleQueue(), Path(folder) / "log.txt", {})
        try:
            child.wait()
        finally:
            child.kill()  # which a Ctrl-C does not reach
        if child.answer is None:
            raise MixError(f"the task {name} cannot be made: {child.why()}")
    return child.answer
