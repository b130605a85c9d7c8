"""The part ``price``: what mixup adds to a training step, in a plain loop, fastai and Lightning.

Steps with and without it take turns in one process, with the same net and the same batches. Each framework
runs its own loop; a step is timed from the moment it asks for a batch to the moment it asks for the next, so
that everything a user waits for is in it.
"""

from __future__ import annotations

import importlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import batchmix as bm
from batchmix.bench.cases import ALPHA, BenchOptions, Case, torch_threads
from batchmix.bench.models import LR, labelled, make_optimizer, resnet18
from batchmix.bench.peers import Peer
from batchmix.bench.records import TURN
from batchmix.bench.timing import Contender, Timing, reason

Spell = Callable[[int], list[float]]  # so many steps, and the seconds of each

SECONDS = {32: 15.0, 224: 40.0}  # of each loop, by the size of the images
QUICK_SECONDS = 5.0
MOST_STEPS = 400
LEAST_TURNS = 5  # fewer say nothing of how far they differ
BATCHES = 4  # different ones, one after the other


class Batches:
    """A training set in memory that notes when each batch is asked for; ``len`` is one pass.

    Args:
        batches: What it gives, over and over.
        device: Of them; a GPU is waited for before the clock is read.
    """

    def __init__(self, batches: Sequence[tuple[Tensor, Tensor]], device: torch.device) -> None:
        self.batches = batches
        self.device = device
        self.length = 1
        self.moments: list[float] = []
        self.given = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.length):
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            self.moments.append(time.perf_counter())
            yield self.batches[self.given % len(self.batches)]
            self.given += 1

    def spell(self, fit: Callable[[], object], steps: int) -> list[float]:
        """Let a loop run over ``steps`` batches and one more, which shows when the last step was done."""
        self.length, self.moments = steps + 1, []
        fit()
        return [after - before for before, after in zip(self.moments, self.moments[1:], strict=False)]


def price_cases(options: BenchOptions) -> list[Case]:
    """Small images, and unless quick large ones, of which a step takes a second or two on two cores."""
    large = 256 if options.device.type == "cuda" else 16
    batches = ((128, 32),) if options.shapes == "quick" else ((128, 32), (large, 224))
    return [
        Case("price", loop, (batch, 3, size, size), "float32", max(options.threads))
        for batch, size in batches
        for loop in LOOPS
    ]


def measure_price(case: Case, options: BenchOptions, peers: Sequence[Peer]) -> list[dict[str, Any]]:
    """Time steps of both arms in turn, each first as often as the other."""
    arms = [Timing(Contender(name, case.what, lambda: None)) for name in ("none", "mixup")]
    with torch_threads(case.threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the frameworks', about runs as small as these
        try:
            _take_turns(case, options, arms)
        except Exception as error:  # a framework's: the others are measured all the same
            for arm in arms:
                arm.failed = reason(error)
    return case.rows(arms)


def _take_turns(case: Case, options: BenchOptions, arms: list[Timing]) -> None:
    batches = Batches(labelled(case.shape, options.device, count=BATCHES), options.device)
    net = resnet18(options.device)  # of both arms, so that memory lies alike
    spells = [LOOPS[case.what](net, batches, arm.contender.who == "mixup") for arm in arms]
    for spell in spells:
        spell(1)
    begin, turn = time.perf_counter(), 0
    budget = QUICK_SECONDS if options.shapes == "quick" else SECONDS[case.shape[-1]]
    while len(arms[0].seconds) < MOST_STEPS:
        pairs = list(zip(arms, spells, strict=True))
        for arm, spell in pairs if turn % 2 == 0 else reversed(pairs):  # ABBA: a drift meets both alike
            arm.seconds += spell(TURN)
        turn += 1
        if time.perf_counter() - begin > budget and turn >= max(LEAST_TURNS, options.repeats / TURN):
            break


def plain_loop(net: nn.Module, batches: Batches, mixing: bool) -> Spell:
    """The loop that everybody writes."""
    optimizer = make_optimizer(net)
    mixup = bm.Mixup(ALPHA["mixup"], seed=0)

    def fit() -> None:
        for batch in batches:
            x, y = mixup(*batch) if mixing else batch
            loss = F.cross_entropy(net(x), y)  # type: ignore[arg-type]
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return lambda steps: batches.spell(fit, steps)


def fastai_loop(net: nn.Module, batches: Batches, mixing: bool) -> Spell:
    """A Learner, with ``learn.mixup()`` or without."""
    importlib.import_module("fastai.callback.progress")  # gives a Learner its no_bar
    importlib.import_module("batchmix.adapters.fastai")
    loaders = importlib.import_module("fastai.data.core").DataLoaders(batches, [], device=batches.device)
    loss = importlib.import_module("fastai.losses").CrossEntropyLossFlat()
    optimizer = importlib.import_module("fastai.optimizer").SGD
    learn: Any = importlib.import_module("fastai.learner").Learner(
        loaders, net, loss_func=loss, opt_func=optimizer, lr=LR, path="."
    )
    if mixing:
        learn.mixup(ALPHA["mixup"], seed=0)

    def fit() -> None:
        with learn.no_bar(), learn.no_logging():
            learn.fit(1)

    return lambda steps: batches.spell(fit, steps)


def lightning_loop(net: nn.Module, batches: Batches, mixing: bool) -> Spell:
    """A Trainer, with the callback or without."""
    lightning: Any = importlib.import_module("lightning.pytorch")
    callback = importlib.import_module("batchmix.adapters.lightning").MixUpCallback

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, y = batch
            return F.cross_entropy(self.net(x), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return make_optimizer(self.net)

    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)  # a Trainer that is made often says much
    module = Module()
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options: dict[str, Any] = dict.fromkeys(silent, False)
    if batches.device.type == "cuda":
        options |= {"accelerator": "gpu", "devices": [batches.device.index or 0]}
    else:
        options |= {"accelerator": "cpu"}

    def fit() -> None:
        callbacks = [callback(alpha=ALPHA["mixup"], seed=0)] if mixing else []
        trainer = lightning.Trainer(callbacks=callbacks, max_epochs=1, limit_val_batches=0, **options)
        trainer.fit(module, batches)

    return lambda steps: batches.spell(fit, steps)


LOOPS: dict[str, Callable[[nn.Module, Batches, bool], Spell]] = {
    "plain loop": plain_loop,
    "fastai": fastai_loop,
    "Lightning": lightning_loop,
}
