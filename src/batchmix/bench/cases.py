"""What is measured: the parts of the benchmark, their shapes, and what a run of it was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

import batchmix as bm
from batchmix.bench.timing import Timing
from batchmix.errors import MixError
from batchmix.kernels.selected import Kernel

PARTS = ("blend", "images", "loss", "sampling", "price")
SHAPES = {
    "quick": ((512, 3, 32, 32), (128, 3, 224, 224)),
    "all": ((512, 3, 32, 32), (256, 3, 64, 64), (128, 3, 224, 224), (64, 3, 384, 384)),
}
DRAW, BLEND = "draw alone", "blend alone"  # forms of what is part of our others, to show how large a part
# Of labels that are mixed beside images of up to so many pixels a side: CIFAR-10, Tiny ImageNet, ImageNet.
CLASSES = ((32, 10), (64, 200), (math.inf, 1000))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
ALPHA = {"mixup": 0.4, "cutmix": 1.0}
BYTES = {"bfloat16": 2, "float32": 4}  # of a value
KERNELS: dict[str, tuple[Kernel, ...]] = {"cpu": ("numba", "torch"), "cuda": ("triton", "torch")}


@dataclass(frozen=True)
class BenchOptions:
    """What a run of the benchmark was asked for.

    Args:
        only: Parts to measure, of ``PARTS``.
        shapes: ``"quick"`` or ``"all"``.
        repeats: Rounds at least; quick calls get more.
        threads: How many threads torch may use, each measured; the largest alone for sampling and price.
        device: Where.

    Raises:
        MixError: If a value is out of its range.
    """

    only: tuple[str, ...] = PARTS
    shapes: str = "all"
    repeats: int = 7
    threads: tuple[int, ...] = (1,)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        for name, takes, holds in (
            ("only", f"some of {', '.join(PARTS)}", bool(self.only) and set(self.only) <= set(PARTS)),
            ("shapes", " or ".join(SHAPES), self.shapes in SHAPES),
            ("repeats", "a whole number >= 3", self.repeats >= 3),
            ("threads", "whole numbers >= 1", bool(self.threads) and min(self.threads) >= 1),
        ):
            if not holds:
                raise MixError.of(f"--{name}", getattr(self, name), takes)

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """The kernels there are for the device."""
        return KERNELS.get(self.device.type, ("torch",))


@dataclass(frozen=True)
class Case:
    """One thing to measure, in which all contenders do the same work.

    Args:
        part: Of ``PARTS``.
        what: The method, loss or loop.
        shape: Of the batch, or of the logits.
        dtype: Of the result, such as ``"float32"``.
        threads: Of torch.
    """

    part: str
    what: str
    shape: tuple[int, ...]
    dtype: str
    threads: int

    def __str__(self) -> str:
        return f"{self.part}: {self.what}, {size_text(self.shape)} {self.dtype}, {threads_text(self.threads)}"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype itself."""
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def rows(self, timings: list[Timing]) -> list[dict[str, Any]]:
        """The rows of the record for what was timed."""
        return [self._row(timing) for timing in timings]

    def _row(self, timing: Timing) -> dict[str, Any]:
        contender = timing.contender
        row = asdict(self) | {"shape": list(self.shape), "who": contender.who, "form": contender.form}
        row |= {"fresh": contender.fresh, "kernel": contender.kernel}
        if timing.failed is not None:
            return row | {"failed": timing.failed}
        return row | {"seconds": [float(f"{taken:.4g}") for taken in timing.seconds]}


def size_text(shape: tuple[int, ...] | list[int]) -> str:
    """A shape as one word, such as ``128x3x224x224``."""
    return "x".join(map(str, shape))


def threads_text(count: int) -> str:
    """A number of threads in words."""
    return f"{count} thread{'s' if count > 1 else ''}"


def classes_beside(side: int) -> int:
    """How many classes the labels have beside images of so many pixels a side."""
    return next(count for most, count in CLASSES if side <= most)


def random_batch(case: Case, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images of the case's shape and dtype, uint8 for ``images``, and their labels."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(classes_beside(case.shape[-1]), case.shape[:1], generator=generator).to(device)
    if case.part == "images":
        return torch.randint(256, case.shape, generator=generator, dtype=torch.uint8).to(device), y
    return torch.randn(case.shape, generator=generator).to(device, case.torch_dtype), y


def our_mixer(method: str, **options: Any) -> bm.Mixer:
    """The mixer that is measured, with a seed of its own."""
    makers: dict[str, type[bm.Mixup] | type[bm.CutMix]] = {"mixup": bm.Mixup, "cutmix": bm.CutMix}
    return makers[method](ALPHA[method], seed=0, **options)


def with_kernel(kernel: Kernel | None, call: Callable[[], object]) -> Callable[[], object]:
    """The call with a kernel by its name; the automatic choice where that is None."""
    if kernel is None:
        return call

    def bound() -> object:
        with bm.kernel(kernel):
            return call()

    return bound


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Give torch so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
