"""Runs against the clock: one config, seed after seed, on a net that is compiled once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from batchmix.data import Cifar10
from batchmix.recipe.config import TrainConfig
from batchmix.recipe.evaluation import Scores, evaluate
from batchmix.recipe.images import normalize
from batchmix.recipe.learner import Learner
from batchmix.recipe.nets import net_on
from batchmix.recipe.training import Training

WARM_UP_EPOCHS = 2.0  # the whitening bias learns in the first and is fixed in the second: two programs
TEST_BATCH = 2500


@dataclass(frozen=True)
class TimedRun:
    """One run.

    Attributes:
        seed: Of everything random in it.
        seconds: From images on the device to the accuracy: whitening, training, test-time augmentation.
        scores: On the test images.
    """

    seed: int
    seconds: float
    scores: Scores


class TimedRuns:
    """Trains one config over and over.

    The images are on the device and the net has its weights before the clock starts, as in airbench; the
    programs of a compiled net are made in ``warm_up``.

    Args:
        config: How to train.
        data: What to train and to test on.
        device: Where; its events are the clock of a GPU.
    """

    def __init__(self, config: TrainConfig, data: Cifar10, device: torch.device) -> None:
        self.config, self.device = config, device
        self.train_x = torch.from_numpy(data.train_x[: config.images]).to(device)
        self.train_y = torch.from_numpy(data.train_y[: config.images]).long().to(device)
        self.test_x = torch.from_numpy(data.test_x).to(device)
        self.test_y = torch.from_numpy(data.test_y).long().to(device)
        self.learner = Learner(net_on(device, config), config, device)

    def warm_up(self) -> float:
        """Train and test once, for two epochs at most, so that all is compiled; its seconds."""
        short = replace(self.config, epochs=min(self.config.epochs, WARM_UP_EPOCHS))
        return self._run(short).seconds

    def run(self, seed: int) -> TimedRun:
        """Train and test once, from fresh weights."""
        return self._run(replace(self.config, seed=seed))

    def _run(self, config: TrainConfig) -> TimedRun:
        self.learner.renew(config)
        with clock(self.device) as seconds:
            training = Training(config, self.train_x, self.train_y, self.device, learner=self.learner)
            training.run_through()
            scores = evaluate(
                self.learner.net,
                self._test_images(),
                self.test_y,
                batch_size=min(TEST_BATCH, len(self.test_y)),
                autocast=training.autocast,
                unsure=config.tta,
            )
        return TimedRun(config.seed, seconds[0], scores)

    def _test_images(self) -> Tensor:
        return normalize(self.test_x)


@contextmanager
def clock(device: torch.device) -> Iterator[list[float]]:
    """The seconds that a block takes, in a list that is empty until its end; by a GPU's own events on one."""
    seconds: list[float] = []
    if device.type != "cuda":
        begin = time.perf_counter()
        yield seconds
        seconds.append(time.perf_counter() - begin)
        return
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    start.record(torch.cuda.current_stream(device))
    yield seconds
    end.record(torch.cuda.current_stream(device))
    end.synchronize()
    seconds.append(start.elapsed_time(end) / 1e3)
