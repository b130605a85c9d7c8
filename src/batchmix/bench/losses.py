"""The part ``loss``: forward and backward of cross entropy with a mixed target, beside the plain one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import batchmix as bm
from batchmix.bench.cases import BenchOptions, Case, torch_threads
from batchmix.bench.peers import Peer
from batchmix.bench.timing import Contender, device_clock, in_turn

BATCH = 128
CLASS_COUNTS = {"quick": (10, 1000), "all": (10, 100, 1000, 10_000, 50_000)}


def loss_cases(options: BenchOptions) -> list[Case]:
    """All numbers of classes, float32 and bfloat16 logits."""
    return [
        Case("loss", "cross entropy", (BATCH, classes), dtype, threads)
        for classes in CLASS_COUNTS[options.shapes]
        for dtype in ("float32", "bfloat16")
        for threads in options.threads
    ]


def measure_loss(case: Case, options: BenchOptions, peers: Sequence[Peer]) -> list[dict[str, Any]]:
    """Time forward and backward of each form of the loss; dense targets are made within it, from the pair."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(case.shape, generator=generator).to(options.device, case.torch_dtype)
    logits.requires_grad_()
    y = torch.randint(case.shape[1], (len(logits),), generator=generator).to(options.device)
    target: Any = bm.MixedTarget.from_plan(y, bm.Mixup(0.4, seed=0).plan(logits))

    def through(loss: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: loss().backward()  # type: ignore[no-untyped-call]

    def forget() -> None:
        logits.grad = None

    contenders = [
        Contender("torch", "plain", through(lambda: F.cross_entropy(logits, y))),
        Contender("batchmix", "mixed target", through(lambda: F.cross_entropy(logits, target))),
        Contender("two calls", "weighted", through(lambda: two_calls(logits, target))),
        Contender("dense", "as torchvision", through(lambda: dense(logits, target))),
        Contender("dense", "as timm", through(lambda: soft(logits, target))),
    ]
    clock = device_clock(options.device)
    with torch_threads(case.threads):
        timings = in_turn(contenders, repeats=options.repeats, clock=clock, before=forget)
    return case.rows(timings)


def two_calls(logits: Tensor, target: bm.MixedTarget) -> Tensor:
    """The loss of each label by itself, then their weighted mean."""
    one = F.cross_entropy(logits, target.a, reduction="none")
    two = F.cross_entropy(logits, target.b, reduction="none")
    return (target.lam * one + (1 - target.lam) * two).mean()


def dense(logits: Tensor, target: bm.MixedTarget) -> Tensor:
    """Probabilities of all classes as the target, which torch takes."""
    return F.cross_entropy(logits, _probabilities(target, logits.shape[1]).to(logits.dtype))


def soft(logits: Tensor, target: bm.MixedTarget) -> Tensor:
    """The same written out, as the soft target losses of training libraries are."""
    probabilities = _probabilities(target, logits.shape[1])
    return -(probabilities * F.log_softmax(logits, dim=-1)).sum(dim=-1).mean()


def _probabilities(target: bm.MixedTarget, classes: int) -> Tensor:
    one, two = F.one_hot(target.a, classes).float(), F.one_hot(target.b, classes).float()
    return torch.lerp(two, one, target.lam.unsqueeze(1))
