"""The images of a study as tensors: a part of the training images, the same for all runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from batchmix.data.image_sets import ImageSet
from batchmix.errors import MixError
from batchmix.recipe.images import MEAN, STD

SPREAD_IMAGES = 10_000  # enough for mean and standard deviation of other images than CIFAR-10's


@dataclass(frozen=True, eq=False)
class StudyImages:
    """Training and test images, (N, H, H, 3) uint8 and (N,) int64, and what a net has to know of them."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def study_images(image_set: ImageSet, count: int) -> StudyImages:
    """The test images, and ``count`` of the training images, chosen class by class.

    Args:
        image_set: As ``load_images`` gives it.
        count: How many; all of them are in their own order.

    Raises:
        MixError: If there are not as many.
    """
    labels = torch.from_numpy(image_set.train_y).long()
    if count > len(labels):
        raise MixError.of("images", count, f"at most the {len(labels)} training images of {image_set.name}")
    chosen = stratified(labels, count)
    images = torch.from_numpy(image_set.train_x)
    images = images if count == len(labels) else images[chosen]
    mean, std = (MEAN, STD) if image_set.name == "cifar10" else _spread(images)
    return StudyImages(
        images,
        labels[chosen],
        torch.from_numpy(image_set.test_x),
        torch.from_numpy(image_set.test_y).long(),
        len(image_set.classes),
        mean,
        std,
    )


def stratified(labels: Tensor, count: int) -> Tensor:
    """Places of ``count`` samples with the shares that the classes have in all of them, in ascending order.

    Which samples of a class are taken is fixed, and a smaller choice is part of every larger one.

    Args:
        labels: (N,) class ids.
        count: At most N.

    Example:
        >>> stratified(torch.tensor([0, 0, 0, 0, 1, 1]), 3).tolist()
        [2, 3, 5]
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    depth = torch.empty(len(labels), dtype=torch.float64)
    for label in range(int(labels.max()) + 1):
        own = order[labels[order] == label]
        depth[own] = (torch.arange(len(own), dtype=torch.float64) + 0.5) / len(own)
    return depth.argsort(stable=True)[:count].sort().values


def count_of(subset: str | None, available: int) -> int:
    """How many images ``--subset`` asks for.

    Args:
        subset: A number such as ``"5000"``, a share such as ``"10%"``, or None for all.
        available: How many there are.

    Raises:
        MixError: If it is neither, or more than there are.

    Example:
        >>> count_of("10%", 50_000)
        5000
    """
    takes = f"a number of images or a share such as 10%, at most {available}"
    if subset is None:
        return available
    try:
        share = subset.endswith("%")
        count = round(available * float(subset[:-1]) / 100) if share else int(subset)
    except (ValueError, OverflowError):
        raise MixError.of("--subset", subset, takes) from None
    if not 1 <= count <= available:
        raise MixError.of("--subset", subset, takes)
    return count


def spread_over(count: int, total: int) -> Tensor:
    """Places of ``count`` samples at equal distances among ``total``; all of them where there are fewer."""
    return torch.arange(min(count, total)) * total // min(count, total)


def _spread(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the images per channel, in [0, 1]."""
    some = images[spread_over(SPREAD_IMAGES, len(images))].double() / 255
    std = some.std((0, 1, 2)).clamp(min=1 / 255)  # a channel may be constant
    return tuple(some.mean((0, 1, 2)).tolist()), tuple(std.tolist())
