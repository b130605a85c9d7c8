"""How much arithmetic a run is, counted on tensors without memory, and how much a device can do."""

from __future__ import annotations

import statistics
from dataclasses import replace

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from batchmix.recipe.config import TrainConfig
from batchmix.recipe.nets import AnyNet, new_net
from batchmix.recipe.optimizers import make_optimizers
from batchmix.recipe.timed import clock
from batchmix.recipe.training import bias_steps

VIEWS = 6  # of an image, at the test: as it is, and five more for the share of images that it is unsure of
REPEATS, PRODUCTS = 10, 10  # of a rate; products one after the other, which leave no gap between them


def flop_of_run(config: TrainConfig, test_images: int = 10_000) -> float:
    """Floating point operations of a run, test-time augmentation included, a multiplication and addition two.

    Counted by ``torch.utils.flop_counter``: convolutions and matrix products, Muon's too.
    """
    learning = bias_steps(config)
    total = 0.0
    seen = [config.size_at(step) for step in range(config.steps)]
    for size in dict.fromkeys(seen):
        steps = [step for step, other in enumerate(seen) if other == size]
        early = sum(step < learning for step in steps)
        for count, bias_learns in ((early, True), (len(steps) - early, False)):
            if count:
                total += count * step_flop(config, size, bias_learns=bias_learns)
    seen_at_test = test_images + (VIEWS - 1) * round(config.tta * test_images)
    return total + seen_at_test * _forward_flop(config)


def step_flop(config: TrainConfig, size: int, *, bias_learns: bool) -> float:
    """Those of one optimizer step on images of ``size`` pixels."""
    config = replace(config, compile="off")  # else zeros that fill up a batch would count
    net = _without_memory(config)
    net.bias_learns = bias_learns
    optimizers = make_optimizers(net, config)
    x = torch.empty(config.batch_size, 3, size, size, device="meta")
    labels = torch.empty(config.batch_size, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(net(x), labels).backward()  # type: ignore[no-untyped-call]
        for optimizer in optimizers:
            optimizer.step()
    return float(counter.get_total_flops())


def matmul_rate(device: torch.device, size: int = 8192) -> float:
    """FLOP per second of a square bfloat16 product, the median of some: what a device reaches at its best."""
    a, b = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    taken = []
    for _ in range(REPEATS + 1):
        with clock(device) as seconds:
            for _ in range(PRODUCTS):
                a @ b
        taken += seconds
    return PRODUCTS * 2.0 * size**3 / statistics.median(taken[1:])


def _forward_flop(config: TrainConfig) -> float:
    """Those of the logits of one image of full size."""
    net = _without_memory(config).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, 32, 32, device="meta"))
    return float(counter.get_total_flops())


def _without_memory(config: TrainConfig) -> AnyNet:
    return new_net(config).to("meta")
