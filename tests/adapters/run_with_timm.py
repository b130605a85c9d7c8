"""plain_loop's training as timm's script does it: dense targets, timm's loss and timm's optimizer."""

from __future__ import annotations

import torch
from plain_loop import CLASSES, EPOCHS, LR, Run, eval_batches, make_model, train_batches
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from torch import nn

import batchmix as bm
from batchmix.adapters.timm import Mixup


def run(mixer: bm.Mixer | None, *, lr: float = LR) -> Run:
    model, losses = make_model(), Run()
    optimizer = create_optimizer_v2(model, opt="momentum", lr=lr, momentum=0.0, weight_decay=0.0)
    mixup_fn = None if mixer is None else Mixup(mixer=mixer, label_smoothing=0.0, num_classes=CLASSES)
    validate_loss_fn = nn.CrossEntropyLoss()
    train_loss_fn = validate_loss_fn if mixup_fn is None else SoftTargetCrossEntropy()
    for _ in range(EPOCHS):
        model.train()
        for x, target in train_batches():
            if mixup_fn is not None:
                x, target = mixup_fn(x, target)
            loss = train_loss_fn(model(x), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.train.append(loss.item())
        model.eval()
        with torch.no_grad():
            losses.evaluation += [validate_loss_fn(model(x), y).item() for x, y in eval_batches()]
    losses.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    return losses
