"""Objects on two images of 6x8, so that height is never width, and plans that paste or blend them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors

from batchmix import MixPlan

H, W = 6, 8


def boxes(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).view(-1, 4)


def images(*all_boxes: Tensor) -> list[dict[str, Any]]:
    first = iter(range(100))
    return [
        {"boxes": b, "labels": torch.tensor([next(first) for _ in b], dtype=torch.long), "image_id": place}
        for place, b in enumerate(all_boxes)
    ]


def of_torchvision(form: str) -> Tensor:
    """Boxes as torchvision's transforms hand them on: they say their form."""
    return tv_tensors.BoundingBoxes([[2.0, 1, 4, 3]], format=form, canvas_size=(H, W))


def with_masks(size: tuple[int, int]) -> list[dict[str, Any]]:
    return [{**images(boxes((0, 0, 4, 4)))[0], "masks": torch.ones(1, *size)}]


def paste(top: int, bottom: int, left: int, right: int) -> MixPlan:
    """Two images, each with this box of the other."""
    mask = torch.ones(2, 1, H, W, dtype=torch.bool)
    mask[:, :, top:bottom, left:right] = False
    return MixPlan(torch.tensor([1, 0]), mask.float().mean((1, 2, 3)), mask)


def blended(first: float, second: float) -> MixPlan:
    return MixPlan(torch.tensor([1, 0]), torch.tensor([first, second]))
