"""An image with its caption below, and the room a caption takes; lengths in inches, font sizes in points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from batchmix.pictures.canvas import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_image(axes: Axes, image: Tensor, caption: str, size: float) -> None:
    """Fill axes with one (H, W, C) image and the lines of its caption; on one line, they are its label."""
    # A grey image has one channel, which imshow takes without its dimension.
    axes.imshow(image.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    lines = caption.split("\n")
    axes.set_label(", ".join(lines))
    for number, line in enumerate(lines):
        # Line by line and by the baseline: aligned by their tops, "cat" would hang lower than "ship".
        # A class may be named "$5 note": no line is read as a formula.
        axes.annotate(
            line,
            xy=(0.5, 0),
            xycoords="axes fraction",
            xytext=(0, -_baseline(number, size)),
            textcoords="offset points",
            size=size,
            color=INK,
            ha="center",
            va="baseline",
            parse_math=False,
        )


def image_height(images: Tensor, width: float) -> float:
    """Height of (n, H, W, C) images drawn ``width`` wide; beyond 3 to 1 they get narrower."""
    return width * min(images.shape[1] / images.shape[2], 3.0)


def caption_height(captions: Sequence[str], size: float) -> float:
    """Height of the longest caption, with the tails of its last letters."""
    last = max(caption.count("\n") for caption in captions)
    return (_baseline(last, size) + 0.3 * size) / 72


def text_width(text: str, size: float) -> float:
    """About the width of the longest line: a letter of the usual font is 0.58 of its size wide."""
    return max(map(len, text.split("\n"))) * 0.58 * size / 72


def fitting_size(texts: Sequence[str], width: float, largest: float) -> float:
    """The one font size at which all texts are at most so wide: up to ``largest``, and not below 5."""
    longest = max(text_width(text, largest) for text in texts)
    return max(5.0, largest * width / longest) if longest > width else largest


def _baseline(line: int, size: float) -> float:
    """How far below its image a line of a caption stands, in points."""
    return 5 + size * (0.8 + 1.3 * line)
