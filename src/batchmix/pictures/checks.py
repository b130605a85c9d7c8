"""What the arguments of a drawing may be."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor

from batchmix.core.plan import describe
from batchmix.errors import MixError


def as_number(name: str, got: Any, low: float, high: float, takes: str) -> float:
    """A number from ``low`` to ``high``; ``takes`` says so in the error."""
    if isinstance(got, bool) or not isinstance(got, Real) or not low <= float(got) <= high:
        raise MixError.of(name, got, takes)
    return float(got)


def length(name: str, values: Any) -> int:
    """How many samples a batch holds."""
    try:
        return len(values)
    except TypeError:
        raise MixError(f"{name} takes a batch, got {describe(values)}") from None


def as_tensor(name: str, values: Any, limit: int | None = None) -> Tensor:
    """The first ``limit`` rows of a tensor or of anything NumPy takes, as a tensor on the CPU."""
    if isinstance(values, Tensor):
        return values.detach()[:limit].cpu() if values.dim() else values
    import numpy as np

    try:
        # A copy in order: torch takes neither reversed strides nor, without a warning, read-only arrays.
        return torch.from_numpy(np.array(np.asarray(values)[:limit], order="C"))
    except (TypeError, ValueError, IndexError):
        raise MixError(f"{name} takes a tensor or an array, got a {type(values).__name__}") from None
