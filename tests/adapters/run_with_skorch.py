"""plain_loop's training by skorch: a classifier fitted on arrays, with a validation set of its own."""

from __future__ import annotations

import torch
from plain_loop import EPOCHS, LR, Run, eval_batches, make_model, train_batches
from skorch import NeuralNetClassifier
from skorch.dataset import Dataset
from skorch.helper import predefined_split
from torch import nn

import batchmix as bm
from batchmix.adapters.skorch import MixUpClassifier


def joined(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """The samples and labels of all batches; skorch cuts them into batches of 8 again."""
    x, y = zip(*batches, strict=True)
    return torch.cat(x), torch.cat(y)


def run(mixer: bm.Mixer | None, *, lr: float = LR) -> Run:
    net_class, options = (NeuralNetClassifier, {}) if mixer is None else (MixUpClassifier, {"mixer": mixer})
    net = net_class(
        make_model(),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        lr=lr,
        batch_size=8,
        max_epochs=EPOCHS,
        train_split=predefined_split(Dataset(*joined(eval_batches()))),
        verbose=0,
        **options,
    )
    net.fit(*joined(train_batches()))
    losses = Run(weights={name: value.detach().clone() for name, value in net.module_.state_dict().items()})
    for epoch in net.history:
        losses.train += [batch["train_loss"] for batch in epoch["batches"] if "train_loss" in batch]
        losses.evaluation += [batch["valid_loss"] for batch in epoch["batches"] if "valid_loss" in batch]
    return losses
