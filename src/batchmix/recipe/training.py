"""The training loop: a run that can be stopped anywhere and goes on to the same weights."""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

import batchmix as bm
from batchmix.core.draws import as_rank
from batchmix.errors import DataError, MixError
from batchmix.files import write_whole
from batchmix.recipe.config import TrainConfig
from batchmix.recipe.evaluation import Autocast
from batchmix.recipe.images import MEAN, STD, ImageBatches, normalize
from batchmix.recipe.learner import Learner
from batchmix.recipe.machine import in_bfloat16
from batchmix.recipe.nets import compile_mode, net_on
from batchmix.recipe.network import whiten
from batchmix.recipe.optimizers import set_rate
from batchmix.recipe.schedules import momentum_at, rate_at
from batchmix.scale.norm import GlobalNorm
from batchmix.scale.stopping import Stopping
from batchmix.scale.world import ALONE, World

WHITENING_IMAGES = 5000
STATE = {"config", "net", "optimizers", "mixup", "step", "seconds"}  # what a checkpoint holds
WHITENING_BIAS_EPOCHS = 1  # then nothing before the blocks learns, and the gradient stops at them


@dataclass(frozen=True)
class StepReport:
    """One step, as seen by whoever follows a run."""

    step: int
    loss: float
    accuracy: float
    size: int
    p: float


class StepMixer(Protocol):
    """What mixes each batch: any method of the library, or something of its own with a method's memory."""

    def __call__(self, x: Tensor, y: Tensor, /) -> tuple[Tensor, bm.MixedTarget | Tensor]:
        """The batch to train on; the target is mixed, or (B, K) probabilities."""

    def settings(self, step: int, /) -> Mapping[str, float]:
        """``{"p": ..., ...}`` at a step."""

    def state_dict(self) -> dict[str, int]:
        """All that the next draw depends on."""

    def load_state_dict(self, state: Mapping[str, int], /) -> None:
        """Go on where ``state_dict`` was taken."""


class Training:
    """One run of the recipe.

    Everything random in a step is a function of the config's seed and the number of the step, and the rest
    of its state is in ``state_dict``: a run that is stopped and resumed ends with the weights of one that is
    not.

    Args:
        config: How to train.
        images: (N, H, H, 3) uint8 training images, on the CPU; 32 pixels for CIFAR-10.
        labels: (N,) class ids.
        device: Where to train.
        mixer: What mixes, in place of the mixing that the config describes.
        learner: The net to train, with fresh weights, and its optimizers; new ones if left out.
        num_classes: K.
        mean: Of the images per channel, in [0, 1].
        std: Standard deviation, likewise.
        world: The processes that train this net together, each on its part of every batch.
        exact: They compute what one process would, to rounding: batches are mixed and normalised as a whole.
            Else each mixes and normalises its part for itself.

    Attributes:
        step: Optimizer steps done.
        seconds: Time spent in training, whitening and transfer included.
    """

    def __init__(
        self,
        config: TrainConfig,
        images: Tensor,
        labels: Tensor,
        device: torch.device,
        *,
        mixer: StepMixer | None = None,
        learner: Learner | None = None,
        num_classes: int = 10,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        world: World = ALONE,
        exact: bool = False,
    ) -> None:
        started = time.perf_counter()
        self.config = config
        self.world, self.exact = world, exact
        self.device = device
        images, labels = images[: config.images].to(device), labels[: config.images].long().to(device)
        if learner is not None:
            learner.check(config)
        self.learner = learner or Learner(net_on(device, config, num_classes), config, device)
        self.net, self.optimizers = self.learner.net, self.learner.optimizers
        if self.net.whitening is not None:
            whiten(self.net, normalize(images[:WHITENING_IMAGES], mean, std))
        world.equalize(self.net.state_dict().values())  # eigenvectors differ by machine in the last bits
        self.batches = ImageBatches(
            images,
            labels,
            batch_size=config.batch_size,
            shift=config.shift,
            seed=config.seed,
            mean=mean,
            std=std,
            compiled=compile_mode(config, device) is not None,
        )
        self.mixup: StepMixer = mixing_of(config) if mixer is None else mixer
        self.autocast = autocast_for(device, config.precision)
        self.step = 0
        self.seconds = time.perf_counter() - started

    def run(self, stop: Callable[[], bool] = lambda: False, *, every: int = 1) -> Iterator[StepReport]:
        """Train to the end of the config's steps, or until ``stop()`` holds after a step.

        Reports each ``every``-th step, and the last of each epoch. A report reads numbers back, which waits
        for the device; the other steps do not, but for those in which several ranks ask whether to stop.
        """
        self.net.train()
        stopped, stopping = False, Stopping(self.world, stop)
        while self.step < self.config.steps and not stopped:
            started = time.perf_counter()
            numbers = self._one_step()
            ends = self.step % self.config.steps_per_epoch == 0 or self.step == self.config.steps
            due = ends or (self.step - 1) % every == 0
            stopped = stopping.asked(due=due)
            report = self._report(numbers) if stopped or due else None
            self.seconds += time.perf_counter() - started
            if report is not None:
                yield report

    def run_through(self) -> None:
        """Train to the end without reports: no step waits for the device."""
        self.net.train()
        while self.step < self.config.steps:
            self._one_step()

    def _report(self, numbers: Tensor) -> StepReport:
        step = self.step - 1
        loss, accuracy = self.world.sum(numbers).tolist()
        return StepReport(step, loss, accuracy, self.config.size_at(step), self.mixup.settings(step)["p"])

    def _one_step(self) -> Tensor:
        """Do one optimizer step; this rank's part of the loss and accuracy of its batch, on the device."""
        x, y = self._batch(self.step, self.config.size_at(self.step))
        learns = self._set_rates()
        if self.learner.graphs is None or self.world.size > 1:
            numbers = self._learn(x, y)
        else:
            numbers = self.learner.graphs(self._learn, x, y, kind=learns)
        self.step += 1
        return numbers * (len(x) / self.config.batch_size)

    def _learn(self, x: Tensor, y: bm.MixedTarget | Tensor) -> Tensor:
        """Learn from a batch at the rates that are set; its loss and accuracy."""
        norms = GlobalNorm() if self.exact and self.world.size > 1 else contextlib.nullcontext()
        with self.autocast(), norms:
            logits = self.net(x)
            loss = F.cross_entropy(logits, y, label_smoothing=self.config.label_smoothing)  # type: ignore[arg-type]
        self.net.zero_grad(set_to_none=True)
        # The sum over the batch: rates are per image, whatever the batch size.
        (loss * len(x)).backward()  # type: ignore[no-untyped-call]
        self.world.add_gradients(self.net.parameters())
        for optimizer in self.optimizers:
            optimizer.step()
        if isinstance(norms, GlobalNorm):
            norms.check(self.net)
        return torch.stack([loss.detach().float(), _accuracy(logits.detach(), y)])

    def _batch(self, step: int, size: int) -> tuple[Tensor, bm.MixedTarget | Tensor]:
        """This rank's part of the mixed batch of ``step``."""
        part = self.world.share(self.config.batch_size)
        crop = self.config.crop_at(step)
        if not self.exact:
            return self.mixup(*self.batches.at(step, size, part, crop=crop))
        # The whole, though a part is wanted: any method can mix it, and it costs little beside the net.
        with as_rank(0):
            x, y = self.mixup(*self.batches.at(step, size, crop=crop))
        return x[part], y[part]

    def _set_rates(self) -> bool:
        """Every rate follows the schedule; that of the whitening bias falls in a straight line, sooner.

        Returns whether that bias still learns.
        """
        progress = self.step / self.config.steps
        rate = rate_at(self.config.schedule, progress)
        last = bias_steps(self.config)
        learns = self.step < last
        bias_left = 1 - self.step / last if learns else 0.0
        self.net.bias_learns = learns
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                set_rate(group, group["peak_lr"] * (bias_left if group.get("early") else rate))
                if "betas" in group and self.config.schedule == "one-cycle":
                    group["betas"] = (momentum_at(progress), group["betas"][1])
        return learns

    # Stop and resume

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "config": self.config.as_dict(),
            "net": self.net.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "mixup": self.mixup.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "exact": self.exact,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.net.load_state_dict(state["net"])
        self.learner.load(state["optimizers"])
        self.mixup.load_state_dict(state["mixup"])
        self.step, self.seconds = state["step"], state["seconds"]


def bias_steps(config: TrainConfig) -> int:
    """Steps in which the whitening bias learns; then the gradient stops at the blocks."""
    return min(WHITENING_BIAS_EPOCHS * config.steps_per_epoch, config.steps)


def mixing_of(config: TrainConfig) -> StepMixer:
    """The mixing that a config describes; it never mixes where the config says none."""
    until = bm.off_after(math.ceil(config.mix_until * config.steps) if config.mix != "none" else 0)
    if config.mix != "cutmix":
        return bm.Mixup(
            config.alpha,
            per=config.per,
            fold=config.fold,
            p_sample=config.p_sample,
            seed=config.seed,
            schedule=until,
        )
    side = config.square / 32
    return bm.CutMix(
        config.alpha,
        per=config.per,
        fold=config.fold and not config.square,  # whose share is what it is
        minmax=(side, side) if config.square else None,
        p_sample=config.p_sample,
        seed=config.seed,
        schedule=until,
    )


def _accuracy(logits: Tensor, target: bm.MixedTarget | Tensor) -> Tensor:
    """Share of correct predictions, each label counted with its weight."""
    if isinstance(target, bm.MixedTarget):
        return target.expected_accuracy(logits)
    return target.gather(1, logits.argmax(1, keepdim=True)).mean()


def autocast_for(device: torch.device, precision: str = "auto") -> Autocast:
    """The precision by name; ``auto`` is bfloat16 where the device multiplies it faster, else float32."""
    if in_bfloat16(device, precision):
        return lambda: torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext


def save_checkpoint(training: Training, path: Path) -> None:
    """Write the state of a run; the old checkpoint stays whole until the new one is."""
    buffer = io.BytesIO()
    torch.save(training.state_dict(), buffer)
    write_whole(path, [buffer.getbuffer()])


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote; torch runs no code that the file could carry.

    It can be made to before torch 2.6 (CVE-2025-32434), and by memory that is overwritten before 2.10
    (CVE-2026-24747): with these resume from your own files alone.

    Raises:
        DataError: If there is no such file, or it can't be read.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"--resume takes a run folder with a checkpoint, found no {path}") from None
    except OSError as error:
        raise DataError(f"--resume cannot read {path}: {error.strerror or error}") from None
    except Exception:  # what torch says of it is long, and advises to run code that the file may carry
        raise DataError(f"--resume found a file that is damaged, or no checkpoint of a run: {path}") from None
    if not isinstance(state, dict) or not set(state) >= STATE or not isinstance(state["config"], dict):
        raise DataError(f"--resume found no state of a run in {path}")
    return state


def pick_device(name: str) -> torch.device:
    """The device by name; ``auto`` is a GPU if there is one.

    Raises:
        MixError: If there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in (*here, "cuda" if len(here) > 1 else "cpu"):
        raise MixError(f"--device takes one of auto, {', '.join(here)}, got {name!r}")
    return torch.device(name)
