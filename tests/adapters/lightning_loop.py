"""``plain_loop`` by Lightning's Trainer, for both of the framework's packages."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import torch
from plain_loop import EPOCHS, LR, Run, eval_batches, make_model, train_batches
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import batchmix as bm

PACKAGES = {"lightning": "lightning.pytorch", "pytorch_lightning": "pytorch_lightning"}

LIGHTNINGS_OWN_WARNINGS = (
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # its pytree helpers, on recent versions of torch
    "The '.*_dataloader' does not have many workers",  # tiny data needs none
    "You defined a `validation_step` but have no `val_dataloader`",
)
"""Beginnings of warnings, as patterns, that Lightning gives about itself and about runs as small as these."""


def framework(name: str) -> Any:
    """The package itself, such as ``lightning.pytorch``."""
    return importlib.import_module(PACKAGES[name])


def callback(name: str) -> Any:
    """The MixUpCallback for it."""
    return importlib.import_module(f"batchmix.adapters.{name}").MixUpCallback


def loader(batches: Any) -> DataLoader:
    """Batches as they are, in their order."""
    return DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)


def make_module(name: str, *, lr: float = LR, net: nn.Module | None = None) -> Any:
    """``plain_loop``'s model as a LightningModule that knows nothing of mixing; ``losses`` is what it saw."""

    class Module(framework(name).LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_model() if net is None else net
            self.losses = Run()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, y = batch
            loss = F.cross_entropy(self(x), y)
            self.losses.train.append(loss.item())
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            x, y = batch
            self.losses.evaluation.append(F.cross_entropy(self(x), y).item())

        test_step = validation_step

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=lr)

    return Module()


def make_trainer(name: str, *callbacks: Any, **options: Any) -> Any:
    """A Trainer that writes and prints nothing."""
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "devices": 1, "max_epochs": EPOCHS}
    quiet |= {"num_sanity_val_steps": 0}
    return framework(name).Trainer(callbacks=list(callbacks), **(quiet | options))


def run_with(name: str, mixer: bm.Mixer | None, lr: float) -> Run:
    """Two epochs of SGD on cross entropy, each followed by an evaluation."""
    module = make_module(name, lr=lr)
    callbacks = [] if mixer is None else [callback(name)(mixer)]
    with warnings.catch_warnings():
        for message in LIGHTNINGS_OWN_WARNINGS:
            warnings.filterwarnings("ignore", message)
        make_trainer(name, *callbacks).fit(module, loader(train_batches()), loader(eval_batches()))
    losses = module.losses
    losses.weights = {key: value.detach().clone() for key, value in module.net.state_dict().items()}
    return losses
