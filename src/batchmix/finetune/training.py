"""The training loop of a timm model on a folder: every step a function of the seed and its number."""

from __future__ import annotations

import contextlib
import io
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import batchmix as bm
from batchmix.core.draws import Draws
from batchmix.errors import MixError, needs, why
from batchmix.files import write_whole
from batchmix.finetune.config import FolderConfig
from batchmix.finetune.files import ImageFiles
from batchmix.finetune.order import Order
from batchmix.finetune.views import Views, stream
from batchmix.recipe.training import StepReport, autocast_for
from batchmix.scale.norm import GlobalNorm
from batchmix.scale.stopping import Stopping
from batchmix.scale.world import World


class FolderTraining:
    """One run. Its state is in ``state_dict``: stopped and resumed, it ends with the same weights.

    Args:
        config: How to train.
        files: The training images.
        classes: Their names, K.
        device: Where to train.
        world: The processes that train this model together.
        exact: They compute what one process would, to rounding: mixing and batch norm over the whole batch.

    Attributes:
        step: Optimizer steps done.
        seconds: Time spent in training.

    Raises:
        MixError: If timm cannot make the model, it does not take images of this size, or a batch takes more
            images than there are, or less than two for each process.
    """

    def __init__(
        self,
        config: FolderConfig,
        files: ImageFiles,
        classes: Sequence[str],
        device: torch.device,
        *,
        world: World,
        exact: bool = False,
    ) -> None:
        world.check_batch(config.batch_size)
        if config.batch_size > len(files):
            raise MixError.of("batch_size", config.batch_size, f"at most the {len(files)} training images")
        self.config, self.device, self.world, self.exact = config, device, world, exact
        self.images = {"classes": list(classes), "images": len(files)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            net, mean, std = make_model(config, len(classes))
        self.net = net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _check_size(self.net, config, device)
        world.equalize(self.net.state_dict().values())
        self.wrapped: nn.Module = self.net
        if world.size > 1:
            self.wrapped = DistributedDataParallel(self.net)
            # Buffers stay each rank's own, and the first rank's are what is kept: a broadcast less a step.
            self.wrapped.broadcast_buffers = False  # as an argument it warns, from torch 2.13 on
        self.normalize = bm.Normalize(mean, std)
        self.mixup = config.mixer(self.normalize)
        self.ema = AveragedModel(self.net)  # which ``_average`` keeps
        self.optimizer = torch.optim.AdamW(_groups(self.net, config.weight_decay), lr=config.lr)
        self.autocast = autocast_for(device) if config.amp else contextlib.nullcontext
        self.views = Views(files, config.size, seed=config.seed, crop=config.crop, flip=config.flip)
        mixer = self.mixup if exact else None
        self.order = Order(len(files), config.batch_size, config.seed, world, mixer, config.size, device)
        self.steps_per_epoch = self.order.steps_per_epoch
        self.steps = max(1, round(config.epochs * self.steps_per_epoch))
        self.step = 0
        self.seconds = 0.0

    def run(
        self, stop: Callable[[], bool] = lambda: False, *, every: tuple[int, ...] = (1,), workers: int = 0
    ) -> Iterator[StepReport]:
        """Train to the end, or until ``stop()`` holds on a rank, of which ``Stopping`` asks.

        Reports the steps of which ``is_due`` says so, and the one after which it stops.
        """
        batches = self.order.views(self.step, self.steps)
        stopping = Stopping(self.world, stop)
        started = time.perf_counter()
        for x, labels in stream(self.views, batches, workers=workers, pinned=self.device.type == "cuda"):
            numbers = self._one_step(x, labels)
            due = self.is_due(every)
            stopped = stopping.asked(due=due)
            if not (due or stopped):
                continue
            loss, accuracy = self.world.sum(numbers).tolist()
            p = self.mixup.settings(self.step - 1)["p"]
            self.seconds += time.perf_counter() - started
            yield StepReport(self.step - 1, loss, accuracy, self.config.size, p)
            started = time.perf_counter()
            if stopped:
                return

    @property
    def at_end_of_epoch(self) -> bool:
        """Whether the last step done ends an epoch, or the training."""
        return self.step % self.steps_per_epoch == 0 or self.step == self.steps

    def is_due(self, every: tuple[int, ...]) -> bool:
        """Whether the last step done is the first, a multiple of one of ``every``, or ends an epoch."""
        return self.step == 1 or self.at_end_of_epoch or any(self.step % number == 0 for number in every)

    def rate(self, step: int) -> float:
        """The learning rate of a step: a straight rise, then half a cosine to 0."""
        rise = self.config.warmup * self.steps
        if step < rise:
            return self.config.lr * (step + 1) / math.ceil(rise)
        done = (step - rise) / max(1.0, self.steps - rise)
        return self.config.lr * (1 + math.cos(math.pi * done)) / 2

    def _one_step(self, x: Tensor, labels: Tensor) -> Tensor:
        """Do one optimizer step; this rank's part of the loss and accuracy of its batch."""
        self.net.train()
        place = f"{self.config.seed}/{self.world.rank}/dropout/{self.step}"
        torch.manual_seed(Draws.of(self.step, place).seed)  # dropout's, the same after a resume
        x, y = self._mix(x.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True))
        norms = GlobalNorm() if self.exact and self.world.size > 1 else contextlib.nullcontext()
        with self.autocast(), norms:
            logits = self.wrapped(x.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, y, label_smoothing=self.config.label_smoothing)  # type: ignore[arg-type]
        part = len(x) / self.config.batch_size
        self.optimizer.zero_grad(set_to_none=True)
        # Gradients are averaged over ranks, whose parts of the batch may differ by an image.
        (loss * (part * self.world.size)).backward()  # type: ignore[no-untyped-call]
        if isinstance(norms, GlobalNorm):
            norms.check(self.net)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.step)
        self.optimizer.step()
        self._average()
        self.step += 1
        return torch.stack([loss.detach().float(), y.expected_accuracy(logits.detach())]) * part

    def _mix(self, x: Tensor, labels: Tensor) -> tuple[Tensor, bm.MixedTarget]:
        """This rank's part of the mixed batch."""
        if not self.exact:
            return self.mixup(x, labels, step=self.step)
        part = self.order.part(self.step)
        plan, partners = part.plan.to(x.device), part.partners.to(x.device)
        own = slice(len(plan))
        mixed = bm.blend(x[own], plan, other=x[partners], normalize=self.normalize)
        return mixed, bm.MixedTarget(labels[own], labels[partners], plan.lam)

    @torch.no_grad()
    def _average(self) -> None:
        """Take the weights into their running mean; young ones forget faster, so that the first do not stay.

        ``AveragedModel.update_parameters`` would copy its count to a GPU at each step, which is waited for.
        """
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        averaged, current = ([*net.parameters(), *net.buffers()] for net in (self.ema.module, self.net))
        pairs = list(zip(averaged, current, strict=True))
        moved = [pair for pair in pairs if self.step > 0 and pair[0].is_floating_point()]
        copied = [pair for pair in pairs if self.step == 0 or not pair[0].is_floating_point()]  # counters
        if moved:
            torch._foreach_lerp_([mean for mean, _ in moved], [new for _, new in moved], 1 - decay)
        if copied:
            torch._foreach_copy_([mean for mean, _ in copied], [new for _, new in copied])
        self.ema.n_averaged += 1  # on the CPU

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "config": self.config.as_dict(),
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [self.optimizer.state_dict()],
            "mixup": self.mixup.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "exact": self.exact,
            **self.images,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.net.load_state_dict(state["net"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizers"][0])
        self.mixup.load_state_dict(state["mixup"])
        self.step, self.seconds = state["step"], state["seconds"]

    def save(self, path: Path) -> None:
        """Write a checkpoint; the old one stays whole until the new one is."""
        buffer = io.BytesIO()
        torch.save(self.state_dict(), buffer)
        write_whole(path, [buffer.getbuffer()])


def make_model(config: FolderConfig, classes: int) -> tuple[nn.Module, tuple[float, ...], tuple[float, ...]]:
    """The timm model, and the mean and standard deviation of the images that it takes."""
    with needs("timm"):
        import timm
    if not timm.is_model(config.model):
        raise MixError.of("model", config.model, "the name of a timm model, such as resnet18")
    options = {"pretrained": config.pretrained, "num_classes": classes}
    try:
        try:
            net = timm.create_model(config.model, img_size=config.size, **options)
        except TypeError:  # one of any size
            net = timm.create_model(config.model, **options)
    except Exception as error:  # of the model's own code, or of a download
        takes = f"a model that timm can make here for {config.size} pixels"
        raise MixError.of("model", config.model, f"{takes} ({why(error)})") from error
    wanted = timm.data.resolve_model_data_config(net)
    return net, wanted["mean"], wanted["std"]


def _check_size(net: nn.Module, config: FolderConfig, device: torch.device) -> None:
    """Show the model one black image: many take some sizes alone, and say so where they meet another."""
    try:
        with torch.no_grad():
            net.eval()(torch.zeros(1, 3, config.size, config.size, device=device))
    except torch.cuda.OutOfMemoryError:  # whatever the size
        raise
    except Exception as error:  # models raise nearly anything
        raise MixError.of("size", config.size, f"pixels that {config.model} takes ({why(error)})") from error


def _groups(net: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and filters, none for biases and norms."""
    return [
        {"params": [p for p in net.parameters() if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in net.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
