"""One run from the command line, on a folder of images: its folder, its progress, its results."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchmix._version import __version__
from batchmix.data.decoding import cores
from batchmix.data.listing import list_images
from batchmix.errors import DataError
from batchmix.files import write_whole
from batchmix.finetune.board import Board
from batchmix.finetune.config import FolderConfig
from batchmix.finetune.evaluation import evaluate
from batchmix.finetune.files import ImageFiles
from batchmix.finetune.training import FolderTraining
from batchmix.finetune.views import lost_workers
from batchmix.recipe.machine import describe_machine, prepare
from batchmix.recipe.progress import Progress
from batchmix.recipe.restart import found, known
from batchmix.recipe.run import (
    RunOptions,
    append_line,
    begin_log,
    check_loss,
    given,
    interrupts,
    record_once,
    run_folder,
    say_how_to_go_on,
    stop_on_signal,
    write_json,
)
from batchmix.recipe.training import pick_device

REPORTS = 200  # lines of a run's log, at most, beside those of the epochs' ends


@dataclass(frozen=True)
class FolderOptions(RunOptions):
    """What a run needs beside its config.

    Args:
        workers: Processes that decode, for each rank.
        checkpoint_every: Steps between checkpoints, beside those at the ends of epochs; 0 for none.
    """

    workers: int = 0
    checkpoint_every: int = 0

    def words(self) -> list[str]:
        """As those of a run on CIFAR-10."""
        return [
            f"--data=folder:{self.data}",
            *given("--workers", self.workers, default=default_workers()),
            *given("--checkpoint-every", self.checkpoint_every, default=0),
            *self.how(),
        ]


def default_workers() -> int:
    """As many as there are cores for this process, shared with the other ranks of the host."""
    return max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def train_folder(config: FolderConfig, options: FolderOptions, progress: Progress) -> dict[str, Any] | None:
    """Train one model on the images in ``options.data``, and write its run folder.

    Returns:
        The summary (empty where another rank has it), or None where the run was stopped.

    Raises:
        DataError: If images can't be read, a process that decodes ends, or a file cannot be written or read.
        MixError: If the loss does not stay finite, or the run to go on with is another.
    """
    world, exact = options.world, options.exact
    if options.data is None:
        raise DataError("a folder of images is needed")
    listing = list_images(options.data)
    images = {"classes": list(listing.classes), "images": len(listing.train)}
    done, state = found(options.resume, options.out, world, {**config.as_dict(), "exact": exact}, images)
    if done is not None:
        record_once(done, options)
        return done
    if state is not None:
        config, exact = FolderConfig(**known(FolderConfig, state["config"])), state.get("exact", False)
    device = pick_device(options.device)
    train, test = (ImageFiles(listing.folder, entries) for entries in (listing.train, listing.test))
    training = FolderTraining(config, train, listing.classes, device, world=world, exact=exact)
    if device.type == "cuda":  # on a CPU workers are forks, which would keep what their largest image took
        prepare(device)
    with (
        run_folder(options, f"{config.model}-{config.mix}-seed{config.seed}") as folder,
        interrupts(options, folder, progress),
        lost_workers(),
    ):
        progress.start(f"{config.model}, {config.mix}, {len(train):,} images, into {folder}", training.steps)
        if state is not None:
            training.load_state_dict(state)
        elif world.first:
            write_json(folder / "config.json", {**config.as_dict(), "classes": listing.classes})
            write_json(folder / "machine.json", {**describe_machine(device), "batchmix": __version__})
        del listing
        scores = _follow(training, test, folder, options, progress)
        if scores is None:
            return None
        summary = {
            **config.as_dict(),
            **scores,
            **images,
            "train_seconds": round(training.seconds, 2),
            "images_per_second": round(training.steps * config.batch_size / training.seconds, 1),
            "ranks": world.size,
            "workers": options.workers,
            **describe_machine(device),
            "batchmix": __version__,
            "command": options.command,
            "date": time.strftime("%Y-%m-%d"),
        }
        if world.first:
            _finish(training, folder, summary)
            if options.record is not None:
                append_line(options.record, summary)
        world.wait()
        return {"folder": str(folder), **summary}


def _follow(
    training: FolderTraining, test: ImageFiles, folder: Path, options: FolderOptions, progress: Progress
) -> dict[str, float] | None:
    """Train to the end with logs, tests and checkpoints; the last scores, None where it was stopped."""
    first, scores = training.world.first, None
    every = (max(1, training.steps // REPORTS), *[options.checkpoint_every] * bool(options.checkpoint_every))
    checkpoint = folder / "checkpoint.pt"
    log = folder / "log.jsonl" if first else None
    if log is not None:
        begin_log(log, training.step)
    untested = training.world.told(log is not None and _is_untested(log, training))
    with (
        stop_on_signal(progress.note) as stopped,
        Board(folder, training.step, kept=first, say=progress.note) as board,
    ):
        if untested:
            scores = _tested(training, test, options, log, board)
        for report in training.run(stop=stopped, every=every, workers=options.workers):
            check_loss(report.loss, training.step, training.steps)
            progress.step(report)
            if training.is_due(every):  # a stop is not: logs do not depend on where a run was stopped
                values = {"loss": report.loss, "accuracy": report.accuracy, "lr": training.rate(report.step)}
                _note(log, board, report.step, "train", values)
            ends = training.at_end_of_epoch
            if first and (
                ends or (options.checkpoint_every and training.step % options.checkpoint_every == 0)
            ):
                board.flush()
                training.save(checkpoint)  # before the test, which a broken image may end
            if ends:
                scores = _tested(training, test, options, log, board)
    if training.step == training.steps:
        return scores or _test(training, test, options)
    if first:
        training.save(checkpoint)
        stopped_at = f"stopped at step {training.step} of {training.steps}"
        say_how_to_go_on(progress, stopped_at, options, folder)
    return None


def _is_untested(log: Path, training: FolderTraining) -> bool:
    """Whether a run that goes on died in the test after its last step."""
    if training.step == 0 or not training.at_end_of_epoch:
        return False
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return not any((line["step"], line.get("part")) == (training.step - 1, "test") for line in lines)


def _tested(
    training: FolderTraining, test: ImageFiles, options: FolderOptions, log: Path | None, board: Board
) -> dict[str, float]:
    """The scores after the last step, put into log and curves."""
    scores = _test(training, test, options)
    _note(log, board, training.step - 1, "test", scores)
    board.flush()
    return scores


def _test(training: FolderTraining, test: ImageFiles, options: FolderOptions) -> dict[str, float]:
    scores = evaluate(training, test, workers=options.workers)
    for name in ("loss", "loss_ema"):
        check_loss(scores[name], training.step, training.steps)
    return scores


def _note(log: Path | None, board: Board, step: int, part: str, values: Mapping[str, float]) -> None:
    if log is not None:
        append_line(log, {"step": step, "part": part, **values})
    board.add(step, part, values)


def _finish(training: FolderTraining, folder: Path, summary: Mapping[str, Any]) -> None:
    """Write what a finished run leaves, both weights and the summary, and drop the checkpoint."""
    from safetensors.torch import save

    for name, net in (("weights", training.net), ("weights_ema", training.ema.module)):
        # Copies, since safetensors refuses the one tensor that CoaT and others hold under several names.
        tensors = {key: tensor.cpu().contiguous().clone() for key, tensor in net.state_dict().items()}
        write_whole(folder / f"{name}.safetensors", [save(tensors)])
    write_json(folder / "summary.json", summary)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
