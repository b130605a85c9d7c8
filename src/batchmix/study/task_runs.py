"""One run of a task of the user's own: mix, loss, optimizer, and the same scores as the recipe's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

import batchmix as bm
from batchmix.errors import MixError
from batchmix.recipe.evaluation import calibration_scores, score
from batchmix.study.arms import NONE, TWO_LOADERS, TwoLoaders, parse_arm
from batchmix.study.curve import GLANCE, REPORTS, Curve, Progress
from batchmix.study.plan import Run
from batchmix.study.seeding import OwnRandomness, derived_seed, seed_loader
from batchmix.study.task import Task

NO_SCORES = dict.fromkeys(
    ("accuracy", "confidence", "ece", "brier", "temperature", "ece_scaled", "loss_scaled", "reliability")
)
"""Of a task whose targets are no class ids: it has a loss and nothing else."""

Batch = tuple[Any, Any]


class TaskRun:
    """One run, to be followed point by point.

    Args:
        new_task: Makes the task, the same one each time.
        run: What this run is.
        device: Where to train.

    Raises:
        MixError: If the task is not of its form.
    """

    def __init__(self, new_task: Callable[[], Task], run: Run, device: torch.device) -> None:
        self.run_of, self.device = run, device
        task = self.task = new_task()
        self.optimizer = cast(torch.optim.Optimizer, task.optimizer)  # Task has made one if it was left out
        self.steps = max(1, round(run.epochs * task.steps_per_epoch))
        task.model.to(device)
        arm = parse_arm(run.arm)
        mixer = arm.mixer(run.seed, self.steps)
        self.mixer: Callable[[Any, Any], tuple[Any, Any]] | None = None if arm.name == NONE else mixer
        if arm.name == TWO_LOADERS:
            self.mixer = TwoLoaders(mixer, self._second_loader(new_task))
        self.curve = Curve(self.steps, task.steps_per_epoch)
        self.step = self.samples = 0
        self.seconds = 0.0
        self._testing = OwnRandomness(derived_seed(run.seed, "test"))

    @property
    def done(self) -> bool:
        """Whether all steps are taken."""
        return self.step == self.steps

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Progress]:
        """Train to the end, or until ``stop()`` holds after a step."""
        every = max(1, self.steps // REPORTS)
        batches = self._batches(self.task, self.run_of.seed)
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.task.model.train()
        while not self.done and not stop():
            started = time.perf_counter()
            loss = self._one_step(next(batches), rates)
            reported = (self.step - 1) % every == 0 or self.done
            if reported:
                self.curve.losses.append(loss.item())
            self.seconds += time.perf_counter() - started
            if reported and self.curve.is_due(self.step):
                self.curve.add(self.step, self._scores(GLANCE))
            yield Progress(self.step, self.steps)

    def finish(self) -> dict[str, Any]:
        """The scores on all test samples, as the record has them."""
        scores = self._scores(None)
        self.curve.add(self.step, scores)
        return scores | {
            "curve": self.curve.points,
            "train_seconds": round(self.seconds, 2),
            "images_per_second": round(self.samples / self.seconds, 1),
        }

    def save(self, path: Path) -> None:
        """Nothing is kept: what a task draws, and from where, is not known. The run starts over."""

    def resume(self, path: Path) -> None:
        """There is nothing to go on with."""

    def _one_step(self, batch: Batch, rates: list[float]) -> Tensor:
        """Do one optimizer step; the loss of its batch, on the device."""
        task, optimizer = self.task, self.optimizer
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (task.schedule(self.step / self.steps) if task.schedule else 1.0)
        x, y = batch
        self.samples += _samples(y)
        if self.mixer is not None:
            x, y = self.mixer(x, y)
        loss = bm.mixed_loss(task.loss, task.model(x), y).mean()  # one number, or one a sample
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        self.step += 1
        return loss.detach()

    def _batches(self, task: Task, seed: int) -> Iterator[Batch]:
        """The batches of every epoch, in an order that is a function of the seed alone."""
        for epoch in range(self.steps):  # an epoch has one step or more
            seed_loader(task.train_loader, seed, epoch)
            yield from (_pair(batch, self.device) for batch in task.train_loader)
        raise MixError("train_loader takes an iterable that gives batches each time, it gave too few")

    def _second_loader(self, new_task: Callable[[], Task]) -> Callable[[int], Batch]:
        """Batches of a second loader, which draws apart: the first comes as it does without it."""
        seed = derived_seed(self.run_of.seed, "second loader")
        randomness = OwnRandomness(seed)
        with randomness():
            batches = self._batches(new_task(), seed)

        def following(step: int) -> Batch:
            with randomness():
                return next(batches)

        return following

    # Test

    def _scores(self, glance: int | None) -> dict[str, Any]:
        """Scores of the first ``glance`` test samples, or of all."""
        model = self.task.model
        outputs, targets, losses, seen = [], [], [], 0
        was_training = model.training
        model.eval()
        with self._testing(), torch.inference_mode():
            for batch in self.task.test_loader:
                x, y = _pair(batch, self.device)
                output = model(x)
                losses.append((self.task.loss(output, y).mean().item(), _samples(y)))
                outputs.append(output)
                targets.append(y)
                seen += _samples(y)
                if glance is not None and seen >= glance:
                    break
        model.train(was_training)
        if not outputs:
            raise MixError("test_loader takes an iterable that gives batches each time, it gave none")
        if not _are_logits(outputs[0], targets[0]):
            return {**NO_SCORES, "loss": sum(loss * count for loss, count in losses) / seen}
        logits, labels = torch.cat(outputs).float().cpu(), torch.cat(targets).long().cpu()
        scores: dict[str, Any] = score(logits, labels)
        return scores if glance is not None else scores | calibration_scores(logits, labels)


def _samples(y: Any) -> int:
    """How many samples a batch of targets has."""
    while not isinstance(y, Tensor):
        y = next(iter(y.values() if isinstance(y, dict) else y))
    return len(y)


def _are_logits(output: Any, target: Any) -> bool:
    """Whether the outputs are (B, K) for class ids (B,)."""
    if not isinstance(output, Tensor) or not isinstance(target, Tensor) or output.dim() != 2:
        return False
    return output.shape[1] > 1 and target.dim() == 1 and not target.is_floating_point()


def _pair(batch: Any, device: torch.device) -> Batch:
    """The batch (x, y), on the device."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise MixError(f"the loaders of a task give batches (x, y), got a {type(batch).__name__}")
    x, y = batch
    return _to(x, device), _to(y, device)


def _to(value: Any, device: torch.device) -> Any:
    """A tensor, or what holds tensors, on the device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: _to(part, device) for key, part in value.items()}
    if isinstance(value, (tuple, list)):
        parts = [_to(part, device) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value
