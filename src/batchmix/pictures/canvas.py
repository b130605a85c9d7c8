"""A figure measured in inches: made outside pyplot, filled with axes, written whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from batchmix.errors import MixError
from batchmix.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 160
INK = "#222222"


def new_figure(width: float, height: float) -> Figure:
    """A white figure of so many inches, outside pyplot."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MixError(
            "pictures take matplotlib, which is not installed: pip install 'batchmix[cli]'"
        ) from None
    return Figure(figsize=(width, height), dpi=DPI, facecolor="white")


def axes_at(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches, so that every image has a whole number of pixels to each of its own."""
    full_width, full_height = figure.get_size_inches()
    place = (left / full_width, bottom / full_height, width / full_width, height / full_height)
    return figure.add_axes(place)


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        DataError: If the disk is full or refuses the file.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    write_whole(path, [buffer.getbuffer()])
