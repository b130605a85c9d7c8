"""Starting Triton's kernels: whether they work here, on which device, which configuration is fastest."""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from batchmix.errors import shorten
from batchmix.kernels.layout import is_seen, is_watched

# Rows and labels out of range stop the device, as in torch's own kernels; no other checks are compiled in.
# What is to be multiplied and added in one rounding says so itself.
OPTIONS = {"debug": True, "sanitize_overflow": False, "enable_fp_fusion": False}

_failed: dict[torch.device, str | None] = {}
_chosen: dict[Hashable, Config] = {}


class Config(NamedTuple):
    """What a kernel may be compiled for; no result depends on it."""

    values: int  # of a program
    warps: int


@functools.cache
def kernels() -> Any:
    """The kernels of the blend, or None where Triton is missing."""
    try:
        return importlib.import_module("batchmix.kernels.triton_blend")
    except (ImportError, AttributeError):
        return None


def why_torch(tensors: Sequence[Tensor]) -> str | None:
    """Why torch has to see the operations, or to do them; None where Triton may."""
    if is_seen():
        return "a compiler, a transform or a mode of torch that looks on"
    if any(type(tensor) is not Tensor for tensor in tensors):
        return "a subclass of Tensor"
    if is_watched(tensors):
        return "gradients"
    device = tensors[0].device
    if any(
        tensor.device != device or tensor.layout != torch.strided or tensor.is_neg() for tensor in tensors
    ):
        return "tensors that do not all lie on one device as they are"
    return why_not_here(device)


def why_not_here(device: torch.device) -> str | None:
    """Why Triton does not run on ``device``; found out by a first small launch, once."""
    module = kernels()
    if module is None:
        return "no Triton that is installed"
    if device.type != ("cpu" if module.INTERPRETED else "cuda"):
        return "tensors elsewhere than on a GPU"
    if device not in _failed:
        if is_capturing(device):
            return "a CUDA graph that is captured before the first call"
        _failed[device] = _try(module, device)
    return _failed[device]


def is_capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured, which must not wait for the device."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def on(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which Triton launches on ``device``: it takes torch's current one."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(device)


def choose(
    key: Hashable,
    configs: Sequence[Config],
    device: torch.device,
    rehearsal: Callable[[], Callable[[Config], None]],
) -> Config:
    """The fastest of ``configs`` for calls of one ``key``, measured at the first of them.

    To measure waits for the device: while a CUDA graph is captured the first is taken, as by the interpreter.
    Triton may still have to compile it: it has a program for each set of what it is told of sizes and strides
    (which are 1, which 16 divides). So a call that is to be captured is made once before, as it will be.
    ``rehearsal`` gives what to measure, which may be called many times.
    """
    if device.type != "cuda":
        return configs[0]
    if key not in _chosen:
        if is_capturing(device):
            return configs[0]
        _chosen[key] = _fastest(configs, rehearsal)
    return _chosen[key]


def _fastest(configs: Sequence[Config], rehearsal: Callable[[], Callable[[Config], None]]) -> Config:
    """By the median of some calls; the first, if there is no memory to rehearse in."""
    from triton.runtime.errors import OutOfResources
    from triton.testing import do_bench

    def milliseconds(config: Config) -> float:
        try:
            return float(do_bench(functools.partial(launch, config), warmup=2, rep=10, return_mode="median"))
        except (OutOfResources, RuntimeError) as error:  # too large for this GPU, or for the compiler
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            return float("inf")

    try:
        launch = rehearsal()
        return min(configs, key=milliseconds)
    except torch.cuda.OutOfMemoryError:
        return configs[0]


def _try(module: Any, device: torch.device) -> str | None:
    if (
        device.type == "cuda"
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device) < (7, 0)
    ):
        return "a GPU older than Triton takes"
    one = torch.ones(1, dtype=torch.float32, device=device)
    row = torch.zeros(1, dtype=torch.int64, device=device)
    try:
        with on(device):
            module.mix_in_place[(1,)](
                one, row, one, one, 1, 1, 1, 0,
                kind=0, wide=module.FLOAT32, inner=1, group=1, block=16, **OPTIONS,
            )  # fmt: skip
    except Exception as error:  # a compiler, a driver or a cache folder is missing: each has its own kind
        return f"a Triton that does not work here ({shorten(str(error), 200)})"
    return None
