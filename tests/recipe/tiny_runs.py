"""Small runs: made-up images whose class is their colour, and nets that train in a second."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from batchmix.recipe.config import TrainConfig
from batchmix.recipe.training import StepReport, Training

TINY: dict[str, Any] = {"widths": (8, 8, 8), "sizes": (16,), "images": 200, "batch_size": 50, "epochs": 3}
"""Four steps an epoch, twelve in all."""


def tiny(**changes: Any) -> TrainConfig:
    return TrainConfig(**{**TINY, **changes})


def made_up(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images (count, 32, 32, 3) uint8, a colour for each class under noise, and labels (count,)."""
    colours = torch.randint(200, (10, 1, 1, 3), generator=torch.Generator().manual_seed(99))
    noise = torch.randint(56, (count, 32, 32, 3), generator=torch.Generator().manual_seed(seed))
    labels = torch.arange(count) % 10
    return (colours[labels] + noise).to(torch.uint8), labels


def start(**changes: Any) -> Training:
    """A training that has not taken a step."""
    config = tiny(**changes)
    return Training(config, *made_up(config.images), torch.device("cpu"))


def finish(training: Training) -> list[StepReport]:
    return list(training.run())


def weights(training: Training) -> dict[str, Tensor]:
    """A copy of all weights and buffers."""
    return {name: tensor.clone() for name, tensor in training.net.state_dict().items()}


def identical(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two nets have the same weights to the last bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
