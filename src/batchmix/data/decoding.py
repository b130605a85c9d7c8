"""Images of any kind and size, decoded as squares of one size."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batchmix.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

_CHUNK = 64  # images for one task of a thread

# What turns an image upright, by the EXIF orientation of the file.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def decode_square(path: Path, size: int) -> NDArray[np.uint8]:
    """Decode the middle square of an image, at the size asked for.

    The shorter side becomes ``size``, and the middle of the longer one is taken. JPEG is decoded at a half,
    a quarter or an eighth where that still has twice the size needed. EXIF orientation is honoured, an
    animation gives its first frame, and transparency is dropped, as torchvision's ImageFolder does.

    Of 16 bits a sample the upper 8 are kept. Where they hold a sensor's 10 or 12 bits the image comes out
    dark, as nothing in the file tells it from a dark one: scale such values before they are saved.

    Args:
        path: An image file.
        size: Side of the square in pixels.

    Returns:
        (size, size, 3) uint8, RGB.

    Raises:
        Exception: Nearly any, as Pillow and the formats' libraries raise it, if the image cannot be decoded.
    """
    from PIL import Image

    with Image.open(path) as image:
        # At twice the size, as Pillow's thumbnail() does: JPEG's coarse scaling is then hardly seen.
        drafted = image.draft(None, (2 * size, 2 * size))
        # Where the sides are no multiples of the scale, the last row and column hold less than a whole pixel.
        extent = image.size if drafted is None else drafted[1][2:]
        square = to_square(_as_rgb(image), size, extent)
        # Turned last, as the square is small and its middle stays the middle.
        return np.asarray(_turned(square, image))


def decode_crop(
    path: Path, size: int, box_of: Callable[[int, int], tuple[float, float, float, float]]
) -> NDArray[np.uint8]:
    """Decode a part of an image, at the size asked for.

    JPEG is decoded at a half, a quarter or an eighth where the part then still has the size needed.

    Args:
        path: An image file.
        size: Side of the result in pixels.
        box_of: From the image's width and height to left, top, right and bottom of the part, in pixels of
            the image as it is stored.

    Returns:
        (size, size, 3) uint8, RGB, turned as the file's EXIF orientation says.

    Raises:
        Exception: As ``decode_square``.
    """
    from PIL import Image

    with Image.open(path) as image:
        width, height = image.size
        left, top, right, bottom = box_of(width, height)
        across, down = size / (right - left), size / (bottom - top)
        image.draft(None, (max(1, math.ceil(width * across)), max(1, math.ceil(height * down))))
        x, y = image.size[0] / width, image.size[1] / height
        box = (left * x, top * y, min(right * x, image.size[0]), min(bottom * y, image.size[1]))
        square = _as_rgb(image).resize((size, size), Image.Resampling.BILINEAR, box=box)
        return np.asarray(_turned(square, image))


def to_square(image: Image.Image, size: int, extent: tuple[float, float] | None = None) -> Image.Image:
    """Resize the middle square of an image.

    Args:
        image: Of any size.
        size: Side of the result in pixels.
        extent: Width and height of what is in the image, from the upper left; None for all of it.

    Returns:
        (size, size), of the same mode.
    """
    from PIL import Image

    width, height = extent or image.size
    short = min(width, height)
    left, top = (width - short) / 2, (height - short) / 2
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short))


def _turned(square: Image.Image, image: Image.Image) -> Image.Image:
    """A square turned as the EXIF orientation of its image says; as it is where that cannot be read."""
    from PIL import ExifTags, Image

    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except MemoryError:
        raise
    except Exception:  # of damaged EXIF, on which Pillow raises nearly anything, though the pixels are whole
        return square
    turn = _TURNS.get(orientation)
    return square if turn is None else square.transpose(Image.Transpose[turn])


def _as_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("F"):  # in [0, 1], in [0, 255] or of a sensor: nothing in the file says which
        raise DataError("its pixels are floating-point numbers: save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip
        values = np.asarray(image)
        # The 32 bits of a TIFF hold values of 8 bits or of 16, and only the values say which.
        small = image.mode == "I" and image.format == "TIFF" and values.max() <= 255
        high = np.clip(values if small else values >> 8, 0, 255).astype(np.uint8)
        return Image.fromarray(high).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:  # else Pillow warns of what gets lost
        image = image.convert("RGBA")
    return image.convert("RGB")


def each(count: int, work: Callable[[int], None]) -> Iterator[int]:
    """Do a piece of work for each of many numbers, in as many threads as there are cores for this process.

    Threads serve, as Pillow holds no interpreter lock while it decodes and resizes.

    Args:
        count: ``work`` is called with 0 to ``count - 1``.
        work: What is done for a number; the order is arbitrary.

    Yields:
        The numbers done, in order.
    """

    def chunk(start: int) -> range:
        numbers = range(start, min(start + _CHUNK, count))
        for number in numbers:
            work(number)
        return numbers

    pool = ThreadPoolExecutor(cores())
    try:
        for numbers in pool.map(chunk, range(0, count, _CHUNK)):
            yield from numbers
    finally:
        pool.shutdown(cancel_futures=True)  # else Ctrl-C waits for all that is left


def resize_all(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize square images.

    Args:
        images: (N, H, H, 3).
        size: The new side in pixels.

    Returns:
        (N, size, size, 3); the images themselves where they have that size.
    """
    if images.shape[1] == size:
        return images
    from PIL import Image

    resized = np.empty((len(images), size, size, 3), np.uint8)

    def resize(index: int) -> None:
        resized[index] = np.asarray(to_square(Image.fromarray(images[index]), size))

    for _ in each(len(images), resize):
        pass
    return resized


def cores() -> int:
    """How many there are for this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
