"""A LightningModule that keeps the batches it is given, and what the callback should make of them."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import CombinedLoader
from lightning_loop import loader, make_trainer
from plain_loop import LR, make_model
from torch import Tensor
from torch.nn import functional as F

import batchmix as bm


class Watcher(pl.LightningModule):
    """Keeps every batch that it is given, and trains on those that are ``(x, y)``."""

    def __init__(self, lr: float = LR) -> None:
        super().__init__()
        self.net, self.lr = make_model(), lr
        self.seen: dict[str, list[Any]] = {"train": [], "val": [], "test": [], "predict": []}
        self.losses: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def compute_loss(self, batch: Any) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.losses.append(loss.item())
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen["train"].append(batch)
        return self.compute_loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen["val"].append(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.seen["test"].append(batch)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen["predict"].append(batch)
        return self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Anything(Watcher):
    """Takes a batch of any form."""

    def compute_loss(self, batch: Any) -> Tensor:
        return self.net(torch.rand(1, 3, 8, 8)).sum()


def mixer() -> bm.Mixup:
    return bm.Mixup(0.4, seed=5)


def fit(module: Any, batches: Any, *callbacks: Any, **options: Any) -> Any:
    """One epoch."""
    trainer = make_trainer("lightning", *callbacks, **({"max_epochs": 1} | options))
    trainer.fit(module, batches if isinstance(batches, (dict, CombinedLoader)) else loader(batches))
    return trainer


def expected(batches: list[Any], start: int = 0) -> list[Any]:
    """What the mixer makes of these batches."""
    again = mixer()
    again.step = start
    return [again(x, y) for x, y in batches]


def assert_mixed(seen: list[Any], wanted: list[Any]) -> None:
    assert len(seen) == len(wanted)
    for (x, y), (wanted_x, wanted_y) in zip(seen, wanted, strict=True):
        assert torch.equal(x, wanted_x)
        for part, wanted_part in zip(y, wanted_y, strict=True):
            assert torch.equal(part, wanted_part)
