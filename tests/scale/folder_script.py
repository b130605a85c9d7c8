"""``batchmix`` in double precision, so that what is left is rounding; test_torchrun.py starts it."""

from __future__ import annotations

import sys

import torch
from launching import kill_at_step

from batchmix.cli import main
from batchmix.finetune import training
from batchmix.finetune.training import FolderTraining


class Double(torch.nn.Module):
    """A net whose weights, inputs and sums are float64."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x.double())


def double_model(*args, **kwargs):
    net, mean, std = make_model(*args, **kwargs)
    return Double(net), mean, std


if __name__ == "__main__":
    make_model = training.make_model
    training.make_model = double_model
    kill_at_step(FolderTraining, "_one_step")
    raise SystemExit(main(sys.argv[1:]))
