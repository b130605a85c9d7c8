from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_up import Small
from PIL import Image

from batchmix.data import CIFAR10_CLASSES, ImageSet, image_sets, load_images
from batchmix.data.cifar10 import split
from batchmix.data.image_sets import _PUBLISHED
from batchmix.data.published import Arrays
from batchmix.errors import DataError, MixError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for kind in ("b", "a"):
        for number in range(5):
            path = tmp_path / "images" / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 7), (number, 0, 0)).save(path)
    return tmp_path / "images"


def _shapes(data: ImageSet) -> list[tuple[int, ...]]:
    return [array.shape for array in (data.train_x, data.train_y, data.test_x, data.test_y)]


@pytest.mark.parametrize(("size", "side"), [(None, 32), (12, 12)])
def test_a_folder(size: int | None, side: int, folder: Path, cache: Path) -> None:
    data = load_images(f"folder:{folder}", size=size, progress=False)
    assert data.name == f"folder:{folder}"
    assert data.classes == ("a", "b")
    assert _shapes(data) == [(8, side, side, 3), (8,), (2, side, side, 3), (2,)]
    assert data.train_y.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_the_home_folder_is_known(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_images("folder:~/images", progress=False).classes == ("a", "b")


def test_cifar10_is_what_load_cifar10_gives(monkeypatch: pytest.MonkeyPatch, small: Small) -> None:
    plain = split(small.batches)
    monkeypatch.setattr(image_sets, "load_cifar10", lambda root, **options: plain)
    data = load_images("cifar10", progress=False)
    np.testing.assert_array_equal(data.train_x, plain.train_x)
    np.testing.assert_array_equal(data.train_y, plain.train_y)
    np.testing.assert_array_equal(data.test_x, plain.test_x)
    np.testing.assert_array_equal(data.test_y, plain.test_y)
    assert data.train_y.dtype == data.test_y.dtype == np.int64
    assert (data.name, data.classes) == ("cifar10", CIFAR10_CLASSES)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion-mnist"])
def test_published_sets_come_in_any_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    train_x = np.repeat(np.repeat(rng.integers(0, 256, (4, 16, 16, 3), np.uint8), 2, 1), 2, 2)
    given = Arrays(train_x, np.arange(4), train_x[:2], np.arange(2))
    asked: list[object] = []

    def load(*args: object) -> Arrays:
        asked.extend(args[:2])
        return given

    monkeypatch.setitem(_PUBLISHED, name, (load, _PUBLISHED[name][1]))
    plain = load_images(name, root="here", download=False)
    assert asked == ["here", False]
    assert plain.train_x is train_x
    half = load_images(name, size=16, download=False)
    assert _shapes(half) == [(4, 16, 16, 3), (4,), (2, 16, 16, 3), (2,)]
    want = np.asarray(Image.fromarray(train_x[3]).resize((16, 16)))
    np.testing.assert_array_equal(half.train_x[3], want)


def test_cifar100_that_is_nowhere(cache: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_images("cifar100", download=False)
    assert str(caught.value) == (
        f"CIFAR-100 is not to be had: {cache} holds none of cifar100.bin, cifar-100-binary, "
        "cifar-100-python, cifar-100-binary.tar.gz, cifar-100-python.tar.gz; download is off; by hand: put "
        f"cifar-100-binary.tar.gz (https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz) into {cache}"
    )


@pytest.mark.parametrize("name", ["mnist", "", "CIFAR10", 3, None, ["cifar10"]])
def test_a_name_that_is_unknown(name: object) -> None:
    with pytest.raises(MixError, match=r"^name takes cifar10, cifar100, fashion-mnist or folder:PATH, got "):
        load_images(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, -1, 1025, 32.0, True, "32", (32, 32)])
def test_a_size_that_is_none(size: object) -> None:
    with pytest.raises(MixError, match=r"^size takes a whole number of pixels from 1 to 1024, or None, got "):
        load_images("cifar10", size=size)  # type: ignore[arg-type]


@pytest.mark.parametrize("flag", ["download", "progress"])
def test_switches_take_true_or_false(flag: str) -> None:
    with pytest.raises(MixError, match=f"^{flag} takes True or False, got 1$"):
        load_images("cifar10", **{flag: 1})  # type: ignore[arg-type]


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in ("", tmp_path / "file", tmp_path / "gone"):
        with pytest.raises(MixError, match=r"^name takes folder:PATH with the path of an existing folder"):
            load_images(f"folder:{path}")


def test_a_folder_of_images_takes_no_root(folder: Path) -> None:
    with pytest.raises(MixError, match=r"^root takes None with folder:PATH"):
        load_images(f"folder:{folder}", root=folder)


def test_without_numpy_the_command_that_installs_it_is_named() -> None:
    code = "import sys, batchmix; sys.modules['numpy'] = None; import batchmix.data"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    said = "ModuleNotFoundError: this needs numpy: pip install 'batchmix[cli]'"
    assert ran.stderr.splitlines()[-1] == said
