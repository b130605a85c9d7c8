"""``plain_loop`` through an Accelerator, which needs no adapter: the mixer is called in the loop."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from plain_loop import EPOCHS, LR, Run, eval_batches, make_model, train_batches
from torch.nn import functional as F
from torch.utils.data import DataLoader

import batchmix as bm


def run(mixer: bm.Mixer | None, *, lr: float = LR) -> Run:
    """Two epochs of SGD on cross entropy, each followed by an evaluation."""
    accelerator, losses = Accelerator(cpu=True), Run()
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    batches = (DataLoader(loader(), batch_size=None) for loader in (train_batches, eval_batches))
    model, optimizer, train_loader, eval_loader = accelerator.prepare(model, optimizer, *batches)
    for _ in range(EPOCHS):
        model.train()
        for x, y in train_loader:
            if mixer is not None:
                x, y = mixer(x, y)
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            losses.train.append(loss.item())
        model.eval()
        with torch.no_grad():
            losses.evaluation += [F.cross_entropy(model(x), y).item() for x, y in eval_loader]
    losses.weights = {
        name: value.detach().clone() for name, value in accelerator.unwrap_model(model).state_dict().items()
    }
    return losses
