"""plain_loop's training with batches that a worker of the DataLoader has mixed."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from plain_loop import LR, Run, train, train_batches
from torch.utils.data import DataLoader, TensorDataset

import batchmix as bm
from batchmix.collate import MixCollate


def run(mixer: bm.Mixer | None, *, lr: float = LR) -> Run:
    samples = TensorDataset(*map(torch.cat, zip(*train_batches(), strict=True)))
    collate = None if mixer is None else MixCollate(mixer)
    loader = DataLoader(samples, 8, num_workers=1, persistent_workers=True, collate_fn=collate)

    def batches() -> list[Any]:
        with warnings.catch_warnings():
            # Autograd's threads sleep while the worker is forked.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            return list(loader if collate is None else collate.epoch(loader))

    return train(batches, lr=lr)
