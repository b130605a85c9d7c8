"""plain_loop's training with batches that a worker of the DataLoader has mixed."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from plain_loop import EPOCHS, LR, Run, eval_batches, make_model, train_batches
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import batchmix as bm
from batchmix.collate import MixCollate


def run(mixer: bm.Mixer | None, *, lr: float = LR) -> Run:
    model, losses = make_model(), Run()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    samples = TensorDataset(*map(torch.cat, zip(*train_batches(), strict=True)))
    collate = None if mixer is None else MixCollate(mixer)
    loader = DataLoader(samples, 8, num_workers=1, persistent_workers=True, collate_fn=collate)
    for _ in range(EPOCHS):
        batches: Iterable = loader if collate is None else collate.epoch(loader)
        with warnings.catch_warnings():
            # Autograd's threads sleep while the worker is forked.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            batches = list(batches)
        for x, y in batches:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.train.append(loss.item())
        model.eval()
        with torch.no_grad():
            losses.evaluation += [F.cross_entropy(model(x), y).item() for x, y in eval_batches()]
        model.train()
    losses.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return losses
