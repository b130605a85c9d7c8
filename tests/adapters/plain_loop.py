"""The loop that every adapter is measured against: same seed, model and data, written out in plain torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import batchmix as bm

CLASSES = 4
EPOCHS = 2
LR = 0.2
Batch = tuple[Tensor, Tensor]


@dataclass
class Run:
    """The losses of a run, in the order they were made."""

    train: list[float] = field(default_factory=list)  # one a step
    evaluation: list[float] = field(default_factory=list)  # one a batch of each evaluation, one an epoch
    weights: dict[str, Tensor] = field(default_factory=dict)  # at the end


def make_samples(count: int, seed: int) -> Batch:
    """Images (count, 3, 8, 8) in [0, 1] and labels that can be learnt from them."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (count,), generator=generator)
    x = torch.rand(count, 3, 8, 8, generator=generator)
    x[:, 0] += y.view(-1, 1, 1) / CLASSES
    return x / x.max(), y


def train_batches() -> list[Batch]:
    """Three batches, the last one shorter: 8, 8 and 5 samples, never shuffled."""
    x, y = make_samples(21, seed=1)
    return list(zip(x.split(8), y.split(8), strict=True))


def eval_batches() -> list[Batch]:
    """Two batches: 8 and 3 samples."""
    x, y = make_samples(11, seed=2)
    return list(zip(x.split(8), y.split(8), strict=True))


def make_model() -> nn.Module:
    """A small net that is the same each time, and leaves the global generator where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, CLASSES)
        )


def run(mixer: bm.Mixer | None, *, lr: float = LR) -> Run:
    """Train on the batches above, each mixed in the loop."""

    def batches() -> Iterator[Any]:
        for x, y in train_batches():
            yield (x, y) if mixer is None else mixer(x, y)

    return train(batches, lr=lr)


def train(batches: Callable[[], Iterable[Any]], *, lr: float) -> Run:
    """Two epochs of SGD on cross entropy, each followed by an evaluation; ``batches()`` gives an epoch's."""
    model, losses = make_model(), Run()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(EPOCHS):
        model.train()
        for x, y in batches():
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.train.append(loss.item())
        model.eval()
        with torch.no_grad():
            losses.evaluation += [F.cross_entropy(model(x), y).item() for x, y in eval_batches()]
    losses.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return losses
