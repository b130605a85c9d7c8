"""Two images and their mix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from batchmix.core.blending import blend
from batchmix.core.plan import MixPlan, describe
from batchmix.errors import MixError
from batchmix.pictures.canvas import INK, axes_at, new_figure
from batchmix.pictures.captions import caption_height, draw_image, fitting_size, image_height, text_width
from batchmix.pictures.checks import as_number, as_tensor
from batchmix.pictures.images import as_images, displayable
from batchmix.pictures.labels import percent_text, whole_percents

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_pair(image_a: Any, image_b: Any, lam: float = 0.7, names: Sequence[str] = ("dog", "cat")) -> Figure:
    """Draw two images and their mix as one equation: ``lam x a + (1-lam) x b``.

    Args:
        image_a: Image, (C, H, W) float in [0, 1], or uint8 (H, W, C) or (C, H, W); C is 1 or 3.
        image_b: The image to mix in, of the same shape.
        lam: Weight of ``image_a``, in [0, 1]; shown to two decimals.
        names: What the two images show.

    Returns:
        A figure with three axes: a, b and their mix; the label of each axes is its caption.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> figure = draw_pair(torch.zeros(3, 32, 32), torch.ones(3, 32, 32))
        >>> figure.axes[2].get_label()
        '70% dog, 30% cat'

    Source: Gugger 2018, "Mixup data augmentation", fast.ai, first picture.
    """
    lam = as_number("lam", lam, 0.0, 1.0, "a number in [0, 1]")
    if isinstance(names, str) or len(names) != 2:
        raise MixError.of("names", names, "two names")
    pair = _stack(image_a, image_b)
    mixed = blend(pair, MixPlan(torch.tensor([1, 0]), torch.tensor([lam, lam])))[:1]
    percents = whole_percents([lam, 1 - lam])
    own, others = (f"{percent / 100:.2g} ×" for percent in percents)
    captions = [*names, percent_text(percents, names)]
    return _equation(displayable(torch.cat([pair, mixed])), [own, f"+ {others}", "="], captions)


def _stack(image_a: Any, image_b: Any) -> Tensor:
    """Two images as one batch, (2, C, H, W) float32."""
    images = []
    for name, image in (("image_a", image_a), ("image_b", image_b)):
        tensor = as_tensor(name, image)
        if tensor.dim() != 3:
            raise MixError(f"{name} takes one image (C, H, W), or uint8 (H, W, C), got {describe(tensor)}")
        images.append(as_images(name, tensor[None])[0])
    a, b = (tuple(image.shape) for image in images)
    if a != b:
        raise MixError(f"image_b takes the shape of image_a, {a} as (C, H, W), got {b}")
    return torch.stack(images)


def _equation(images: Tensor, signs: list[str], captions: list[str]) -> Figure:
    """Draw three (H, W, C) images in a row, a sign before each and a caption below; lengths are in inches."""
    side, margin, spill = 1.4, 0.1, 0.2
    tall = image_height(images, side)
    # The result has room to the right: up to so many letters its caption stays on one line.
    if text_width(captions[2], 13) > side + 2 * spill:
        captions = [*captions[:2], captions[2].replace(", ", "\n")]
    size = fitting_size(captions, side + 2 * spill, largest=13)
    gaps = [text_width(sign, 15) + space for sign, space in zip(signs, (0.1, 0.25, 0.4), strict=True)]
    height = 2 * margin + tall + caption_height(captions, size)
    width = 2 * margin + sum(gaps) + 3 * side + spill
    figure = new_figure(width, height)
    left, bottom = margin, height - margin - tall
    for image, sign, gap, caption in zip(images, signs, gaps, captions, strict=True):
        middle = ((left + gap / 2) / width, (bottom + tall / 2) / height)
        figure.text(*middle, sign, size=15, color=INK, ha="center", va="center")
        draw_image(axes_at(figure, left + gap, bottom, side, tall), image, caption, size)
        left += gap + side
    return figure
