"""Steps of several presets, timed in turn in one process, and where the time of a step goes."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import batchmix as bm
from batchmix.data import load_cifar10
from batchmix.recipe.config import preset
from batchmix.recipe.flop import matmul_rate
from batchmix.recipe.machine import busy_share, describe_machine, keep_freed_memory
from batchmix.recipe.onednn import convolutions, reorder_seconds, verbose_lines
from batchmix.recipe.training import Training, bias_steps

AT_A_TIME = 3  # steps of one contender before the next has its turn
WARM_UP = 2
BESIDE = 1 + AT_A_TIME + 1  # steps that are counted, profiled and told about, after those that are timed
MATRIX = 4096
ORDER = ("convolution", "its gradients", "pooling", "norm", "activation", "optimizer", "all else")
# What the profiler calls them; what they call counts with them.
GROUPS = {
    "convolution": ("aten::mkldnn_convolution",),
    "its gradients": ("aten::convolution_backward",),
    "pooling": ("aten::max_pool2d", "_MaxPool"),
    "norm": ("aten::native_batch_norm",),
    "activation": ("aten::gelu", "aten::silu", "aten::clamp_min", "aten::threshold_backward"),
    "optimizer": ("Optimizer.step",),
}


@dataclass
class Contender:
    """A preset, trained with a kernel."""

    name: str
    preset: str
    kernel: Any = "auto"

    def stages(self) -> dict[int, range]:
        """The steps on images of each size, in the order in which the sizes come."""
        config = preset(self.preset)
        sizes = [config.size_at(step) for step in range(config.steps)]
        return {size: range(sizes.index(size), sizes.index(size) + sizes.count(size)) for size in sizes}

    def start(self, size: int) -> int:
        """The step to begin with on images of a size.

        Steps in which the whitening bias learns take longer: they are passed over where others follow.
        """
        stage, settled = self.stages()[size], bias_steps(preset(self.preset))
        return settled if settled in stage else stage.start

    def steps(self, size: int, images: Any, labels: Any) -> Iterator[Training]:
        """The training itself, one step further each time, from ``start``."""
        with bm.kernel(self.kernel):
            training = Training(preset(self.preset), images, labels, torch.device("cpu"))
        training.step = self.start(size)
        reports = training.run()
        while True:
            yield training
            with bm.kernel(self.kernel):
                next(reports)


CONTENDERS = (
    Contender("airbench94, torch's operations", "airbench94", "torch"),
    Contender("airbench94, our operations", "airbench94"),
    Contender("cpu-bf16", "cpu-bf16"),
    Contender("fast-bf16", "fast-bf16"),
    Contender("quick-bf16", "quick-bf16"),
)


def most_rounds() -> int:
    """How many rounds the shortest stage has steps for: past its end the images have another size."""
    stages = [(contender, size) for contender in CONTENDERS for size in contender.stages()]
    steps = min(contender.stages()[size].stop - contender.start(size) for contender, size in stages)
    return (steps - WARM_UP - BESIDE) // AT_A_TIME


def measure(rounds: int, command: str) -> dict[str, Any]:
    """The record: step times in turn, FLOP and parts of a step, and the rate of a plain matrix product.

    Args:
        rounds: Turns of each contender, of ``AT_A_TIME`` steps; at most ``most_rounds()``.
        command: What was typed, kept in the record.
    """
    keep_freed_memory()
    busy = busy_share()
    data = load_cifar10()
    images, labels = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    stages = [(contender, size) for contender in CONTENDERS for size in contender.stages()]
    running = [contender.steps(size, images, labels) for contender, size in stages]
    for steps in running:
        advance(steps, 1 + WARM_UP)  # the first makes the training
    seconds: list[list[float]] = [[] for _ in running]
    for _ in range(rounds):
        for taken, steps in zip(seconds, running, strict=True):
            for _ in range(AT_A_TIME):
                begin = time.perf_counter()
                next(steps)
                taken.append(round(time.perf_counter() - begin, 4))
    rows = [
        {
            "name": contender.name,
            "kernel": contender.kernel,
            "batch_size": preset(contender.preset).batch_size,
            "size": size,
            "steps": len(contender.stages()[size]),
            "seconds": taken,
            "flop": flop_of(steps),
            "parts": parts_of(steps),
            "convolutions": [found.as_dict() for found in convolutions(lines)],
            "reorders": round(reorder_seconds(lines), 6),
        }
        for (contender, size), steps, taken in zip(stages, running, seconds, strict=True)
        for lines in [verbose_lines(functools.partial(next, steps))]
    ]
    return {
        "machine": describe_machine(torch.device("cpu")),
        "busy_before": round(busy, 2),
        "matrix_rate": matmul_rate(torch.device("cpu"), MATRIX),
        "rows": rows,
        "parts_by": "caller",
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
    }


def advance(steps: Iterator[Training], count: int) -> None:
    """Do some steps."""
    for _ in range(count):
        next(steps)


def flop_of(steps: Iterator[Training]) -> int:
    """Floating point operations of a step, as torch counts them: convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        next(steps)
    return int(counter.get_total_flops())


def parts_of(steps: Iterator[Training]) -> dict[str, float]:
    """Share of each group of operations in the time of a few steps."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        advance(steps, AT_A_TIME)
    spent = dict.fromkeys(ORDER, 0.0)
    for event in seen.events() or ():
        spent[group_of(event)] += event.self_cpu_time_total
    whole = sum(spent.values())
    return {name: round(time / whole, 4) for name, time in spent.items()}


def group_of(event: Any) -> str:
    """The group of an operation of the profiler: that of the outermost one around it which has one."""
    found, around = ORDER[-1], event
    while around is not None:
        found = next((name for name, starts in GROUPS.items() if around.name.startswith(starts)), found)
        around = around.cpu_parent
    return found
