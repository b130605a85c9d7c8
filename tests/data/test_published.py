"""CIFAR-100 and Fashion-MNIST: made-up sets in every published form, the real one where it is."""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from made_up import put, python2_pickle, tar_gz
from numpy.typing import NDArray

from batchmix.data.cifar100 import CIFAR100, CIFAR100_CLASSES, decode_pickles
from batchmix.data.cifar100 import decode_binary as decode_cifar100
from batchmix.data.fashion_mnist import FASHION_MNIST, decode_idx
from batchmix.data.locate import locate
from batchmix.data.published import Arrays, File, Form, Published
from batchmix.data.report import Report
from batchmix.errors import DataError, MixError

TRAIN, TEST = 7, 3
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
NOWHERE = "http://127.0.0.1:9/"


@dataclass
class Made:
    """A made-up set: what is looked for, the files of each form, and the images and labels in them."""

    data: Published
    files: dict[str, dict[str, bytes]]
    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def check(self, got: Arrays) -> None:
        np.testing.assert_array_equal(np.concatenate([got.train_x, got.test_x]), self.images)
        np.testing.assert_array_equal(np.concatenate([got.train_y, got.test_y]), self.labels)
        assert len(got.train_x) == len(got.train_y) == TRAIN
        assert got.train_y.dtype == got.test_y.dtype == np.int64
        assert got.train_x.flags.c_contiguous
        assert all(array.flags.writeable for array in got)


def _expecting(form: Form, files: Mapping[str, bytes]) -> Form:
    told = (File(n, f"sha256:{hashlib.sha256(c).hexdigest()}", len(c)) for n, c in files.items())
    return replace(form, files=tuple(told), url=f"{NOWHERE}{form.archive or ''}")


@pytest.fixture
def cifar100() -> Made:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (TRAIN + TEST, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 100, TRAIN + TEST).astype(np.uint8)
    binary, pickles = {}, {}
    for name, part in (("train", slice(0, TRAIN)), ("test", slice(TRAIN, None))):
        rows, fine = [], [int(label) for label in labels[part]]
        for image, label in zip(images[part], fine, strict=True):
            planes = [int(value) for channel in range(3) for value in image[:, :, channel].ravel()]
            rows.append(bytes([label // 5, label, *planes]))
        binary[f"{name}.bin"] = b"".join(rows)
        table = np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 3074)
        coarse = [label // 5 for label in fine]
        pickles[name] = python2_pickle(
            {b"data": table[:, 2:].copy(), b"fine_labels": fine, b"coarse_labels": coarse}
        )
    forms = (_expecting(CIFAR100.forms[0], binary), _expecting(CIFAR100.forms[1], pickles))
    return Made(replace(CIFAR100, forms=forms), {"binary": binary, "python": pickles}, images, labels)


@pytest.fixture
def fashion() -> Made:
    rng = np.random.default_rng(2)
    gray = rng.integers(1, 256, (TRAIN + TEST, 28, 28), np.uint8)
    labels = rng.integers(0, 10, TRAIN + TEST).astype(np.uint8)
    images = np.stack([np.pad(gray, ((0, 0), (2, 2), (2, 2)))] * 3, axis=-1)
    files = {}
    for name, part in (("train", slice(0, TRAIN)), ("t10k", slice(TRAIN, None))):
        own = gray[part]
        header = struct.pack(">IIII", 0x803, len(own), 28, 28)
        files[f"{name}-images-idx3-ubyte"] = header + own.tobytes()
        files[f"{name}-labels-idx1-ubyte"] = struct.pack(">II", 0x801, len(own)) + labels[part].tobytes()
    form = replace(_expecting(FASHION_MNIST.forms[0], files), folders=("", "FashionMNIST/raw"))
    return Made(replace(FASHION_MNIST, forms=(form,)), {"idx": files}, images, labels)


def _zipped(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.gz": gzip.compress(content) for name, content in files.items()}


def _archive(files: Mapping[str, bytes], folder: str) -> bytes:
    return tar_gz({f"{folder}/{name}": content for name, content in files.items()})


def _put_cifar100(form: str, made: Made, root: Path) -> None:
    binary, pickles = made.files["binary"], made.files["python"]
    places: dict[str, tuple[str, dict[str, bytes]]] = {
        "cache": ("", {"cifar100.bin": binary["train.bin"] + binary["test.bin"]}),
        "binary": ("", binary),
        "binary subfolder": ("cifar-100-binary", binary),
        "binary archive": ("", {"cifar-100-binary.tar.gz": _archive(binary, "cifar-100-binary")}),
        "python": ("", pickles),
        "python subfolder": ("cifar-100-python", pickles),
        "python archive": ("", {"cifar-100-python.tar.gz": _archive(pickles, "cifar-100-python")}),
    }
    below, files = places[form]
    put(root / below, files)


CIFAR100_FORMS = [
    "cache",
    "binary",
    "binary subfolder",
    "binary archive",
    "python",
    "python subfolder",
    "python archive",
]


@pytest.mark.parametrize("form", CIFAR100_FORMS)
def test_every_form_of_cifar100_gives_the_same_images(
    form: str, cifar100: Made, quiet: Report, tmp_path: Path
) -> None:
    _put_cifar100(form, cifar100, tmp_path / "root")
    before = sorted((tmp_path / "root").rglob("*"))
    cifar100.check(locate(cifar100.data, tmp_path / "root", download=False, report=quiet))
    assert sorted((tmp_path / "root").rglob("*")) == before


@pytest.mark.parametrize("form", CIFAR100_FORMS)
def test_every_form_of_cifar100_is_checked(
    form: str, cifar100: Made, quiet: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {
        kind: {
            name: content[:-50] + bytes([content[-50] ^ 1]) + content[-49:] for name, content in files.items()
        }
        for kind, files in cifar100.files.items()
    }
    _put_cifar100(form, replace(cifar100, files=wrong), tmp_path)
    with pytest.raises(DataError, match=r"train(\.bin)? differs from the official one") as caught:
        locate(cifar100.data, tmp_path, download=False, report=quiet)
    assert len(str(caught.value).splitlines()) == 1
    assert capsys.readouterr().err.startswith(f"batchmix: refused {tmp_path}")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"])
def test_every_place_of_fashion_mnist_gives_the_same_images(
    below: str, zipped: bool, fashion: Made, quiet: Report, tmp_path: Path
) -> None:
    files = fashion.files["idx"]
    put(tmp_path / below, _zipped(files) if zipped else files)
    fashion.check(locate(fashion.data, tmp_path, download=False, report=quiet))


def test_the_cache_of_fashion_mnist_is_its_files_in_a_row(fashion: Made, quiet: Report, cache: Path) -> None:
    put(cache, {"fashion-mnist.bin": b"".join(fashion.files["idx"].values())})
    fashion.check(locate(fashion.data, None, download=False, report=quiet))


def test_the_digits_of_mnist_are_not_taken_for_fashion(fashion: Made, quiet: Report, tmp_path: Path) -> None:
    # The files of both sets have the same names and sizes.
    files = dict(fashion.files["idx"])
    files["train-images-idx3-ubyte"] = files["train-images-idx3-ubyte"][:16] + bytes(TRAIN * 784)
    put(tmp_path, _zipped(files))
    with pytest.raises(DataError, match="train-images-idx3-ubyte differs from the official one"):
        locate(fashion.data, tmp_path, download=False, report=quiet)


@pytest.mark.parametrize("damage", ["truncated", "altered"])
def test_a_bad_cache_is_fetched_again(
    damage: str, cifar100: Made, site: tuple[Path, str], quiet: Report, cache: Path
) -> None:
    binary = cifar100.files["binary"]
    put(site[0], {"official.tar.gz": _archive(binary, "x")})
    reachable = replace(cifar100.data.forms[0], url=f"{site[1]}/official.tar.gz")
    data = replace(cifar100.data, forms=(reachable, cifar100.data.forms[1]))
    whole = b"".join(binary.values())
    put(cache, {"cifar100.bin": whole[:-1] if damage == "truncated" else bytes(len(whole))})
    cifar100.check(locate(data, None, download=True, report=quiet))
    assert (cache / "cifar100.bin").read_bytes() == whole
    # The second time nothing is fetched: the address is gone.
    cifar100.check(locate(cifar100.data, None, download=True, report=quiet))


def test_fashion_mnist_is_fetched_file_by_file_and_kept(
    fashion: Made, site: tuple[Path, str], quiet: Report, tmp_path: Path
) -> None:
    put(site[0], _zipped(fashion.files["idx"]))
    data = replace(fashion.data, forms=(replace(fashion.data.forms[0], url=f"{site[1]}/"),))
    root = tmp_path / "new"
    fashion.check(locate(data, root, download=True, report=quiet))
    assert [path.name for path in root.iterdir()] == ["fashion-mnist.bin"]
    fashion.check(locate(fashion.data, root, download=True, report=quiet))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("altered", "differs from the official one"),
        ("truncated", "truncated or damaged"),
        ("page", "truncated or damaged"),
        ("absent", "the server answers 404"),
    ],
)
def test_a_bad_answer_is_refused_and_nothing_kept(
    answer: str, said: str, fashion: Made, site: tuple[Path, str], quiet: Report, cache: Path
) -> None:
    files = _zipped(fashion.files["idx"])
    first = next(iter(files))
    files[first] = {
        "altered": gzip.compress(bytes(TRAIN * 784 + 16)),
        "truncated": files[first][:-20],
        "page": b"<html>Sorry</html>",
    }.get(answer, b"")
    if answer == "absent":
        del files[first]
    put(site[0], files)
    data = replace(fashion.data, forms=(replace(fashion.data.forms[0], url=f"{site[1]}/"),))
    with pytest.raises(DataError, match=said):
        locate(data, None, download=True, report=quiet)
    assert list(cache.iterdir()) == []


def test_one_line_says_where_it_is_looked_for_and_where_it_comes_from(
    cifar100: Made, fashion: Made, quiet: Report, cache: Path
) -> None:
    for made in (cifar100, fashion):
        with pytest.raises(DataError) as caught:
            locate(made.data, None, download=True, report=quiet)
        (line,) = str(caught.value).splitlines()
        assert line.startswith(
            f"{made.data.title} is not to be had: {cache} holds none of {made.data.cache_name}"
        )
        assert f"{NOWHERE}{made.data.forms[0].archive or ''}: no answer" in line
        assert line.endswith(f"into {cache}")
    with pytest.raises(DataError, match=r"cifar-100-python\.tar\.gz; download is off; by hand: put "):
        locate(cifar100.data, None, download=False, report=quiet)


def test_a_folder_with_other_things_is_left_alone(cifar100: Made, quiet: Report, tmp_path: Path) -> None:
    put(tmp_path, {"thesis.txt": b"mine"})
    with pytest.raises(DataError, match="that folder holds other things"):
        locate(cifar100.data, tmp_path, download=True, report=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_root_that_is_a_file(cifar100: Made, quiet: Report, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MixError, match="root takes a folder, not a file"):
        locate(cifar100.data, tmp_path / "file", download=False, report=quiet)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({b"data": np.zeros((2, 3072), np.uint8)}, "not a dictionary with data and fine_labels"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [0, 100]}, "not numbers from 0 to 99"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [b"cat"]}, "not numbers"),
        (
            {b"data": np.zeros((3, 3072), np.uint8), b"fine_labels": [0, 1]},
            r"no uint8 array of shape \(2, 3072\)",
        ),
        ([1, 2], "not a dictionary"),
    ],
)
def test_a_pickle_with_something_else(content: object, said: str) -> None:
    with pytest.raises(DataError, match=said):
        decode_pickles([python2_pickle(content)] * 2)


def test_records_with_something_else() -> None:
    with pytest.raises(DataError, match="no whole number of 3074-byte records"):
        decode_cifar100([bytes(3073), b""])
    with pytest.raises(DataError, match="not numbers from 0 to 99"):
        decode_cifar100([bytes([0, 100]) + bytes(3072), b""])


@pytest.mark.parametrize(
    ("which", "content", "said"),
    [
        (0, b"", "no IDX file of bytes with 3 axes"),
        (1, struct.pack(">II", 0x802, 0), "no IDX file of bytes with 1 axes"),
        (0, struct.pack(">IIII", 0x803, 1, 28, 27) + bytes(28 * 27), r"shape \(1, 28, 27\)"),
        (0, struct.pack(">IIII", 0x803, 2**32 - 1, 28, 28), r"the IDX file has shape \(4294967295, 28, 28\)"),
        (1, struct.pack(">II", 0x801, 1) + b"\0", "not as many labels as images"),
    ],
)
def test_idx_files_with_something_else(which: int, content: bytes, said: str) -> None:
    images, labels = struct.pack(">IIII", 0x803, 0, 28, 28), struct.pack(">II", 0x801, 0)
    files = [images, labels, images, labels]
    files[which] = content
    with pytest.raises(DataError, match=said):
        decode_idx(files)


def test_the_names_of_cifar100_are_a_hundred_and_sorted() -> None:
    assert len(set(CIFAR100_CLASSES)) == 100
    assert list(CIFAR100_CLASSES) == sorted(CIFAR100_CLASSES)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist_of_debian(tmp_path: Path, quiet: Report) -> None:
    data = locate(FASHION_MNIST, tmp_path, download=False, report=quiet)
    assert data.train_x.shape == (60_000, 32, 32, 3)
    assert np.bincount(data.train_y).tolist() == [6000] * 10
    assert np.bincount(data.test_y).tolist() == [1000] * 10
    # The mean and deviation that every Fashion-MNIST recipe normalises with.
    gray = data.train_x[:, 2:30, 2:30, 1] / np.float32(255)
    np.testing.assert_allclose([gray.mean(), gray.std()], [0.2860, 0.3530], atol=5e-5)
    assert not data.train_x[:, :2].any()
