"""A folder of images, decoded once and kept."""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from batchmix.data.cache import cache_dir, prepare_folder
from batchmix.data.decoding import decode_square, each
from batchmix.data.listing import Listing, list_images
from batchmix.data.published import Arrays
from batchmix.data.report import Report
from batchmix.errors import DataError, why
from batchmix.files import write_whole

_DECODER = 2  # raised where an image comes out otherwise, so that older caches are made anew
_HEADER = 36  # bytes: a SHA-256 that says of which files, and a CRC-32 of the pixels
_NAMED = 5  # broken images in a message


def load_folder(folder: Path, size: int, report: Report) -> tuple[Arrays, tuple[str, ...]]:
    """Load a folder of images, from the cache where nothing has changed since they were decoded.

    Args:
        folder: In the layout of ``list_images``.
        size: Side of the square that each image becomes, in pixels.
        report: Shows the progress.

    Returns:
        Images (N, size, size, 3) with their labels, and the names of the classes.

    Raises:
        DataError: If the folder is not of that layout, if an image is broken (the first five are named), or
            if there is not enough memory.
    """
    listing = list_images(folder)
    cache = cache_path(folder, size)
    mark = _fingerprint(listing, size)
    entries = listing.train + listing.test
    shape = (len(entries), size, size, 3)
    try:
        pixels = _read(cache, mark, shape)
        if pixels is None:
            pixels = _decode(listing, shape, report)
            _keep(cache, mark, pixels, report)
    except MemoryError as error:
        raise DataError(f"no memory for {math.prod(shape):,} bytes: take a smaller size") from error
    labels = np.array([entry.label for entry in entries], np.int64)
    split = len(listing.train)
    return Arrays(pixels[:split], labels[:split], pixels[split:], labels[split:]), listing.classes


def cache_path(folder: Path, size: int) -> Path:
    """Where the decoded images of a folder are kept: one file for each folder and size.

    Args:
        folder: The folder of images.
        size: Side of the squares in pixels.

    Returns:
        A file in the cache folder, which need not exist.
    """
    place = folder.resolve()
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", place.name)[:40]
    code = hashlib.sha256(str(place).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return cache_dir() / f"images-{name}-{size}-{code}.bin"


def _fingerprint(listing: Listing, size: int) -> bytes:
    entries = [(entry.name, entry.size, entry.mtime_ns) for entry in listing.train + listing.test]
    told = repr((_DECODER, str(listing.folder.resolve()), size, entries))
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).digest()


def _read(cache: Path, mark: bytes, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    try:
        with cache.open("rb") as file:
            header = file.read(_HEADER)
            if header[:32] != mark:
                return None
            pixels = np.fromfile(file, np.uint8)
    except OSError:  # there is none, or it cannot be read
        return None
    # A power failure can leave a file of the right size that holds zeros.
    if pixels.size != math.prod(shape) or header[32:] != _crc(pixels):
        return None
    return pixels.reshape(shape)


def _crc(pixels: NDArray[np.uint8]) -> bytes:
    return zlib.crc32(pixels.data).to_bytes(4, "big")


def _keep(cache: Path, mark: bytes, pixels: NDArray[np.uint8], report: Report) -> None:
    try:
        prepare_folder(cache.parent, _HEADER + pixels.nbytes)
        write_whole(cache, (mark, _crc(pixels), pixels.data), _HEADER + pixels.nbytes)
    except DataError as error:
        report.line(f"the decoded images are not kept: {error}")


def _decode(listing: Listing, shape: tuple[int, ...], report: Report) -> NDArray[np.uint8]:
    entries = listing.train + listing.test
    pixels = np.empty(shape, np.uint8)
    broken: dict[int, str] = {}

    def decode(index: int) -> None:
        try:
            pixels[index] = decode_square(listing.folder / entries[index].name, shape[1])
        except MemoryError:
            raise
        except Exception as error:  # damaged images raise nearly anything
            broken[index] = why(error)

    title = f"decoding {len(entries):,} images"
    with report.bar(title, sum(entry.size for entry in entries)) as advance:
        for index in each(len(entries), decode):
            advance(entries[index].size)
    if broken:
        raise DataError(_broken_line(listing, broken))
    return pixels


def _broken_line(listing: Listing, broken: dict[int, str]) -> str:
    entries = listing.train + listing.test
    named = [f"{entries[index].name} ({broken[index]})" for index in sorted(broken)[:_NAMED]]
    more = f" and {len(broken) - _NAMED:,} more" if len(broken) > _NAMED else ""
    images = "1 image" if len(broken) == 1 else f"{len(broken):,} images"
    return f"{images} of {listing.folder} cannot be decoded: {', '.join(named)}{more}"
