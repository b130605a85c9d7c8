"""The same images under several methods, one below the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchmix.errors import MixError
from batchmix.pictures.canvas import INK, axes_at, new_figure
from batchmix.pictures.captions import caption_height, draw_image, fitting_size, image_height, text_width
from batchmix.pictures.checks import as_tensor
from batchmix.pictures.images import as_images, displayable
from batchmix.pictures.labels import label_texts

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_methods(batches: Mapping[str, tuple[Any, Any]], class_names: Sequence[str] | None = None) -> Figure:
    """Draw batches of the same size as rows, each with its name on the left.

    Args:
        batches: Of each row, images and targets as ``draw_batch`` takes them.
        class_names: The name of each class; the labels' numbers if left out.

    Returns:
        A figure with one axes for each image; the label of the axes is the text below it.

    Raises:
        MixError: If there is no row, or the rows differ in length.

    Example:
        >>> import torch
        >>> from batchmix import Mixup
        >>> x, y = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
        >>> figure = draw_methods({"images": (x, y), "mixup": Mixup(seed=0)(x, y)}, ["cat", "dog"])
        >>> len(figure.axes)
        4
    """
    if not batches:
        raise MixError.of("batches", batches, "at least one row")
    rows = {name: displayable(as_images("x", as_tensor("x", x))) for name, (x, _) in batches.items()}
    texts = {
        name: [text.replace(", ", "\n") for text in label_texts(y, class_names)]
        for name, (_, y) in batches.items()
    }
    sizes = {len(images) for images in rows.values()}
    if len(sizes) > 1:
        raise MixError.of("batches", sorted(sizes), "rows of the same number of images")
    return _rows(rows, texts, sizes.pop())


def _rows(rows: Mapping[str, Any], texts: Mapping[str, list[str]], columns: int) -> Figure:
    """Rows of (n, H, W, C) images, the name before and the captions below; lengths are in inches."""
    side, gap, margin, name_size = 1.0, 0.12, 0.12, 10.0
    indent = max(text_width(name, name_size) for name in rows) + 0.15
    every = [text for captions in texts.values() for text in captions]
    size = fitting_size(every, side + gap, largest=8.5)
    tall = image_height(next(iter(rows.values())), side)
    steps = {name: tall + caption_height(texts[name], size) + gap for name in rows}
    height = 2 * margin + sum(steps.values()) - gap
    width = 2 * margin + indent + columns * (side + gap) - gap
    figure = new_figure(width, height)
    top = height - margin
    for name, images in rows.items():
        figure.text(margin / width, (top - tall / 2) / height, name, size=name_size, color=INK, va="center")
        for column, (image, caption) in enumerate(zip(images, texts[name], strict=True)):
            left = margin + indent + column * (side + gap)
            draw_image(axes_at(figure, left, top - tall, side, tall), image, caption, size)
        top -= steps[name]
    return figure
