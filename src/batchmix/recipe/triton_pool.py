"""2x2 max pooling for Triton to compile. Nothing here is called as Python; ``gpu_pool`` prepares arguments.

Images lie channels last. A program takes ``block`` values of the pooled images and reaches the four values of
each in the images, all in 32 bits.
"""

from __future__ import annotations

import triton
import triton.language as tl


def _place_of(
    index: tl.tensor, height: tl.constexpr, width: tl.constexpr, channels: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Image, row, column and channel of a value by its index."""
    pixel = index // channels
    line = pixel // width
    return line // height, line % height, pixel % width, index % channels


def _larger(
    best: tl.tensor, at: tl.tensor, value: tl.tensor, here: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """The larger value and its place: the first of equal ones, and whatever is not a number."""
    takes = (value > best) | (value != value)
    return tl.where(takes, value, best), tl.where(takes, here, at)


place_of, larger = triton.jit(_place_of), triton.jit(_larger)


def _pool(
    x: tl.tensor, out: tl.tensor, place: tl.tensor, count: tl.tensor,
    height: tl.constexpr, width: tl.constexpr, channels: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """``out``, the largest of each four values of ``x``, and ``place``, which of the four it is."""
    index = tl.program_id(0) * block + tl.arange(0, block)
    inside = index < count
    image, row, column, channel = place_of(index, height // 2, width // 2, channels)
    first = x + ((image * height + 2 * row) * width + 2 * column) * channels + channel
    best = tl.load(first, mask=inside).to(tl.float32)
    at = tl.zeros_like(index)
    best, at = larger(best, at, tl.load(first + channels, mask=inside).to(tl.float32), 1)
    best, at = larger(best, at, tl.load(first + width * channels, mask=inside).to(tl.float32), 2)
    best, at = larger(best, at, tl.load(first + (width + 1) * channels, mask=inside).to(tl.float32), 3)
    tl.store(out + index, best.to(out.dtype.element_ty), mask=inside)
    tl.store(place + index, at.to(tl.uint8), mask=inside)


def _spread(
    above: tl.tensor, place: tl.tensor, result: tl.tensor, count: tl.tensor,
    height: tl.constexpr, width: tl.constexpr, channels: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """``result``, the gradient of the images: that of the pooled ones at its place, zeros elsewhere.

    A last row or column that no pooling sees belongs to programs of its own.
    """
    rows: tl.constexpr = height // 2
    columns: tl.constexpr = width // 2
    index = tl.program_id(0) * block + tl.arange(0, block)
    image, row, column, channel = place_of(index, (height + 1) // 2, (width + 1) // 2, channels)
    inside = index < count
    seen = inside & (row < rows) & (column < columns)
    pooled = ((image * rows + row) * columns + column) * channels + channel
    value = tl.load(above + pooled, mask=seen, other=0.0)
    at = tl.load(place + pooled, mask=seen, other=4).to(tl.int32)
    zero = tl.zeros_like(value)
    first = result + ((image * height + 2 * row) * width + 2 * column) * channels + channel
    right, below = 2 * column + 1 < width, 2 * row + 1 < height
    tl.store(first, tl.where(at == 0, value, zero), mask=inside)
    tl.store(first + channels, tl.where(at == 1, value, zero), mask=inside & right)
    tl.store(first + width * channels, tl.where(at == 2, value, zero), mask=inside & below)
    tl.store(first + (width + 1) * channels, tl.where(at == 3, value, zero), mask=inside & right & below)


pool_kernel, spread_kernel = triton.jit(_pool), triton.jit(_spread)
