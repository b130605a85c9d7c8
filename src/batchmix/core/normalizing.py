"""uint8 images as normalised floats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from batchmix.core.plan import describe, placed
from batchmix.errors import MixError
from batchmix.kernels import pixels, selected


@dataclass(frozen=True)
class Normalize:
    """From uint8 images to floats of mean 0 and standard deviation 1: ``(x/255 - mean)/std``.

    Called by itself, as for evaluation; or as ``Mixup(0.4, normalize=...)``, which normalises and mixes in
    one read and one write where there is a kernel for it.

    A float32 result is the exact one within a unit in its last place (on GPUs that may lack float64, Apple's
    and Intel's, within a few); half precision is rounded once.

    Args:
        mean: Of each channel, images being in [0, 1].
        std: Of each channel, the same, above 0.
        dtype: ``torch.float32``, ``torch.bfloat16`` or ``torch.float16``.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> normalize = Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), dtype=torch.bfloat16)
        >>> normalize(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).dtype
        torch.bfloat16
    """

    mean: Sequence[float]
    std: Sequence[float]
    dtype: torch.dtype = torch.float32

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], *, dtype: torch.dtype = torch.float32
    ) -> None:
        means, stds = _numbers("mean", mean), _numbers("std", std)
        if not all(0 <= value <= 1 for value in means):
            raise MixError.of("mean", means, "means of images in [0, 1]")
        if not all(value > 0 for value in stds):
            raise MixError.of("std", stds, "standard deviations above 0")
        if len(means) != len(stds):
            raise MixError(f"std takes as many numbers as mean: {len(means)}, got {len(stds)}")
        pixels.check_dtype(dtype)
        for name, value in (("mean", means), ("std", stds), ("dtype", dtype)):
            object.__setattr__(self, name, value)  # it is frozen

    def __call__(self, x: Tensor, *, out: Tensor | None = None) -> Tensor:
        """Normalise images.

        Args:
            x: (B, C, H, W) uint8, or (B, C, ...).
            out: Where to write, of the shape of ``x`` and of ``dtype``; a new tensor if left out.

        Returns:
            Like ``x``, of ``dtype``, in the memory format of ``x``.

        Raises:
            MixError: If ``x`` is not a batch of uint8 images with a channel for each mean.
        """
        self.check("x", x)
        check_out(self, x, out)
        kernel = selected.for_images(x, other=None, out=out)
        if kernel is pixels:
            partner = lam = None
        else:  # everyone's own partner: it is read again from the cache
            partner = torch.arange(len(x), device=x.device)
            lam = torch.ones(len(x), dtype=torch.float32, device=x.device)
        result: Tensor = kernel.mix_images(
            x, partner, lam, mean=self.mean, std=self.std, out=out, dtype=self.dtype
        )
        return result

    def check(self, name: str, x: Any) -> None:
        """Raise a MixError that says ``name`` unless ``x`` is a batch of images to normalise."""
        channels = len(self.mean)
        fits = isinstance(x, Tensor) and x.dtype == torch.uint8 and x.dim() > 2 and x.shape[1] == channels
        if not fits:
            is_video = isinstance(x, Tensor) and x.dim() == 5
            shape = f"videos (B, {channels}, T, H, W)" if is_video else f"images (B, {channels}, H, W)"
            raise MixError(f"{name} takes uint8 {shape} where they are normalised, got {describe(x)}")

    @staticmethod
    def of(value: Any) -> Normalize | None:
        """A Normalize, a pair ``(mean, std)`` or None, as one of the two; else a MixError."""
        if value is None or isinstance(value, Normalize):
            return value
        if isinstance(value, (tuple, list)) and len(value) == 2:
            return Normalize(*value)
        raise MixError.of("normalize", value, "a Normalize, a pair (mean, std), or None")


def check_out(normalize: Normalize, x: Tensor, out: Tensor | None) -> None:
    """Raise a MixError unless ``out`` can hold the normalised ``x``."""
    if out is None:
        return
    wanted = (x.shape, normalize.dtype, x.device)
    if not isinstance(out, Tensor) or (out.shape, out.dtype, out.device) != wanted:
        dtype = str(normalize.dtype).removeprefix("torch.")
        raise MixError(
            f"out takes what x becomes, {dtype} tensor {tuple(x.shape)} on {x.device}, got {placed(out)}"
        )


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    if hasattr(values, "tolist"):  # a tensor or an array
        values = values.tolist()
    takes = "a finite number for each channel, such as (0.5, 0.5, 0.5)"
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise MixError.of(name, values, takes)
    numbers = all(isinstance(part, Real) and not isinstance(part, bool) for part in values)
    if not numbers or not all(math.isfinite(part) for part in values):
        raise MixError.of(name, values, takes)
    return tuple(float(part) for part in values)
