"""What a model is worth on unmixed images, of which every rank takes its part."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from batchmix.finetune.files import ImageFiles
from batchmix.finetune.training import FolderTraining
from batchmix.finetune.views import Views, stream


def evaluate(training: FolderTraining, files: ImageFiles, *, workers: int = 0) -> dict[str, float]:
    """Accuracy and loss (nats) of the weights and of their average, each image decoded once for both.

    Ranks need not have as many batches: nothing is exchanged but three sums at the end.
    """
    world, config = training.world, training.config
    nets: dict[str, nn.Module] = {"": training.net, "_ema": training.ema.module}
    for net in nets.values():
        net.eval()
        world.equalize(net.buffers())  # running statistics are each rank's own
    # Added up where the nets are, so that no batch waits for the one before it.
    sums = torch.zeros(len(nets), 2, dtype=torch.float64, device=training.device)
    part = range(len(files))[world.share(len(files))]
    size = max(1, config.batch_size // world.size)
    batches = [[(index, 0) for index in part[at : at + size]] for at in range(0, len(part), size)]
    pinned = training.device.type == "cuda"
    with torch.inference_mode():
        for x, labels in stream(Views(files, config.size), batches, workers=workers, pinned=pinned):
            images = training.normalize(x.to(training.device, non_blocking=True))
            truth = labels.to(training.device, non_blocking=True)
            for row, net in zip(sums, nets.values(), strict=True):
                with training.autocast():
                    logits = net(images).float()
                row += torch.stack(
                    [(logits.argmax(1) == truth).sum(), F.cross_entropy(logits, truth, reduction="sum")]
                )
    shares = (world.sum(sums) / len(files)).tolist()
    return {
        f"{name}{which}": value
        for which, row in zip(nets, shares, strict=True)
        for name, value in zip(("accuracy", "loss"), row, strict=True)
    }
