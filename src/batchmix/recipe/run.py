"""One run from the command line: its folder, its progress, its results.

The run folder holds ``config.json``, ``machine.json``, ``log.jsonl`` (a line for every reported step),
``mixed.png``, ``weights.safetensors``, ``curves.png`` and ``summary.json``; a run that was stopped holds
``checkpoint.pt`` instead of the last three.
"""

from __future__ import annotations

import copy
import json
import math
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from batchmix._version import __version__
from batchmix.data import CIFAR10_CLASSES, load_cifar10
from batchmix.errors import DataError, MixError
from batchmix.files import cannot_write, make_folder, write_whole
from batchmix.kernels import selected
from batchmix.lock import only_one
from batchmix.recipe.config import TrainConfig
from batchmix.recipe.evaluation import evaluate
from batchmix.recipe.images import MEAN, STD, normalize
from batchmix.recipe.machine import BUSY, busy_share, describe_machine, prepare
from batchmix.recipe.nets import check_compiler, check_device, compile_mode
from batchmix.recipe.progress import Progress
from batchmix.recipe.restart import AUTO, found, known
from batchmix.recipe.training import (
    StepReport,
    Training,
    pick_device,
    save_checkpoint,
)
from batchmix.scale.world import ALONE, World

REPORTS = 200  # lines of a run's log, at most
APART_ON_GPU = 8  # steps from one report to the next, at least: each of them waits for the GPU


@dataclass(frozen=True)
class RunOptions:
    """What a run needs beside its config.

    Args:
        preset: Name of the preset the config was made from, for the record.
        command: The command as typed, for the record.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        data: A folder with CIFAR-10, or None for the usual places.
        out: Where run folders are made.
        resume: Folder of a stopped run to go on with; ``AUTO`` for ``out`` itself, wherever it is; or None.
        record: A file to append the summary to, as one line of JSON, or None.
        exact: Several processes compute what one would, to rounding.
        world: The processes that train together. The first one writes; the folder is one that all can read.
    """

    preset: str
    command: str
    device: str = "auto"
    data: Path | None = None
    out: Path = Path("runs")
    resume: Path | None = None
    record: Path | None = None
    exact: bool = False
    world: World = ALONE

    def words(self) -> list[str]:
        """What ``batchmix train`` was told of all this, to go on with the run that way."""
        return [*given("--root", self.data), *self.how()]

    def how(self) -> list[str]:
        """The words that any data have: under torchrun a GPU has no number, each rank is given its own."""
        device = self.device if self.world.size == 1 else self.device.partition(":")[0]
        return [*given("--device", device, default="auto"), *given("--record", self.record)]


def given(flag: str, value: Any, *, default: Any = None) -> list[str]:
    """A flag and its value as words; none where it is at its default."""
    return [] if value == default else [flag, str(value)]


def train(config: TrainConfig, options: RunOptions, progress: Progress) -> dict[str, Any] | None:
    """Train one net and write its run folder.

    Returns:
        The summary, or None where the run was stopped; then its folder holds a checkpoint.

    Raises:
        DataError: If the images cannot be had, or a file cannot be written or read.
        MixError: If the loss does not stay finite, or the run to go on with is another.
    """
    world, exact = options.world, options.exact
    done, state = found(options.resume, options.out, world, {**config.as_dict(), "exact": exact})
    if done is not None:
        record_once(done, options)
        return done
    if state is not None:
        config, exact = TrainConfig.from_dict(known(TrainConfig, state["config"])), state.get("exact", False)
        if options.resume is not None and options.resume != AUTO:
            options = replace(options, preset=_preset_of(options.resume))
    world.check_batch(config.batch_size)
    device = pick_device(options.device)
    check_device(config, device, world.size, exact=exact)
    busy = busy_share()
    prepare(device)
    check_compiler(config, device)  # which starts processes of its own
    if device.type == "cpu" and busy > BUSY:
        progress.note(f"{busy:.0%} of this machine is busy with something else: timings will say little")
    with world.first_on_host():  # which fetches the images for the others
        data = load_cifar10(options.data, progress=progress.shown)
    images, labels = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    # Before there is a folder: a net that there is no memory for leaves none.
    training = Training(config, images, labels, device, world=world, exact=exact)
    with (
        run_folder(options, f"{config.mix}-seed{config.seed}") as folder,
        interrupts(options, folder, progress),
    ):
        progress.start(f"{config.mix}, seed {config.seed}, into {folder}", config.steps)
        if state is not None:
            training.load_state_dict(state)
        elif world.first:
            write_json(folder / "config.json", {"preset": options.preset, **config.as_dict()})
            write_json(folder / "machine.json", {**describe_machine(device), "batchmix": __version__})
            draw_mixed(training, folder / "mixed.png")
        if not follow(training, folder, progress):
            if world.first:
                stopped = f"stopped at step {training.step} of {config.steps}"
                say_how_to_go_on(progress, stopped, options, folder)
            return None
        if not world.first:
            world.wait()  # for the first rank's test
            return {}

        labels = torch.from_numpy(data.test_y).long().to(device)
        images = normalize(torch.from_numpy(data.test_x).to(device))
        progress.say("testing")
        scores = evaluate(training.net, images, labels, autocast=training.autocast, unsure=config.tta)
        check_loss(scores.loss, training.step, config.steps)  # of what the last step made
        summary = {
            "preset": options.preset,
            **config.as_dict(),
            **scores.as_dict(),
            "train_seconds": round(training.seconds, 2),
            "images_per_second": pace_of(training),
            **describe_machine(device),
            "busy_before": round(busy, 2),
            "ranks": world.size,
            "kernel": selected.current(),
            "batchmix": __version__,
            "command": options.command,
            "date": time.strftime("%Y-%m-%d"),
        }
        finish(training, folder, summary)
        if options.record is not None:
            append_line(options.record, summary)
        progress.done()
        world.wait()
        return {"folder": str(folder), **summary}


def follow(training: Training, folder: Path, progress: Progress) -> bool:
    """Train to the end with a log and checkpoints; False where Ctrl-C stopped it."""
    config, first = training.config, training.world.first
    every = max(APART_ON_GPU if training.device.type == "cuda" else 1, config.steps // REPORTS)
    log = folder / "log.jsonl"
    if first:
        begin_log(log, training.step)
    with stop_on_signal(progress.note) as stopped:
        for report in training.run(stop=stopped, every=every):
            check_loss(report.loss, training.step, config.steps)
            progress.step(report)
            if first and (report.step % every == 0 or training.step == config.steps):
                append_line(log, _log_line(report, training))
            if first and training.step % config.steps_per_epoch == 0:
                save_checkpoint(training, folder / "checkpoint.pt")
    if first:
        save_checkpoint(training, folder / "checkpoint.pt")  # also at the end: the test may be interrupted
    return training.step == config.steps


def check_loss(loss: float, step: int, steps: int) -> None:
    """Stop a training that has diverged.

    Raises:
        MixError: If the loss is not finite after so many steps.
    """
    if not math.isfinite(loss):
        raise MixError(f"the loss is {loss} at step {step} of {steps}: a learning rate may be too high")


def say_how_to_go_on(progress: Progress, stopped: str, options: RunOptions, folder: Path) -> None:
    """Say where a run was stopped, and the command that goes on with it."""
    alone = options.world.size == 1
    command = "batchmix" if alone else "torchrun ... -m batchmix"  # as many processes, wherever they are
    words = [*options.words(), "--resume", str(folder)]
    progress.note(f"{stopped}; to go on:", always=True)
    progress.note(f"  {command} train {shlex.join(words)}", always=True)


@contextmanager
def interrupts(options: RunOptions, folder: Path, progress: Progress) -> Iterator[None]:
    """Around a run: where Ctrl-C ends it at once, and there is a checkpoint, say how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        if options.world.first and (folder / "checkpoint.pt").exists():
            say_how_to_go_on(progress, "interrupted, the last checkpoint is kept", options, folder)
        raise


def finish(training: Training, folder: Path, summary: Mapping[str, Any]) -> None:
    """Write what a finished run leaves: weights, curves, summary; the checkpoint is not needed any more."""
    from safetensors.torch import save

    from batchmix.pictures import write_figure
    from batchmix.recipe.curves import draw_curves

    weights = {name: tensor.contiguous().cpu() for name, tensor in training.net.state_dict().items()}
    metadata = {name: json.dumps(summary[name]) for name in ("preset", "widths", "mix", "alpha", "seed")}
    write_whole(folder / "weights.safetensors", [save(weights, metadata)])
    lines = [json.loads(line) for line in _read(folder / "log.jsonl").splitlines()]
    write_figure(folder / "curves.png", draw_curves(lines, summary))
    write_json(folder / "summary.json", summary)
    (folder / "checkpoint.pt").unlink(missing_ok=True)


def draw_mixed(training: Training, path: Path) -> None:
    """The first batch of the run as the net sees it, with labels and weights."""
    from batchmix.pictures import draw_batch, write_figure

    config = training.config
    x, labels = training.batches.at(0, config.size_at(0), crop=config.crop_at(0))
    x, y = copy.deepcopy(training.mixup)(x, labels)  # the run's own draws stay as they are
    write_figure(path, draw_batch(x[:16], y[:16], CIFAR10_CLASSES, columns=8, mean=MEAN, std=STD))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a mapping as readable JSON."""
    write_whole(path, [(json.dumps(values, indent=2) + "\n").encode()])


def append_line(path: Path, values: Mapping[str, Any]) -> None:
    """Append a mapping to a file of JSON lines."""
    _append(path, json.dumps(values) + "\n")


def record_once(done: Mapping[str, Any], options: RunOptions) -> None:
    """Append the summary of a run that was found done, unless it is there: a run may die in between."""
    if options.record is None or not options.world.first:
        return
    summary = {name: value for name, value in done.items() if name != "folder"}
    if not options.record.exists() or json.dumps(summary) not in _read(options.record).splitlines():
        append_line(options.record, summary)


def _append(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if text and path.is_file() and _is_cut_short(path):
            text = "\n" + text
        with path.open("a") as file:
            file.write(text)
    except OSError as error:
        raise cannot_write(path, error) from error


def _is_cut_short(path: Path) -> bool:
    """Whether the last line has no end, as a full disk leaves it."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 1))
        return file.read(1) not in (b"", b"\n")


@contextmanager
def stop_on_signal(say: Callable[[str], None] = lambda line: None) -> Iterator[Any]:
    """Ctrl-C (or a termination) asks the loop to stop after its step; a second one interrupts at once.

    Args:
        say: Takes the line that says so.
    """
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        with suppress(Exception, SystemExit):  # of a stream in whose middle it came, or that is closed
            say("stopping after this step ...")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def begin_log(path: Path, step: int) -> None:
    """Make a run's log ready for the line of ``step``: what a run that died wrote past it is taken back."""
    old = _read(path).splitlines(keepends=True) if path.exists() else []
    write_whole(path, [line.encode() for line in old if _step_of(line) < step])


def _step_of(line: str) -> float:
    """The step of a line of the log; infinite where a run died in the middle of the line."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return math.inf


def _preset_of(folder: Path) -> str:
    """The name of the preset that a run folder was made from."""
    path = folder / "config.json"
    try:
        return str(json.loads(_read(path))["preset"])
    except (ValueError, TypeError, KeyError):
        raise DataError(f"--resume takes a run folder, {path} is not the config of a run") from None


def pace_of(training: Training) -> float | None:
    """Images a second; None of a compiled net, as the seconds of its training hold the compilation."""
    config = training.config
    if compile_mode(config, training.device) is not None:
        return None
    return round(config.steps * config.batch_size / training.seconds, 1)


def _log_line(report: StepReport, training: Training) -> dict[str, Any]:
    return {
        "step": report.step,
        "epoch": round((report.step + 1) / training.config.steps_per_epoch, 3),
        "loss": round(report.loss, 4),
        "accuracy": round(report.accuracy, 4),
        "size": report.size,
        "p": report.p,
        "seconds": round(training.seconds, 2),
    }


@contextmanager
def run_folder(options: RunOptions, name: str) -> Iterator[Path]:
    """Where all ranks find the run: a stopped one's folder, or one that the first rank makes, and then holds.

    A record that cannot be appended to is said here, not after the training.

    Raises:
        DataError: If another process works on the run, or a file cannot be written.
    """
    first = options.world.first
    if options.record is not None and first:
        _append(options.record, "")
    folder = _folder_of(options, name)
    with only_one(folder) if first else nullcontext():
        yield folder


def _folder_of(options: RunOptions, name: str) -> Path:
    if options.resume not in (None, AUTO):
        return options.resume
    if options.resume is None:
        return options.world.told(_new_folder(options.out, name) if options.world.first else options.out)
    make_folder(options.out)
    return options.out


def _new_folder(out: Path, name: str) -> Path:
    """A folder of a name that says when it was made and what is in it, and that is not taken."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for number in range(100):
            folder = out / (name if number == 0 else f"{name}-{number}")
            if not folder.exists():
                folder.mkdir()
                return folder
    except OSError as error:
        raise cannot_write(out, error) from error
    raise DataError(f"cannot find a free name for a run folder in {out}")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
