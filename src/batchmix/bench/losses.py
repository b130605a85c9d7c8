"""The part ``loss``: forward and backward of cross entropy with a mixed target, beside the plain one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import batchmix as bm
from batchmix.bench.cases import BenchOptions, Case, torch_threads, with_kernel
from batchmix.bench.peers import Peer
from batchmix.bench.timing import Contender, device_clock, in_turn

BATCH = 128
CLASS_COUNTS = {"quick": (10, 1000), "all": (10, 100, 1000, 10_000, 50_000)}
LAM = 0.7  # of the whole batch, as torchvision and timm draw it


def loss_cases(options: BenchOptions) -> list[Case]:
    """All numbers of classes, float32 and bfloat16 logits."""
    return [
        Case("loss", "cross entropy", (BATCH, classes), dtype, threads)
        for classes in CLASS_COUNTS[options.shapes]
        for dtype in ("float32", "bfloat16")
        for threads in options.threads
    ]


def measure_loss(case: Case, options: BenchOptions, peers: Sequence[Peer]) -> list[dict[str, Any]]:
    """Time forward and backward of each form of the loss; dense targets are made within it, from labels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(case.shape, generator=generator).to(options.device, case.torch_dtype)
    logits.requires_grad_()
    y = torch.randint(case.shape[1], (len(logits),), generator=generator).to(options.device)
    target: Any = bm.MixedTarget.from_plan(y, bm.Mixup(0.4, seed=0).plan(logits))

    def through(loss: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: loss().backward()  # type: ignore[no-untyped-call]

    def forget() -> None:
        logits.grad = None

    mixed = through(lambda: F.cross_entropy(logits, target))
    contenders = [
        Contender("torch", "plain", through(lambda: F.cross_entropy(logits, y))),
        *(
            Contender("batchmix", "mixed target", with_kernel(kernel, mixed), kernel=kernel)
            for kernel in (None, *options.kernels)
        ),
        Contender("two calls", "weighted", through(lambda: two_calls(logits, target))),
        Contender("dense", "torchvision's formula", through(lambda: torchvisions(logits, y))),
        Contender("dense", "timm's formula", through(lambda: timms(logits, y))),
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


def torchvisions(logits: Tensor, y: Tensor) -> Tensor:
    """Dense labels by the operations of torchvision: one-hot, the partner a roll of one; torch's own loss."""
    own = F.one_hot(y, logits.shape[1]).float()
    target = own.roll(1, 0)
    target *= 1 - LAM
    target += own * LAM
    return F.cross_entropy(logits, target.to(logits.dtype))  # faster than to multiply two dtypes


def timms(logits: Tensor, y: Tensor) -> Tensor:
    """Dense labels by the operations of timm: ones scattered, the partner a flip; its loss written out."""
    own = torch.full(logits.shape, 0.0, device=y.device).scatter_(1, y.unsqueeze(1), 1.0)
    target = own * LAM + own.flip(0) * (1 - LAM)
    return (-target * F.log_softmax(logits, dim=-1)).sum(dim=-1).mean()
