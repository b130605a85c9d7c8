"""Trainers of small models, and the same training written out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from plain_loop import CLASSES, make_samples
from run_with_transformers import RecordingTrainer, arguments
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import (
    AutoModelForImageClassification,
    PreTrainedConfig,
    ResNetConfig,
    Trainer,
    ViTConfig,
)

import batchmix as bm

LR = 0.1
Sample = dict[str, Tensor]

RESNET = ResNetConfig(
    embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=CLASSES
)


VIT = ViTConfig(
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    image_size=8,
    patch_size=4,
    num_labels=CLASSES,
)


class Samples(Dataset):
    """Columns of equal length, one dict a sample."""

    def __init__(self, **columns: Tensor) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> Sample:
        return {key: column[index] for key, column in self.columns.items()}

    def batches(self, size: int = 8) -> list[Sample]:
        parts = zip(*(column.split(size) for column in self.columns.values()), strict=True)
        return [dict(zip(self.columns, part, strict=True)) for part in parts]


def samples(count: int = 21, seed: int = 1, labels: Callable[[Tensor], Tensor] = lambda y: y) -> Samples:
    x, y = make_samples(count, seed)
    return Samples(pixel_values=x, labels=labels(y))


def build(config: PreTrainedConfig, **changes: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = copy.deepcopy(config)
        for name, value in changes.items():
            setattr(config, name, value)
        return AutoModelForImageClassification.from_config(config)


def constant(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


def make_trainer(
    model: nn.Module,
    folder: Path,
    *,
    kind: type[Trainer] = RecordingTrainer,
    data: Samples | None = None,
    **options: Any,
) -> Any:
    """A trainer with plain SGD; ``trainer`` in options goes to the Trainer, all else to its arguments."""
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    return kind(
        model=model,
        args=options.pop("args", None) or arguments(str(folder), **options.pop("arguments", {})),
        train_dataset=samples() if data is None else data,
        eval_dataset=options.pop("eval_dataset", samples(11, 2)),
        optimizers=(optimizer, constant(optimizer)),
        **options,
    )


def plain_losses(
    model: nn.Module,
    data: Samples,
    mixer: bm.Mixer,
    loss_fn: Callable[..., Tensor] = F.cross_entropy,
    epochs: int = 2,
) -> list[float]:
    """The same training written out, with the loss outside of the model."""
    optimizer, losses = torch.optim.SGD(model.parameters(), lr=LR), []
    model.train()
    for _ in range(epochs):
        for batch in data.batches():
            x, y = mixer(batch["pixel_values"], batch["labels"])
            loss = loss_fn(model(pixel_values=x).logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


class Anything(nn.Module):
    """A model that takes whatever comes and never gets to it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, **batch: Any) -> dict[str, Tensor]:
        raise AssertionError("a wrong batch does not reach the model")
