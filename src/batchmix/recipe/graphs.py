"""A training step as one CUDA graph: the GPU is told once what to do, and then to do it again.

A step is hundreds of small pieces of work; where each takes a few microseconds, telling the GPU takes longer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

import batchmix as bm

Target = bm.MixedTarget | Tensor
Learn = Callable[[Tensor, Target], Tensor]

EAGER = 3  # steps of each kind before it is captured: programs are compiled and buffers made in them


@dataclass
class _Captured:
    """A graph, and where it reads and writes."""

    graph: torch.cuda.CUDAGraph
    parts: list[Tensor]
    numbers: Tensor


class StepGraphs:
    """Takes a step as it is for some times, then captures it, and from then on replays what was captured.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._seen: Counter[Hashable] = Counter()
        self._captured: dict[Hashable, _Captured] = {}

    def __call__(self, learn: Learn, x: Tensor, y: Target, kind: Hashable) -> Tensor:
        """What ``learn(x, y)`` returns, and does.

        It may depend on its arguments, on ``kind`` and on tensors that stay where they are; a kind, and each
        shape of it, has a graph of its own.
        """
        kind = (kind, *((part.shape, part.dtype) for part in _parts(x, y)), type(y))
        caller = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(caller)
        # One stream for all steps: gradients are added up on the stream that they were first made on.
        with torch.cuda.stream(self._stream):
            if kind not in self._captured and self._seen[kind] < EAGER:
                self._seen[kind] += 1
                numbers = learn(x, y)
            else:
                if kind not in self._captured:
                    self._captured[kind] = self._capture(learn, x, y)
                numbers = _replay(self._captured[kind], x, y)
        caller.wait_stream(self._stream)
        return numbers

    def _capture(self, learn: Learn, x: Tensor, y: Target) -> _Captured:
        """Record a step, which is not taken."""
        parts = [torch.empty_like(part).copy_(part) for part in _parts(x, y)]
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            numbers = learn(parts[0], _target(parts[1:], y))
        return _Captured(graph, parts, numbers)


def _replay(captured: _Captured, x: Tensor, y: Target) -> Tensor:
    for place, part in zip(captured.parts, _parts(x, y), strict=True):
        place.copy_(part)
    captured.graph.replay()
    return captured.numbers.clone()  # the next replay writes where they lie


def _parts(x: Tensor, y: Target) -> list[Tensor]:
    """All tensors of a batch."""
    return [x, *y] if isinstance(y, bm.MixedTarget) else [x, y]


def _target(parts: list[Tensor], like: Target) -> Target:
    return bm.MixedTarget(*parts) if isinstance(like, bm.MixedTarget) else parts[0]
