"""Image sets by name, all in the same shape: what a study compares on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from batchmix.data.cifar10 import CIFAR10_CLASSES, load_cifar10
from batchmix.data.cifar100 import CIFAR100, CIFAR100_CLASSES
from batchmix.data.decoding import resize_all
from batchmix.data.fashion_mnist import FASHION_MNIST, FASHION_MNIST_CLASSES
from batchmix.data.image_folder import load_folder
from batchmix.data.listing import list_images
from batchmix.data.locate import locate
from batchmix.data.published import Arrays
from batchmix.data.report import Report
from batchmix.errors import MixError
from batchmix.files import expanded

DEFAULT_SIZE = 32
_LARGEST_SIZE = 1024
_FOLDER = "folder:"


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images and labels in memory, of one size.

    Attributes:
        name: What ``load_images`` was asked for.
        train_x: Training images, (N, H, W, 3) uint8: height, width, RGB.
        train_y: Training labels, (N,) int64, indices into ``classes``.
        test_x: Test images, (M, H, W, 3) uint8.
        test_y: Test labels, (M,) int64.
        classes: Class names; the index is the label.
    """

    name: str
    train_x: NDArray[np.uint8]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.uint8]
    test_y: NDArray[np.int64]
    classes: tuple[str, ...]


def load_images(
    name: str,
    *,
    size: int | None = None,
    root: Path | str | None = None,
    download: bool = True,
    progress: bool = True,
) -> ImageSet:
    """Load an image set by name.

    - ``"cifar10"``: as ``load_cifar10`` finds it.
    - ``"cifar100"``: the official binary or python version, files or archive, with the fine labels.
    - ``"fashion-mnist"``: the IDX files, gzipped or not, in the folder, in torchvision's
      ``FashionMNIST/raw``, or where Debian's package ``dataset-fashion-mnist`` puts them. The 28 x 28
      pixels are padded with zeros to 32 x 32, and gray is repeated to three channels.
    - ``"folder:PATH"``: ``train/CLASS/IMAGE`` with ``test`` (or, where there is none, ``val``, ``valid`` or
      ``validation``), or ``CLASS/IMAGE``, of which a fifth is to test with, chosen by the names alone. The
      shorter side of each image becomes ``size``, and its middle is taken. Of 16 bits a sample the upper 8
      are kept: values of 10 or 12 bits in them come out dark. Decoded once: the squares are kept in the cache
      folder until an image changes.

    The published sets are fetched from their official sites where they are on no disk, kept, and checked
    in every case.

    Args:
        name: Which set.
        size: Height and width in pixels, 1 to 1024. None: 32.
        root: The folder that has a published set or is to keep it. None: the cache folder
            (``$BATCHMIX_DATA``, else ``$XDG_CACHE_HOME/batchmix``, else ``~/.cache/batchmix``).
        download: Whether a missing set may be fetched.
        progress: Whether bars are shown; they are off in any case where standard error is no terminal.

    Returns:
        The images, in arrays that may be written to.

    Raises:
        DataError: If the set is not to be had, an image is broken, or there is no room for it.
        MixError: If an argument is not what it takes.
    """
    for argument, flag in (("download", download), ("progress", progress)):
        if not isinstance(flag, bool):
            raise MixError.of(argument, flag, "True or False")
    side = _side(size)
    report = Report(progress)
    if isinstance(name, str) and name.startswith(_FOLDER):
        arrays, classes = load_folder(_folder(name, root), side, report)
        return ImageSet(name, *arrays, classes)
    if not isinstance(name, str) or name not in _PUBLISHED:
        raise MixError.of("name", name, f"{', '.join(_PUBLISHED)} or {_FOLDER}PATH")
    load, classes = _PUBLISHED[name]
    arrays = load(root, download, report)
    resized = arrays._replace(
        train_x=resize_all(arrays.train_x, side), test_x=resize_all(arrays.test_x, side)
    )
    return ImageSet(name, *resized, classes)


def digest(name: str) -> str | None:
    """A hash of which images a set has; None for a published one, which is the same for everybody.

    Args:
        name: As for ``load_images``.

    Raises:
        DataError: If a folder is not of the layout of ``list_images``.
        MixError: If there is no such folder.
    """
    return list_images(_folder(name, None)).digest if name.startswith(_FOLDER) else None


def _side(size: int | None) -> int:
    if size is None:
        return DEFAULT_SIZE
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= _LARGEST_SIZE:
        raise MixError.of("size", size, f"a whole number of pixels from 1 to {_LARGEST_SIZE}, or None")
    return size


def _folder(name: str, root: Path | str | None) -> Path:
    if root is not None:
        raise MixError.of("root", str(root), f"None with {_FOLDER}PATH, which says itself where it is")
    path = name.removeprefix(_FOLDER)
    folder = expanded(path)
    if not path or not folder.is_dir():
        raise MixError.of("name", name, f"{_FOLDER}PATH with the path of an existing folder")
    return folder


def _cifar10(root: Path | str | None, download: bool, report: Report) -> Arrays:
    data = load_cifar10(root, download=download, progress=report.progress)
    return Arrays(data.train_x, data.train_y.astype(np.int64), data.test_x, data.test_y.astype(np.int64))


def _cifar100(root: Path | str | None, download: bool, report: Report) -> Arrays:
    return locate(CIFAR100, root, download=download, report=report)


def _fashion_mnist(root: Path | str | None, download: bool, report: Report) -> Arrays:
    return locate(FASHION_MNIST, root, download=download, report=report)


_Loader = Callable[[Path | str | None, bool, Report], Arrays]
_PUBLISHED: dict[str, tuple[_Loader, tuple[str, ...]]] = {
    "cifar10": (_cifar10, CIFAR10_CLASSES),
    "cifar100": (_cifar100, CIFAR100_CLASSES),
    "fashion-mnist": (_fashion_mnist, FASHION_MNIST_CLASSES),
}
