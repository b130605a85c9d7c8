"""A small chart as an inline SVG: axes with ticks, lines, dots; the page's style gives the colours.

Hand-made, because it stays text on the page: it follows its light or dark colours and its fonts, weighs a few
kilobytes, and needs no script. Everything drawn takes a class; `templates/report.css` says how it looks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

Point = tuple[float, float]


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers within [low, high], at steps of 1, 2 or 5 times a power of ten.

    Example:
        >>> nice_ticks(0.0, 10.0)
        [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    factor = next(f for f in (1, 2, 5, 10, 20) if (high - low) / (f * step) <= most)
    step *= factor
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def span(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values with some room around it; never empty."""
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or abs(high) * 0.05 or 1.0
    return low - room, high + room


class Plot:
    """A rectangle with axes, filled from the back to the front.

    Args:
        title: What it shows, for who cannot see it.
        x: Range of the x axis.
        y: Range of the y axis.
        size: Width and height of the whole picture, in pixels.
        margin: Left, top, right and bottom of the rectangle inside.
        log_x: Whether the x axis is logarithmic.
    """

    def __init__(
        self,
        title: str,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        size: tuple[float, float] = (360, 250),
        margin: tuple[float, float, float, float] = (50, 12, 12, 42),
        log_x: bool = False,
    ) -> None:
        self.title, self.size = title, size
        left, top, right, bottom = margin
        self.left, self.right = left, size[0] - right
        self.top, self.bottom = top, size[1] - bottom
        self.x = _scale(x, (self.left, self.right), log=log_x)
        self.y = _scale(y, (self.bottom, self.top))
        self._x_range, self._y_range = x, y
        self._parts: list[str] = []

    def draw(self, tag: str, name: str, text: str = "", **attributes: float | str) -> None:
        """Add an element of a class; attributes are written with ``-`` for ``_``."""
        written = "".join(f' {key.replace("_", "-")}="{_number(v)}"' for key, v in attributes.items())
        self._parts.append(f'<{tag} class="{escape(name)}"{written}>{escape(text)}</{tag}>')

    def x_axis(self, label: str, ticks: Sequence[float] | None = None) -> None:
        """Ticks, their numbers, and what the axis shows, with its unit."""
        for tick in nice_ticks(*self._x_range) if ticks is None else ticks:
            at = self.x(tick)
            self.draw("line", "grid", x1=at, x2=at, y1=self.top, y2=self.bottom)
            self.text(at, self.bottom + 15, _tick(tick), "tick", anchor="middle")
        self.text((self.left + self.right) / 2, self.size[1] - 7, label, "label", anchor="middle")

    def y_axis(self, label: str) -> None:
        """The same for the y axis."""
        for tick in nice_ticks(*self._y_range):
            at = self.y(tick)
            self.draw("line", "grid", x1=self.left, x2=self.right, y1=at, y2=at)
            self.text(self.left - 6, at + 4, _tick(tick), "tick", anchor="end")
        x, y = 13.0, (self.top + self.bottom) / 2
        self.text(x, y, label, "label", anchor="middle", turn=f"rotate(-90 {x} {y})")

    def line(self, points: Sequence[Point], name: str) -> None:
        """A line through points."""
        path = " ".join(f"{_number(self.x(x))},{_number(self.y(y))}" for x, y in points)
        self.draw("polyline", name, points=path, fill="none")

    def dot(self, x: float, y: float, name: str, radius: float = 3.5) -> None:
        """A dot."""
        self.draw("circle", name, cx=self.x(x), cy=self.y(y), r=radius)

    def box(self, x: tuple[float, float], y: tuple[float, float], name: str) -> None:
        """A filled rectangle."""
        x0, x1 = sorted(map(self.x, x))
        y0, y1 = sorted(map(self.y, y))
        self.draw("rect", name, x=x0, y=y0, width=x1 - x0, height=y1 - y0)

    def text(
        self, x: float, y: float, text: str, name: str, *, anchor: str = "start", turn: str = ""
    ) -> None:
        """A text at a place in pixels."""
        self.draw("text", name, text, x=x, y=y, text_anchor=anchor, **({"transform": turn} if turn else {}))

    def __str__(self) -> str:
        width, height = map(_number, self.size)
        head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(self.title)}">'
        return head + "".join(self._parts) + "</svg>"


def _scale(
    of: tuple[float, float], to: tuple[float, float], *, log: bool = False
) -> Callable[[float], float]:
    warp: Callable[[float], float] = math.log if log else float
    (low, high), (start, end) = map(warp, of), to
    return lambda value: start + (warp(value) - low) / (high - low) * (end - start)


def _number(value: float | str) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−")
