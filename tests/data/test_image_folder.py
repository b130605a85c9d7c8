from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from batchmix.data import image_folder
from batchmix.data.decoding import decode_square
from batchmix.data.image_folder import cache_path, load_folder
from batchmix.data.report import Report
from batchmix.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six cats and six dogs, each of a colour of its own."""
    root = tmp_path / "pets"
    for label, kind in enumerate(("cat", "dog")):
        (root / kind).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (40, 30), (label * 100, number * 20, 7)).save(root / kind / f"{number}.png")
    return root


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are decoded, as they are."""
    names: list[str] = []

    def counted(path: Path, size: int) -> np.ndarray:
        names.append(path.name)
        return decode_square(path, size)

    monkeypatch.setattr(image_folder, "decode_square", counted)
    return names


def test_images_and_labels_belong_together(folder: Path, cache: Path, quiet: Report) -> None:
    arrays, classes = load_folder(folder, 16, quiet)
    assert classes == ("cat", "dog")
    assert arrays.train_x.shape == (10, 16, 16, 3)
    assert arrays.test_x.shape == (2, 16, 16, 3)
    colours = set()
    for images, labels in ((arrays.train_x, arrays.train_y), (arrays.test_x, arrays.test_y)):
        assert labels.dtype == np.int64
        for image, label in zip(images, labels, strict=True):
            assert (image == image[0, 0]).all()
            assert image[0, 0, 0] == label * 100
            colours.add((int(label), int(image[0, 0, 1]) // 20))
    assert len(colours) == 12  # each image once


def test_what_is_decoded_is_kept(folder: Path, cache: Path, quiet: Report, decoded: list[str]) -> None:
    first, _ = load_folder(folder, 16, quiet)
    assert len(decoded) == 12
    second, _ = load_folder(folder, 16, quiet)
    assert len(decoded) == 12
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
        assert other.flags.writeable
    assert list(cache.iterdir()) == [cache_path(folder, 16)]
    assert cache_path(folder, 16).stat().st_size == 36 + 12 * 16 * 16 * 3


@pytest.mark.parametrize("change", ["touched", "altered", "renamed", "added", "removed", "another size"])
def test_a_change_renews_the_cache(
    change: str, folder: Path, cache: Path, quiet: Report, decoded: list[str]
) -> None:
    load_folder(folder, 16, quiet)
    image, size = folder / "cat" / "3.png", 16
    status = image.stat()
    if change == "touched":
        os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    elif change == "altered":  # with the time of the old one
        Image.new("RGB", (64, 64), (1, 2, 3)).save(image)
        os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "renamed":
        image.rename(folder / "cat" / "9.png")
    elif change == "added":
        Image.new("RGB", (4, 4)).save(folder / "dog" / "9.png")
    elif change == "removed":
        image.unlink()
    else:
        size = 8
    decoded.clear()
    arrays, _ = load_folder(folder, size, quiet)
    assert len(decoded) == len(arrays.train_y) + len(arrays.test_y) > 0
    # One file for each folder and size: what is out of date does not pile up.
    assert len(list(cache.iterdir())) == (2 if change == "another size" else 1)


@pytest.mark.parametrize("damage", ["truncated", "zeros", "altered", "empty"])
def test_a_damaged_cache_is_made_anew(
    damage: str, folder: Path, cache: Path, quiet: Report, decoded: list[str]
) -> None:
    want, _ = load_folder(folder, 16, quiet)
    path = cache_path(folder, 16)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "truncated": whole[:-1],
            "zeros": whole[:36] + bytes(len(whole) - 36),
            "altered": whole[:-1] + bytes([whole[-1] ^ 1]),
            "empty": b"",
        }[damage]
    )
    decoded.clear()
    got, _ = load_folder(folder, 16, quiet)
    assert len(decoded) == 12
    np.testing.assert_array_equal(got.train_x, want.train_x)
    assert path.read_bytes() == whole


def test_folders_of_one_name_do_not_share(folder: Path, tmp_path: Path, cache: Path, quiet: Report) -> None:
    other = tmp_path / "other" / "pets"
    other.mkdir(parents=True)
    assert cache_path(folder, 16) != cache_path(other, 16)
    (tmp_path / "link").symlink_to(folder)
    assert cache_path(tmp_path / "link", 16) == cache_path(folder, 16)


@pytest.mark.parametrize(("count", "more"), [(1, ""), (5, ""), (7, " and 2 more")])
def test_broken_images_are_named(count: int, more: str, folder: Path, cache: Path, quiet: Report) -> None:
    broken = sorted(folder.rglob("*.png"))[:count]
    for path in broken:
        path.write_bytes(path.read_bytes()[:40])
    broken[0].write_bytes(b"no image at all")
    with pytest.raises(DataError) as caught:
        load_folder(folder, 16, quiet)
    (line,) = str(caught.value).splitlines()
    images = "1 image" if count == 1 else f"{count} images"
    assert line.startswith(f"{images} of {folder} cannot be decoded: ")
    # Those to train on come first, so that not all of the first five are named.
    named = [path for path in broken if f"{path.parent.name}/{path.name} (" in line]
    assert len(named) == min(count, 5)
    assert line.endswith(f"){more}")
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_no_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BATCHMIX_DATA", str(tmp_path / "file" / "cache"))
    arrays, _ = load_folder(folder, 16, Report(progress=False))
    assert len(arrays.train_y) == 10
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("batchmix: the decoded images are not kept: cannot write ")


def test_too_little_memory_is_said(
    folder: Path, cache: Path, quiet: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise MemoryError

    monkeypatch.setattr(image_folder, "decode_square", full)
    with pytest.raises(DataError, match=r"^no memory for 9,216 bytes: take a smaller size$"):
        load_folder(folder, 16, quiet)
