"""The machine a run is made on: what it is, what it does fast, and whether it is free."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from batchmix.errors import MixError, cut, why

BUSY = 0.25  # of all cores, by other processes: from here on timings are worth little


@contextmanager
def memory_told() -> Iterator[None]:
    """Around a training: where a GPU's memory ends, one line says so, and what takes less.

    Raises:
        MixError: In the place of torch's error.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise MixError(
            f"--batch-size takes fewer images, got more than there is memory for: {cut(why(error), 160)}"
        ) from error


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What a record has to say of where it was made."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def has_amx() -> bool:
    """Whether this CPU has tiles (AMX) that multiply bfloat16 matrices ten times as fast as float32 ones."""
    return "amx_bf16" in _cpu_flags()


def has_bf16_units() -> bool:
    """Whether this CPU multiplies bfloat16 matrices faster than float32 ones."""
    return bool({"amx_bf16", "avx512_bf16"} & _cpu_flags())


def in_bfloat16(device: torch.device, precision: str = "auto") -> bool:
    """Whether a net is computed in bfloat16: by name, or ``auto`` where the device multiplies it faster."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":  # AMD's, or NVIDIA's from Ampere on; older ones compute it by way of float32
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and has_bf16_units()


def visible_gpus() -> list[str]:
    """What ``CUDA_VISIBLE_DEVICES`` calls the GPUs that this process sees, in their order."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return shown.split(",") if shown else [str(index) for index in range(torch.cuda.device_count())]


def busy_share() -> float:
    """Share of all cores that is in use right now, in [0, 1]; call it while this process does nothing."""
    import psutil

    return float(psutil.cpu_percent(interval=0.5)) / 100


def prepare(device: torch.device) -> None:
    """Tell this process, before it trains on a device, what makes the steps there faster."""
    if device.type == "cpu":
        keep_freed_memory()
    elif device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # shapes are few and fixed


def keep_freed_memory() -> bool:
    """Ask glibc to keep freed memory, so that each step does not fault in the same pages again.

    Returns whether it could be asked.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library, such as musl
        return False
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # from glibc's malloc.h
    done = (mallopt(mmap_max, 0), mallopt(trim_threshold, -1), mallopt(top_pad, 256 * 2**20))
    return all(done)


@functools.cache
def _cpu_flags() -> frozenset[str]:
    for line in _cpuinfo():
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def _cpu_name() -> str:
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@functools.cache
def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
