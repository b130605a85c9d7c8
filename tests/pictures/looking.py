"""What a figure shows: its pixels, its texts, its edges."""

from __future__ import annotations

import io

import numpy as np


def shown(axes):
    """The pixels an axes shows, as (H, W) or (H, W, C)."""
    (image,) = axes.images
    return np.asarray(image.get_array())


def lines_below(axes):
    """The texts drawn under an image, top to bottom."""
    return [text.get_text() for text in axes.texts]


def png(figure):
    """The picture as written and read again, (H, W, 3) uint8."""
    from PIL import Image

    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert len(file.getvalue()) < 300_000
    return np.asarray(Image.open(file).convert("RGB"))


def assert_texts_inside(figure):
    """Everything that is drawn, texts included, lies within the picture; in inches."""
    figure.draw_without_rendering()
    drawn = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert min(drawn.x0, drawn.y0) >= -0.01
    assert drawn.x1 <= width + 0.01
    assert drawn.y1 <= height + 0.01
