"""Which kernel mixes: the one that was named, or the first that takes the call and gains.

``cpu`` (numba), ``gpu`` (Triton), ``blocks`` and ``pixels`` (torch) have ``mix`` or ``mix_images`` alike.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import threading
from collections import deque
from contextvars import ContextVar
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from batchmix.errors import MixError
from batchmix.kernels import blocks, cpu, pixels
from batchmix.kernels.fused import loops

Kernel = Literal["auto", "torch", "numba", "triton"]
VARIABLE = "BATCHMIX_KERNEL"

_here: ContextVar[tuple[Kernel, ...]] = ContextVar("batchmix_kernel", default=())
_lock = threading.Lock()


def _unlock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # a child has no thread to give back what was taken as it was forked
    os.register_at_fork(after_in_child=_unlock)

# Kernels named without a `with`; the last holds. A name that a `with` then enters leaves its place, so that
# several are kept: threads that are about to enter theirs must not undo one another's.
_named: deque[kernel] = deque(maxlen=64)


class kernel:  # noqa: N801 - called like a function, as torch.no_grad is
    """Name the kernel that mixes, instead of the automatic choice.

    ``with bm.kernel("torch"): ...`` holds in the block, for its thread or task; ``bm.kernel("torch")`` alone
    for the rest of the process, wherever no block says otherwise. Without either the environment variable
    ``BATCHMIX_KERNEL`` counts, which child processes inherit too.

    The automatic choice takes what is fastest and can do the call; on a GPU that is torch, until Triton's
    kernels have been timed beside it. A kernel that is named takes batches of any size, and refuses what it
    cannot do: numba what torch has to see (autograd, torch.func, subclasses of Tensor), partners that are
    resized first, and samples with gaps in memory. The results of numba are those of torch, to the bit.
    Compiled code is torch's in any case.

    Args:
        name: ``"auto"``, ``"torch"``, ``"numba"`` (with ``pip install 'batchmix[fast]'``) or ``"triton"``.

    Raises:
        MixError: If ``name`` is none of these, or is not installed.

    Example:
        >>> import batchmix as bm
        >>> with bm.kernel("torch"):
        ...     x, y = bm.Mixup(0.4, seed=0)(torch.rand(8, 3, 32, 32), torch.randint(10, (8,)))
    """

    def __init__(self, name: Kernel) -> None:
        self.name = _checked(name, "kernel")
        with _lock:
            _named.append(self)

    def __enter__(self) -> kernel:
        with _lock:
            if self in _named:
                _named.remove(self)
        _here.set((*_here.get(), self.name))
        return self

    def __exit__(self, *error: object) -> None:
        _here.set(_here.get()[:-1])

    def __repr__(self) -> str:
        return f"kernel({self.name!r})"


def current() -> Kernel:
    """The kernel that is named here, ``"auto"`` where none is.

    Raises:
        MixError: If the environment names one that is not there.
    """
    here = _here.get()
    if here:
        return here[-1]
    try:
        return _named[-1].name
    except IndexError:
        name = os.environ.get(VARIABLE)
        return _checked(name, VARIABLE) if name else "auto"


def for_samples(
    x: Tensor,
    partner: Tensor,
    lam: Tensor,
    mask: Tensor | None,
    *,
    other: Tensor | None,
    out: Tensor | None,
    resized: bool,
) -> Any:
    """The module whose ``mix`` takes these floating point samples; None for torch's plain operations.

    Raises:
        MixError: If the kernel that was named does not take them.
    """
    if torch.compiler.is_compiling():
        return None
    name = current()
    if name == "auto":
        if not resized and cpu.can_mix(x, partner, lam, mask, other=other, out=out):
            return cpu
    elif name != "torch":
        module = _module(name)
        reason = "partners that are resized first" if resized else None
        _refuse(name, reason or module.why_not(x, partner, lam, mask, other=other, out=out))
        return module
    in_blocks = not resized and blocks.can_mix(x, partner, lam, mask, other=other, out=out)
    return blocks if in_blocks else None


def for_images(x: Tensor, mask: Tensor | None = None, *, other: Tensor | None, out: Tensor | None) -> Any:
    """The module whose ``mix_images`` takes these uint8 images.

    Raises:
        MixError: If the kernel that was named does not take them.
    """
    if torch.compiler.is_compiling():
        return pixels
    name = current()
    if name == "auto":
        return cpu if cpu.why_not_images(x, mask, other=other, out=out) is None else pixels
    if name == "torch":
        return pixels
    module = _module(name)
    _refuse(name, module.why_not_images(x, mask, other=other, out=out))
    return module


def for_boxes(boxes: Tensor, size: tuple[int, ...]) -> Any:
    """The module whose ``cut_out`` makes the masks of these boxes; None for torch's plain operations."""
    if torch.compiler.is_compiling() or current() not in ("auto", "numba"):
        return None
    return cpu if cpu.can_cut(boxes, size) else None


def _refuse(name: Kernel, reason: str | None) -> None:
    if reason is not None:
        raise MixError(f"kernel takes 'auto' or 'torch' for {reason}, got {name!r}")


def _checked(name: Any, argument: str) -> Kernel:
    """The name, if there is such a kernel here."""
    if name not in get_args(Kernel):
        raise MixError.of(argument, name, "'auto', 'torch', 'numba' or 'triton'")
    if name in ("numba", "triton"):
        _module(name, argument)
    kernel_name: Kernel = name
    return kernel_name


def _module(name: Kernel, argument: str = "kernel") -> Any:
    """The kernel of that name, or a MixError that says why there is none."""
    if name == "numba":
        if loops() is None:
            raise MixError(
                f"{argument} takes 'auto' or 'torch' where numba is missing or does not compile "
                "(pip install 'batchmix[fast]'), got 'numba'"
            )
        return cpu
    module = _gpu()
    if module is None:
        raise MixError(f"{argument} takes 'auto' or 'torch' where triton is missing, got 'triton'")
    return module


@functools.cache
def _gpu() -> Any:
    """The Triton kernels, or None where there is no Triton."""
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        return importlib.import_module("batchmix.kernels.gpu")
    except ImportError:
        return None
