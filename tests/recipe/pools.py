"""What pooling is tried on, and what torch makes of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def batch(*shape: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> Tensor:
    """Random images, channels last."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)
    return x.to(memory_format=torch.channels_last)


def with_equal_values(device: str = "cpu") -> list[Tensor]:
    """Images in which the largest of four values stands more than once."""
    x = batch(2, 8, 6, 6, device=device)
    return [torch.zeros_like(x), x.sign()]


def with_no_numbers(device: str = "cpu") -> Tensor:
    """Images with infinities of both signs, and with a value that is no number."""
    x = batch(2, 8, 6, 6, device=device)
    x[0, :, 0, 0], x[0, :, 1, 3], x[1, :, 2:4, 2:4] = torch.inf, torch.nan, -torch.inf
    return x


def by_torch(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2)


def pooled(pool: Callable[[Tensor], Tensor], x: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
    """What a pooling makes of images, and their gradient."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    out = pool(x)
    out.backward(above)
    assert x.grad is not None
    return out, x.grad


def same(mine: Tensor, other: Tensor) -> bool:
    """Whether the values are the same to the last bit."""
    first, second = (x.detach().contiguous().flatten().view(torch.uint8) for x in (mine, other))
    return torch.equal(first, second)
