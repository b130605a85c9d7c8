"""Fashion-MNIST: 70,000 gray images of 28 x 28 pixels in 10 classes of clothing.

Source: Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from batchmix.data.published import Arrays, Content, File, Form, Published
from batchmix.errors import DataError

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
"""Class names; the index is the label."""

_SIDE = 28
_PAD = 2  # zeros on each side, to 32 x 32


def decode_idx(files: Sequence[Content]) -> Arrays:
    """Read the four IDX files.

    Args:
        files: Training images, training labels, test images, test labels.

    Returns:
        Images (N, 32, 32, 3), padded with zeros and repeated to three channels, and labels.

    Raises:
        DataError: If a file is not an IDX file of bytes with the right shape.
    """
    train_y, test_y = _idx(files[1], ()), _idx(files[3], ())
    train_x, test_x = _idx(files[0], (_SIDE, _SIDE)), _idx(files[2], (_SIDE, _SIDE))
    if (len(train_x), len(test_x)) != (len(train_y), len(test_y)):
        raise DataError("there are not as many labels as images")
    return Arrays(_images(train_x), train_y.astype(np.int64), _images(test_x), test_y.astype(np.int64))


def _idx(content: Content, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    # The header: two zero bytes, 8 for unsigned bytes, the number of axes, then each length, big-endian.
    axes = 1 + len(shape)
    header = 4 + 4 * axes
    if len(content) < header or bytes(content[:4]) != bytes((0, 0, 8, axes)):
        raise DataError(f"this is no IDX file of bytes with {axes} axes")
    lengths = struct.unpack(f">{axes}I", content[4:header])
    if lengths[1:] != shape or len(content) - header != np.prod(lengths, dtype=object):
        raise DataError(f"the IDX file has shape {lengths} and {len(content):,} bytes")
    return np.frombuffer(content, np.uint8, offset=header).reshape(lengths)


def _images(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    images = np.zeros((len(gray), _SIDE + 2 * _PAD, _SIDE + 2 * _PAD, 3), np.uint8)
    images[:, _PAD:-_PAD, _PAD:-_PAD] = gray[..., None]
    return images


FASHION_MNIST = Published(
    "Fashion-MNIST",
    (
        Form(
            "IDX files",
            # SHA-256 of what the official .gz files hold. Those files have the MD5 checksums that the authors
            # publish (8d4fb7e6..., 25c81989..., bef4ecab..., bb300cfd...); a repacked one, such as Debian's,
            # has another checksum and the same contents.
            (
                File(
                    "train-images-idx3-ubyte",
                    "sha256:c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                    47_040_016,
                ),
                File(
                    "train-labels-idx1-ubyte",
                    "sha256:bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                    60_008,
                ),
                File(
                    "t10k-images-idx3-ubyte",
                    "sha256:5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                    7_840_016,
                ),
                File(
                    "t10k-labels-idx1-ubyte",
                    "sha256:0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                    10_008,
                ),
            ),
            None,
            # The folder itself, torchvision's layout, the authors' repository, Debian's package.
            ("", "FashionMNIST/raw", "data/fashion", "/usr/share/datasets/fashion-mnist"),
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            decode_idx,
        ),
    ),
    "fashion-mnist.bin",
)
"""The official data set. Its site speaks no https; the checksums vouch for what it sends."""
