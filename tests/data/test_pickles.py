from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from made_up import Small, put, python2_pickle

from batchmix.data.obtain import obtain
from batchmix.data.pickles import load_pickle
from batchmix.data.report import Report
from batchmix.errors import DataError


class _Touch:
    """Unpickled without care it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_python_2_pickle_comes_back() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    content = python2_pickle({b"data": array, b"labels": [1, 2], b"batch_label": b"x"})
    assert b"cnumpy.core.multiarray\n" in content
    assert b"_codecs" not in content
    got = load_pickle(content)
    assert isinstance(got, dict)
    np.testing.assert_array_equal(got[b"data"], array)
    assert got[b"labels"] == [1, 2]
    assert got[b"batch_label"] == b"x"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_pickle_is_refused_and_does_not_run(protocol: int, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    content = pickle.dumps({b"data": _Touch(canary)}, protocol)
    with pytest.raises(DataError, match=r"the pickle asks for .*; only NumPy arrays are read"):
        load_pickle(content)
    assert not canary.exists()
    pickle.loads(content)  # the pickle does what it is feared for
    assert canary.exists()


def test_code_in_a_batch_is_refused_by_the_loader(small: Small, quiet: Report, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    files = {**small.pickles(), "data_batch_3": pickle.dumps(_Touch(canary))}
    put(tmp_path / "root", files)
    with pytest.raises(DataError, match="the pickle asks for"):
        obtain(small.layout, tmp_path / "root", download=False, report=quiet)
    assert not canary.exists()


@pytest.mark.parametrize("cut", [0, 1, 50, 200, -1])
def test_a_cut_pickle(cut: int) -> None:
    content = python2_pickle({b"data": np.zeros((4, 3072), np.uint8)})
    with pytest.raises(DataError, match="the pickle is damaged"):
        load_pickle(content[:cut])
