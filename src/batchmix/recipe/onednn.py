"""What oneDNN, which does torch's convolutions on a CPU, says of its own work: every call, how, how long."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch

# A line of its verbose mode: onednn_verbose,v1,primitive,exec,cpu,<kind>,<implementation>,<direction>,...,
# <the problem: mb1000_ic24oc64_ih31oh31kh3...>,<milliseconds>
KIND, IMPLEMENTATION, DIRECTION, PROBLEM, MILLISECONDS = 5, 6, 7, -2, -1
DIRECTIONS = {
    "forward_training": "forward",
    "forward_inference": "forward",
    "backward_data": "gradient of the images",
    "backward_weights": "gradient of the filters",
}


@dataclass(frozen=True)
class Convolutions:
    """All calls of one direction for convolutions of one shape.

    Args:
        inputs: Channels that come in.
        outputs: Channels that go out.
        size: Height of the images that come in, in pixels.
        result: Height of what goes out.
        kernel: Height of the filters.
        direction: ``"forward"``, or whose gradient.
        implementation: What oneDNN calls the code that it chose.
        calls: How many.
        seconds: All of them together.
    """

    inputs: int
    outputs: int
    size: int
    result: int
    kernel: int
    direction: str
    implementation: str
    calls: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """All fields, as JSON takes them."""
        return {**asdict(self), "seconds": round(self.seconds, 6)}


def verbose_lines(work: Callable[[], object]) -> list[str]:
    """What oneDNN prints while ``work`` is done: to the process's standard output, past Python's."""
    flush = ctypes.CDLL(None).fflush
    sys.stdout.flush()
    flush(None)
    with tempfile.TemporaryFile() as caught:
        kept = os.dup(1)
        os.dup2(caught.fileno(), 1)
        try:
            with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):  # type: ignore[no-untyped-call]
                work()
            flush(None)
        finally:
            os.dup2(kept, 1)
            os.close(kept)
        caught.seek(0)
        lines = caught.read().decode(errors="replace").splitlines()
    return [line for line in lines if line.startswith("onednn_verbose") and ",exec," in line]


def convolutions(lines: Iterable[str]) -> list[Convolutions]:
    """The convolutions among verbose lines, in the order in which their kinds first came."""
    found: dict[tuple[int, int, int, int, int, str], list[tuple[str, float]]] = {}
    for line in lines:
        fields = line.split(",")
        if fields[KIND] != "convolution":
            continue
        sizes = {name: int(number) for name, number in re.findall(r"([a-z]+)(\d+)", fields[PROBLEM])}
        shape = (sizes["ic"], sizes["oc"], sizes["ih"], sizes["oh"], sizes["kh"])
        key = (*shape, DIRECTIONS[fields[DIRECTION]])
        found.setdefault(key, []).append((fields[IMPLEMENTATION], float(fields[MILLISECONDS]) / 1e3))
    return [
        Convolutions(
            *key,
            implementation=" and ".join(dict.fromkeys(name for name, _ in calls)),
            calls=len(calls),
            seconds=sum(seconds for _, seconds in calls),
        )
        for key, calls in found.items()
    ]


def reorder_seconds(lines: Iterable[str]) -> float:
    """Time in which values were only copied from one layout or type to another."""
    fields = (line.split(",") for line in lines)
    return sum(float(field[MILLISECONDS]) for field in fields if field[KIND] == "reorder") / 1e3
