"""CIFAR-100: 60,000 colour images of 32 x 32 pixels in 100 classes.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from batchmix.data.pickles import load_pickle
from batchmix.data.published import Arrays, Content, File, Form, Published
from batchmix.errors import DataError

_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard
lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear
pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal
shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
CIFAR100_CLASSES = tuple(_NAMES.split())
"""Names of the fine classes; the index is the label."""

_RECORD_BYTES = 3074  # coarse label, fine label, then 1024 red, 1024 green and 1024 blue bytes, row by row
_PIXELS = 3072


def decode_binary(files: Sequence[Content]) -> Arrays:
    """Read the official binary version.

    Args:
        files: Contents of ``train.bin`` and ``test.bin``.

    Returns:
        Images and fine labels.

    Raises:
        DataError: If a file is no whole number of records, or a label is not of 100 classes.
    """
    parts: list[NDArray[np.uint8] | NDArray[np.int64]] = []
    for file in files:
        if len(file) % _RECORD_BYTES:
            raise DataError(f"{len(file):,} bytes are no whole number of {_RECORD_BYTES}-byte records")
        records = np.frombuffer(file, np.uint8).reshape(-1, _RECORD_BYTES)
        parts += [_images(records[:, 2:]), _labels(records[:, 1])]
    return Arrays(*parts)  # type: ignore[arg-type]


def decode_pickles(files: Sequence[Content]) -> Arrays:
    """Read the official python version without running code that a pickle may carry.

    Args:
        files: Contents of ``train`` and ``test``.

    Returns:
        Images and fine labels.

    Raises:
        DataError: If a pickle is damaged, asks for more than NumPy arrays, or holds something else.
    """
    parts: list[NDArray[np.uint8] | NDArray[np.int64]] = []
    for file in files:
        content = load_pickle(bytes(file))
        if not isinstance(content, dict) or not {b"data", b"fine_labels"} <= content.keys():
            raise DataError("the pickle is not a dictionary with data and fine_labels")
        data, labels = content[b"data"], _labels(content[b"fine_labels"])
        want = (len(labels), _PIXELS)
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != want:
            raise DataError(f"the pickle has no uint8 array of shape {want}")
        parts += [_images(data), labels]
    return Arrays(*parts)  # type: ignore[arg-type]


def _images(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _labels(values: object) -> NDArray[np.int64]:
    try:
        labels = np.array(values, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError("the labels are not numbers") from error
    if labels.ndim != 1 or (labels.size and not 0 <= labels.min() <= labels.max() < len(CIFAR100_CLASSES)):
        raise DataError("the labels are not numbers from 0 to 99")
    return labels


BINARY = Form(
    "official binary version",
    # The site gives checksums of its archives alone; these are the ones that MXNet expects of the files.
    (
        File("train.bin", "sha1:e207cd2e05b73b1393c74c7f5e7bea451d63e08e", 50_000 * _RECORD_BYTES),
        File("test.bin", "sha1:8fb6623e830365ff53cf14adec797474f5478006", 10_000 * _RECORD_BYTES),
    ),
    "cifar-100-binary.tar.gz",
    ("", "cifar-100-binary"),
    "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    decode_binary,
)
PYTHON = Form(
    "official python version",
    (
        File("train", "md5:16019d7e3df5f24257cddd939b257f8d"),
        File("test", "md5:f0ef6b0ae62326f3e7ffdfab6717acfc"),
    ),
    "cifar-100-python.tar.gz",
    ("", "cifar-100-python"),
    "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    decode_pickles,
)
CIFAR100 = Published("CIFAR-100", (BINARY, PYTHON), "cifar100.bin")
"""The official data set."""
