"""plain_loop's training with torchvision's transform in the loader's collate function."""

from __future__ import annotations

import torch
from plain_loop import EPOCHS, LR, Run, eval_batches, make_model, train_batches
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, default_collate

import batchmix as bm
from batchmix.adapters.torchvision import MixUp


def run(mixer: bm.Mixer | None, *, lr: float = LR) -> Run:
    model, losses = make_model(), Run()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    samples = TensorDataset(*map(torch.cat, zip(*train_batches(), strict=True)))
    mixup = None if mixer is None else MixUp(mixer=mixer)
    loader = DataLoader(
        samples, 8, collate_fn=None if mixup is None else lambda rows: mixup(*default_collate(rows))
    )
    for _ in range(EPOCHS):
        for x, y in loader:
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
