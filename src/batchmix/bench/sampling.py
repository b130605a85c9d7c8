"""The part ``sampling``: what a draw costs, beside a training step of a ResNet-18."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Sequence
from typing import Any

import torch

from batchmix.bench.cases import ALPHA, BenchOptions, Case, our_mixer, torch_threads
from batchmix.bench.models import SmallStep
from batchmix.bench.peers import Peer, Timm
from batchmix.bench.timing import Contender, finished_clock, in_turn, wall_clock

SHAPE = (128, 3, 32, 32)


def sampling_cases(options: BenchOptions) -> list[Case]:
    """One: the batch of the goal."""
    return [Case("sampling", "draw", SHAPE, "float32", max(options.threads))]


def measure_sampling(case: Case, options: BenchOptions, peers: Sequence[Peer]) -> list[dict[str, Any]]:
    """Time the draws by each library, and in the same rounds a whole training step."""
    with torch_threads(case.threads):
        step = SmallStep(SHAPE, options.device)
        contenders = [Contender("torch", "training step", step)]
        for method in ALPHA:
            for per in ("sample", "batch"):
                mixer = our_mixer(method, per=per)
                draw = functools.partial(mixer.plan, step.x)
                contenders.append(Contender("batchmix", f"{method}, per {per}", draw))
        contenders += _numpys(options.device)
        for peer in peers:
            if isinstance(peer, Timm):
                contenders += _timms(peer)
        clock = finished_clock if options.device.type == "cuda" else wall_clock
        return case.rows(in_turn(contenders, repeats=options.repeats, clock=clock, seconds=5.0))


def _numpys(device: torch.device) -> list[Contender]:
    """Weights by NumPy and partners by torch, as in the code of the paper, brought to the device."""
    beta = importlib.import_module("numpy").random.default_rng(0).beta
    alpha, count = ALPHA["mixup"], SHAPE[0]

    def draw(size: int | None) -> object:
        return torch.as_tensor(beta(alpha, alpha, size)).to(device), torch.randperm(count, device=device)

    return [
        Contender("NumPy", f"mixup, per {per}", functools.partial(draw, size))
        for per, size in (("sample", count), ("batch", None))
    ]


def _timms(timm: Timm) -> list[Contender]:
    """The draws of timm, of both its modes; its partners are the batch reversed, which takes no draw."""
    mixup = timm.mixup(mixup_alpha=ALPHA["mixup"], cutmix_alpha=0.0)
    return [
        Contender("timm", "mixup, per sample", lambda: mixup._params_per_elem(SHAPE[0])),
        Contender("timm", "mixup, per batch", mixup._params_per_batch),
    ]
