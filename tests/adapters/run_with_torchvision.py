"""plain_loop's training with torchvision's transform in the loader's collate function."""

from __future__ import annotations

import torch
from plain_loop import LR, Run, train, train_batches
from torch.utils.data import DataLoader, TensorDataset, default_collate

import batchmix as bm
from batchmix.adapters.torchvision import MixUp


def run(mixer: bm.Mixer | None, *, lr: float = LR) -> Run:
    samples = TensorDataset(*map(torch.cat, zip(*train_batches(), strict=True)))
    mixup = None if mixer is None else MixUp(mixer=mixer)
    loader = DataLoader(
        samples, 8, collate_fn=None if mixup is None else lambda rows: mixup(*default_collate(rows))
    )
    return train(lambda: loader, lr=lr)
