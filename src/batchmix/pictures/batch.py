"""Any batch with its labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from torch import Tensor

from batchmix.core.sampling import check_count
from batchmix.errors import MixError
from batchmix.pictures.canvas import axes_at, new_figure
from batchmix.pictures.captions import caption_height, draw_image, fitting_size, image_height
from batchmix.pictures.checks import as_tensor, length
from batchmix.pictures.images import as_images, displayable
from batchmix.pictures.labels import label_texts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_batch(
    x: Any,
    y: Any,
    class_names: Sequence[str] | None = None,
    *,
    columns: int = 8,
    limit: int = 32,
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
) -> Figure:
    """Draw a batch as a grid, each image with its label or the weights of its labels.

    Values outside [0, 1] are clipped, and NaN is drawn as 0; nothing is rescaled.

    Args:
        x: Images, (B, C, H, W) float in [0, 1], or uint8 (B, H, W, C) or (B, C, H, W); C is 1 or 3.
        y: Their targets: a MixedTarget, labels (B,), or weights of the classes (B, K).
        class_names: The name of each class; the labels' numbers if left out.
        columns: Images in a row, at least 1; 4 stays readable on a phone.
        limit: The first so many images are drawn.
        mean: What was subtracted from each channel to normalise ``x``: C numbers or one, in ``x``'s unit.
        std: What each channel was divided by after that: C numbers or one.

    Returns:
        A figure with one axes for each image drawn; the label of the axes is the text below it.

    Raises:
        MixError: If an argument is not of the form above, the lengths differ, or a label has no name.

    Example:
        >>> import torch
        >>> from batchmix import MixedTarget
        >>> y = MixedTarget(torch.tensor([0, 1]), torch.tensor([1, 0]), 0.7)
        >>> draw_batch(torch.rand(2, 3, 8, 8), y, ["cat", "dog"]).axes[0].get_label()
        '70% cat, 30% dog'
    """
    columns, limit = check_count("columns", columns), check_count("limit", limit)
    size = length("x", x)
    if length("y", y) != size:
        raise MixError(f"y takes as many targets as there are images: {size}, got {len(y)}")
    images = as_images("x", as_tensor("x", x, limit))
    channels = images.shape[1]
    if std is not None:
        images = images * _by_channel("std", std, channels)
    if mean is not None:
        images = images + _by_channel("mean", mean, channels)
    captions = [text.replace(", ", "\n") for text in label_texts(y[:limit], class_names)]
    return _grid(displayable(images), captions, min(columns, len(images)))


def _by_channel(name: str, values: Any, channels: int) -> Tensor:
    """One number or one a channel, as a tensor that broadcasts over (B, C, H, W)."""
    numbers = as_tensor(name, [values] if isinstance(values, Real) else values).flatten()
    fits = len(numbers) in (1, channels) and not numbers.is_complex() and bool(numbers.isfinite().all())
    if not fits:
        raise MixError(
            f"{name} takes one finite number, or {channels}, one a channel, got {numbers.tolist()}"
        )
    return numbers.float().view(1, -1, 1, 1)


def _grid(images: Tensor, captions: list[str], columns: int) -> Figure:
    """Draw (n, H, W, C) images in rows of ``columns``, the captions below; lengths are in inches."""
    side, gap, margin = 1.2, 0.15, 0.15
    rows = math.ceil(len(images) / columns)
    tall = image_height(images, side)
    size = fitting_size(captions, side + gap, largest=10.5)
    step = tall + caption_height(captions, size) + gap
    height = 2 * margin + rows * step - gap
    figure = new_figure(2 * margin + columns * (side + gap) - gap, height)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(index, columns)
        left, bottom = margin + column * (side + gap), height - margin - row * step - tall
        draw_image(axes_at(figure, left, bottom, side, tall), image, caption, size)
    return figure
