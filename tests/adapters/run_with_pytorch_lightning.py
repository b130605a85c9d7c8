"""``plain_loop`` by the Trainer of the package ``pytorch_lightning``."""

from __future__ import annotations

from lightning_loop import run_with
from plain_loop import LR, Run

import batchmix as bm


def run(mixer: bm.Mixer | None, *, lr: float = LR) -> Run:
    """Two epochs of SGD on cross entropy, each followed by an evaluation."""
    return run_with("pytorch_lightning", mixer, lr)
