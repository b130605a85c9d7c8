"""Lightning's Fabric needs no adapter: its loop is a plain one, and a mixer a part of the state it saves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.fabric import Fabric
from lightning_loop import LIGHTNINGS_OWN_WARNINGS
from plain_loop import LR, make_model, train_batches
from torch.nn import functional as F

import batchmix as bm

pytestmark = [pytest.mark.filterwarnings(f"ignore:{message}") for message in LIGHTNINGS_OWN_WARNINGS]


class Training:
    """A loop as in Fabric's own guide."""

    def __init__(self, mixer: bm.Mixer) -> None:
        self.fabric, self.mixer, model = Fabric(accelerator="cpu", devices=1), mixer, make_model()
        self.model, self.optimizer = self.fabric.setup(model, torch.optim.SGD(model.parameters(), lr=LR))
        self.state = {"model": self.model, "optimizer": self.optimizer, "mixup": mixer}

    def epoch(self) -> list[float]:
        losses = []
        for x, y in train_batches():
            x, y = self.mixer(x, y)
            loss = F.cross_entropy(self.model(x), y)
            self.optimizer.zero_grad()
            self.fabric.backward(loss)
            self.optimizer.step()
            losses.append(loss.item())
        return losses


def test_a_loaded_state_goes_on_with_the_same_draws(tmp_path: Path) -> None:
    whole, resumed = Training(bm.Mixup(0.4, seed=5)), Training(bm.Mixup(0.4, seed=77))
    whole.epoch()
    whole.fabric.save(tmp_path / "run.ckpt", whole.state)
    resumed.fabric.load(tmp_path / "run.ckpt", resumed.state)
    assert resumed.mixer.state_dict() == {"seed": 5, "step": 3}
    assert resumed.epoch() == pytest.approx(whole.epoch(), rel=1e-6)
