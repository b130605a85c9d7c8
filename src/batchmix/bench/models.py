"""The net whose training steps are the measure of what mixing costs."""

from __future__ import annotations

import importlib

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchmix.errors import needs

CLASSES = 10
LR = 1e-3


def resnet18(device: torch.device) -> nn.Module:
    """ResNet-18 of torchvision, the same weights each time, in training mode.

    Raises:
        ModuleNotFoundError: If torchvision is not installed.
    """
    with needs("torchvision"):
        models = importlib.import_module("torchvision.models")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net: nn.Module = models.resnet18(num_classes=CLASSES)
    return net.to(device).train()


def labelled(shape: tuple[int, ...], device: torch.device, *, count: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Batches of random images and labels, always the same."""
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(shape, generator=generator).to(device),
            torch.randint(CLASSES, shape[:1], generator=generator).to(device),
        )
        for _ in range(count)
    ]


def make_optimizer(net: nn.Module) -> torch.optim.Optimizer:
    """SGD as usual, at a rate so small that nothing diverges however often a batch comes."""
    return torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9)


class SmallStep:
    """A training step without mixing; calling it takes the step."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.net = resnet18(device)
        self.optimizer = make_optimizer(self.net)
        ((self.x, self.y),) = labelled(shape, device)

    def __call__(self) -> None:
        """Take one step."""
        self.optimizer.zero_grad()
        F.cross_entropy(self.net(self.x), self.y).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
