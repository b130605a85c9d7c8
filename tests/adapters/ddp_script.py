"""Data parallel training on tiny data, which test_ddp.py starts with two processes.

    torchrun --nproc-per-node 2 ddp_script.py OUT plain lightning unseeded

trains in each of these ways, one after the other: by plain torch, by Lightning's Trainer and callback, and by
Lightning with a mixer that nobody seeded, so that each process has another seed. Each rank writes what it saw
to ``OUT/rank0.json`` or ``OUT/rank1.json``: plans, losses and final weights.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from plain_loop import LR, make_model, make_samples
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import batchmix as bm

STEPS = 20


class Seen:
    """What a rank saw."""

    def __init__(self) -> None:
        self.partners: list[list[int]] = []
        self.lams: list[list[float]] = []
        self.losses: list[float] = []

    def step(self, model: Any, batch: Any) -> Tensor:
        """The loss of a batch that is mixed: the index of a sample is its label of a second kind."""
        x, y = batch
        loss = F.cross_entropy(model(x), y["class"])
        self.partners.append(y["index"].b.tolist())
        self.lams.append(y["index"].lam.tolist())
        self.losses.append(loss.item())
        return loss

    def kept(self, model: Any, mixer: bm.Mixer) -> dict[str, Any]:
        """All of it, with the final weights, as JSON takes it."""
        weights = torch.cat([value.flatten() for value in model.parameters()]).tolist()
        return vars(self) | {"weights": weights, "mixer": mixer.state_dict()}


def batches() -> list[Any]:
    """The same eight samples in every step and on every rank, so that plans alone make a difference."""
    x, y = make_samples(8, seed=3)
    return [(x, {"class": y, "index": torch.arange(8)})] * STEPS


def train_plainly(mixer: bm.Mixer, seen: Seen) -> Any:
    """The loop of the README, with DistributedDataParallel."""
    model = DistributedDataParallel(make_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for batch in batches():
        optimizer.zero_grad()
        seen.step(model, mixer(*batch)).backward()
        optimizer.step()
    return model.module


def train_by_lightning(mixer: bm.Mixer, seen: Seen) -> Any:
    """The Trainer finds torchrun's processes by itself."""
    warnings.simplefilter("ignore")
    import lightning.pytorch as pl
    from lightning_loop import loader, make_trainer

    from batchmix.adapters.lightning import MixUpCallback

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_model()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return seen.step(self.net, batch)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=LR)

    module = Module()
    options = {"strategy": "ddp", "devices": dist.get_world_size(), "use_distributed_sampler": False}
    trainer = make_trainer("lightning", MixUpCallback(mixer), max_epochs=1, **options)
    trainer.fit(module, loader(batches()))
    return module.net


def main() -> None:
    out, *ways = sys.argv[1:]
    dist.init_process_group("gloo")
    rank, kept = dist.get_rank(), {}
    for way in ways:
        mixer, seen = bm.Mixup(0.4, seed=1000 + rank if way == "unseeded" else 5), Seen()
        model = train_plainly(mixer, seen) if way == "plain" else train_by_lightning(mixer, seen)
        kept[way] = seen.kept(model, mixer)
    Path(out, f"rank{rank}.json").write_text(json.dumps(kept))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
