"""The loops of 2x2 max pooling that numba compiles; ``pooling`` prepares every argument.

Images are channels last and bfloat16, which numba lacks: they come as uint16, (B, H, W, C). ``first`` and
``last`` count rows of the result, over the whole batch. The innermost loops take places in flat arrays: a
slice would be counted, and threads that count the same arrays wait for one another. And the places are
unsigned, for a negative one would count from the end, and to ask which it is forbids vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from batchmix.kernels.loops import compiled, widen
from batchmix.kernels.team_code import in_team


def _pool_rows(x: Any, out: Any, place: Any, first: int, last: int) -> None:
    """The largest value of each square to ``out``, and to ``place`` which of the four it was."""
    height, width, channels = x.shape[1:]
    rows, columns = out.shape[1:3]
    values, largest, where = x.reshape(x.size), out.reshape(out.size), place.reshape(place.size)
    for unit in range(first, last):
        above = ((unit // rows) * height + 2 * (unit % rows)) * width * channels
        for column in range(columns):
            at = above + 2 * column * channels
            to = (unit * columns + column) * channels
            _keep_largest(values, at, width * channels, largest, where, to, channels)


def _largest_(values: Any, above: int, line: int, largest: Any, where: Any, to: int, channels: int) -> None:
    """Of one square, whose upper values begin at ``above``; a ``line`` is that of the image, in values."""
    count, place = np.uintp(channels), np.uintp(to)
    left, right = np.uintp(above), np.uintp(above + channels)
    low_left, low_right = np.uintp(above + line), np.uintp(above + line + channels)
    for c in range(count):
        one, two = values[left + c], values[right + c]
        three, four = values[low_left + c], values[low_right + c]
        best, found = one, 0
        if _beats(widen(two), widen(best)):
            best, found = two, 1
        if _beats(widen(three), widen(best)):
            best, found = three, 2
        if _beats(widen(four), widen(best)):
            best, found = four, 3
        largest[place + c] = best
        where[place + c] = found


def _spread_rows(gradient: Any, place: Any, out: Any, first: int, last: int) -> None:
    """Each gradient to where its value came from, and 0 everywhere else, odd borders included."""
    rows, columns = gradient.shape[1:3]
    height, width, channels = out.shape[1:]
    line = width * channels
    values, where, target = gradient.reshape(gradient.size), place.reshape(place.size), out.reshape(out.size)
    for unit in range(first, last):
        image, row = unit // rows, unit % rows
        above = (image * height + 2 * row) * line
        for column in range(columns):
            to, at = above + 2 * column * channels, (unit * columns + column) * channels
            # A loop for each place: numba makes vectors of a loop that writes to one array.
            _keep_where(target, to, values, where, at, channels, 0)
            _keep_where(target, to + channels, values, where, at, channels, 1)
            _keep_where(target, to + line, values, where, at, channels, 2)
            _keep_where(target, to + line + channels, values, where, at, channels, 3)
        used = 2 * columns * channels
        target[above + used : above + line] = 0
        target[above + line + used : above + 2 * line] = 0
        if row == rows - 1:
            target[above + 2 * line : (image + 1) * height * line] = 0


def _keep_(target: Any, to: int, values: Any, where: Any, at: int, channels: int, place: int) -> None:
    """The values where the largest stood at ``place``, else 0."""
    count, begin, end = np.uintp(channels), np.uintp(at), np.uintp(to)
    for c in range(count):
        # A product, for a choice would read the value only where it is needed, which forbids vectors.
        target[end + c] = values[begin + c] * np.uint16(where[begin + c] == place)


def _beats_(value: Any, best: Any) -> Any:
    """Whether it is larger, or no number: those win, as in torch."""
    return value > best or value != value


def _pool_rows_by_team(arguments: Any, units: int, threads: int) -> Any:
    return in_team(pool_rows, arguments, units, threads)


def _spread_rows_by_team(arguments: Any, units: int, threads: int) -> Any:
    return in_team(spread_rows, arguments, units, threads)


_beats, _keep_where = compiled(_beats_), compiled(_keep_)
_keep_largest = compiled(_largest_)
pool_rows, spread_rows = compiled(_pool_rows), compiled(_spread_rows)
BY_TEAM = {pool_rows: compiled(_pool_rows_by_team), spread_rows: compiled(_spread_rows_by_team)}
