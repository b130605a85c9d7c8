"""The loops of 2x2 max pooling that numba compiles; ``pooling`` prepares every argument.

Images are channels last and bfloat16, which numba lacks: they come as uint16, (B, H, W, C). ``first`` and
``last`` count rows of the result, over the whole batch.
"""

from __future__ import annotations

from typing import Any

from batchmix.kernels.loops import compiled, widen


def _pool_rows(x: Any, out: Any, place: Any, first: int, last: int) -> None:
    """The largest value of each square to ``out``, and to ``place`` which of the four it was."""
    rows, columns, channels = out.shape[1:]
    for unit in range(first, last):
        image, row = unit // rows, unit % rows
        above, below = x[image, 2 * row], x[image, 2 * row + 1]
        for column in range(columns):
            one, two = above[2 * column], above[2 * column + 1]
            three, four = below[2 * column], below[2 * column + 1]
            largest, where = out[image, row, column], place[image, row, column]
            for c in range(channels):
                best, found = one[c], 0
                if _beats(widen(two[c]), widen(best)):
                    best, found = two[c], 1
                if _beats(widen(three[c]), widen(best)):
                    best, found = three[c], 2
                if _beats(widen(four[c]), widen(best)):
                    best, found = four[c], 3
                largest[c] = best
                where[c] = found


def _spread_rows(gradient: Any, place: Any, out: Any, first: int, last: int) -> None:
    """Each gradient to where its value came from, and 0 everywhere else, odd borders included."""
    rows, columns = gradient.shape[1:3]
    height, width = out.shape[1:3]
    for unit in range(first, last):
        image, row = unit // rows, unit % rows
        above, below = out[image, 2 * row], out[image, 2 * row + 1]
        for column in range(columns):
            value, where = gradient[image, row, column], place[image, row, column]
            one, two = above[2 * column], above[2 * column + 1]
            three, four = below[2 * column], below[2 * column + 1]
            # A loop for each place: numba makes vectors of a loop that writes to one array.
            _keep_where(one, value, where, 0)
            _keep_where(two, value, where, 1)
            _keep_where(three, value, where, 2)
            _keep_where(four, value, where, 3)
        if width > 2 * columns:
            above[2 * columns :] = 0
            below[2 * columns :] = 0
        if row == rows - 1:
            out[image, 2 * rows : height] = 0


def _keep(out: Any, value: Any, where: Any, place: int) -> None:
    """``value`` where the largest stood at ``place``, else 0."""
    for c in range(out.size):
        out[c] = value[c] if where[c] == place else 0


def _beats_(value: Any, best: Any) -> Any:
    """Whether it is larger, or no number: those win, as in torch."""
    return value > best or value != value


_beats, _keep_where = compiled(_beats_), compiled(_keep)
pool_rows, spread_rows = compiled(_pool_rows), compiled(_spread_rows)
