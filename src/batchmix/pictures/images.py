"""Images as they come, and as matplotlib shows them."""

from __future__ import annotations

import torch
from torch import Tensor

from batchmix.core.plan import describe
from batchmix.errors import MixError


def as_images(name: str, x: Tensor) -> Tensor:
    """Images as (B, C, H, W) float32, uint8 brought to [0, 1]."""
    whole = x.dtype == torch.uint8
    if x.dim() != 4 or not (x.is_floating_point() or whole) or not x.numel():
        raise MixError(f"{name} takes (B, C, H, W) float or uint8 images, at least one, got {describe(x)}")
    # Whole numbers come from files and arrays, channels last; float batches from loaders, channels first.
    planes = x.permute(0, 3, 1, 2) if whole and x.shape[3] in (1, 3) else x
    if planes.shape[1] not in (1, 3):
        raise MixError(f"{name} takes images of 1 or 3 channels, (B, C, H, W), got {describe(x)}")
    return planes.float() / 255 if whole else planes.float()


def displayable(images: Tensor) -> Tensor:
    """Images clipped to [0, 1], channels last: (B, H, W, C)."""
    return images.nan_to_num(nan=0.0).clamp(0, 1).permute(0, 2, 3, 1)
