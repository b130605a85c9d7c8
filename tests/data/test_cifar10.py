from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_up import Small

from batchmix.data import CIFAR10_CLASSES, load_cifar10
from batchmix.data.cifar10 import split
from batchmix.errors import DataError, MixError


def test_records_become_images(small: Small) -> None:
    data = split(small.batches)
    assert data.train_x.shape == (20, 32, 32, 3)
    assert data.test_x.shape == (4, 32, 32, 3)
    record = small.batches[2, 1]  # the tenth image, counted from 1
    row, column = 5, 7
    for channel in range(3):
        pixel = record[1 + channel * 1024 + row * 32 + column]
        assert data.train_x[9, row, column, channel] == pixel
    assert data.train_y[9] == record[0]
    assert data.test_y.tolist() == small.batches[5, :, 0].tolist()
    for array in (data.train_x, data.train_y, data.test_x, data.test_y):
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert not np.shares_memory(array, small.batches)


def test_the_made_up_set_is_not_cifar10(tmp_path: Path, small: Small) -> None:
    (tmp_path / "cifar10.bin").write_bytes(small.whole)
    with pytest.raises(DataError, match="73,752 bytes instead of 184,380,000"):
        load_cifar10(tmp_path, download=False)


@pytest.mark.parametrize("name", ["download", "progress"])
def test_switches_take_true_or_false(name: str) -> None:
    with pytest.raises(MixError, match=f"^{name} takes True or False, got 'no'$"):
        load_cifar10(**{name: "no"})  # type: ignore[arg-type]


def test_the_real_data() -> None:
    # From the user's cache where it is there, fetched once where it is not.
    data = load_cifar10(progress=False)
    assert data.train_x.shape == (50_000, 32, 32, 3)
    assert data.test_x.shape == (10_000, 32, 32, 3)
    assert {array.dtype for array in (data.train_x, data.train_y, data.test_x, data.test_y)} == {
        np.dtype(np.uint8)
    }
    assert np.bincount(data.train_y).tolist() == [5000] * len(CIFAR10_CLASSES)
    assert np.bincount(data.test_y).tolist() == [1000] * len(CIFAR10_CLASSES)
    # The channel means that every CIFAR-10 recipe normalises with.
    mean = data.train_x.mean(axis=(0, 1, 2)) / 255
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=5e-5)
    assert CIFAR10_CLASSES[data.train_y[0]] == "frog"
