from __future__ import annotations

import io

import numpy as np
import pytest
from made_up import RECORDS, Small, python2_pickle
from PIL import Image

from batchmix.data.encodings import decode_binary, decode_pickles, decode_pngs
from batchmix.errors import DataError


def test_the_three_encodings_agree(small: Small) -> None:
    for decode, files in [
        (decode_binary, small.binary()),
        (decode_pickles, small.pickles()),
        (decode_pngs, small.pngs()),
    ]:
        np.testing.assert_array_equal(decode(list(files.values()), RECORDS), small.batches)


def test_a_binary_batch_of_another_size(small: Small) -> None:
    files = list(small.binary().values())
    files[1] += b"x"
    with pytest.raises(DataError, match="batch 2 has 12293 bytes instead of 12292"):
        decode_binary(files, RECORDS)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1, 2], "batch 1 is not a dictionary with data and labels"),
        ({b"data": np.zeros((RECORDS, 3072), np.uint8)}, "batch 1 is not a dictionary with data and labels"),
        ({b"data": np.zeros((RECORDS, 3072), np.uint8), b"labels": [0, 1, 2]}, "labels of shape"),
        ({b"data": np.zeros((RECORDS, 3072), np.uint8), b"labels": [0, 1, 2, 256]}, "numbers from 0 to 255"),
        ({b"data": np.zeros((RECORDS, 3072), np.int64), b"labels": [0] * RECORDS}, "no uint8 array"),
        ({b"data": np.zeros((RECORDS, 3071), np.uint8), b"labels": [0] * RECORDS}, "no uint8 array"),
        ({b"data": b"bytes", b"labels": [0] * RECORDS}, "no uint8 array"),
    ],
)
def test_a_pickle_of_something_else(value: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        decode_pickles([python2_pickle(value)], RECORDS)


def _png(size: tuple[int, int], mode: str) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("png", "said"),
    [
        (_png((1024, RECORDS + 1), "RGB"), r"the image is \(1024, 5\) RGB"),
        (_png((1024, RECORDS), "L"), r"the image is \(1024, 4\) L"),
        (_png((1024, RECORDS), "RGB")[:60], "cannot be decoded"),
        (b"not a picture", "cannot be decoded"),
    ],
)
def test_a_png_of_something_else(png: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        decode_pngs([png, b"[0, 1, 2, 3]", b"[]"], RECORDS)


@pytest.mark.parametrize("labels", [b"[0, 1", b"7", b"\xff"])
def test_labels_that_are_no_lists(labels: bytes) -> None:
    with pytest.raises(DataError, match="not JSON lists"):
        decode_pngs([labels, b"[]"], RECORDS)
