"""One loader against two: the files, what is decoded, what is left behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from batchmix.errors import DataError, MixError
from batchmix.study.article import loading
from batchmix.study.article.loading import Feeds, JpegFiles, measure_loading, write_jpegs


@pytest.fixture
def images():
    """Smooth images, which JPEG keeps nearly as they are."""
    ramp = np.linspace(0, 200, 16, dtype=np.uint8)
    base = np.stack([np.add.outer(ramp, np.zeros(16, np.uint8))] * 3, -1)
    return np.stack([base + shift for shift in range(0, 50, 5)]).astype(np.uint8)


LABELS = np.arange(10)


def test_the_files_hold_the_images(images, tmp_path):
    paths = write_jpegs(images, tmp_path, 16)
    with Image.open(paths[3]) as image:
        assert (image.format, image.size) == ("JPEG", (16, 16))
    pixels, label = JpegFiles(paths, LABELS.tolist())[3]
    assert (pixels.shape, pixels.dtype, label) == ((3, 16, 16), torch.float32, 3)
    original = torch.from_numpy(images[3]).permute(2, 0, 1) / 255
    assert (pixels - original).abs().max() < 0.02


def test_the_files_have_the_size_asked_for(images, tmp_path):
    assert JpegFiles(write_jpegs(images, tmp_path, 40), LABELS.tolist())[0][0].shape == (3, 40, 40)


class Counted(JpegFiles):
    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


def test_two_loaders_decode_twice_as_much_for_as_many_mixed_images(images, tmp_path):
    files = Counted(write_jpegs(images, tmp_path, 16), LABELS.tolist())
    feeds = Feeds(files, batch_size=4, workers=0, seed=0)
    assert (feeds.batches, feeds.one_loader(), files.reads) == (2, 8, 8)
    files.reads = 0
    assert (feeds.two_loaders(), files.reads) == (8, 16)


def test_the_two_loaders_have_orders_of_their_own(images, tmp_path):
    feeds = Feeds(JpegFiles(write_jpegs(images, tmp_path, 16), LABELS.tolist()), 10, 0, seed=0)
    first, second = (next(iter(feeds._loader(0, seed)))[1].tolist() for seed in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second) == LABELS.tolist()


def test_a_measurement_says_what_was_done(images, monkeypatch, tmp_path, unmoved_global_rng):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    said = []
    found = measure_loading(images, LABELS, size=24, batch_size=5, repeats=3, say=said.append)
    assert {name: len(times) for name, times in found["seconds"].items()} == {
        "one_loader": 3,
        "two_loaders": 3,
    }
    assert all(seconds > 0 for times in found["seconds"].values() for seconds in times)
    assert (found["images"], found["batches"], found["size"], len(said)) == (10, 2, 24, 3)
    assert found["decoder"].startswith("Pillow ")
    assert list(tmp_path.iterdir()) == []


def test_the_two_take_turns_to_be_first(images, monkeypatch):
    order = []
    monkeypatch.setattr(Feeds, "one_loader", lambda self: order.append("one") or 1)
    monkeypatch.setattr(Feeds, "two_loaders", lambda self: order.append("two") or 1)
    measure_loading(images, LABELS, size=16, batch_size=5, repeats=3)
    assert order == ["one", "one", "two", "two", "one", "one", "two"]  # the first one is not counted


def test_the_files_go_where_something_fails(images, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Feeds, "two_loaders", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        measure_loading(images, LABELS, size=16, batch_size=5)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_refuses_is_one_line(images, monkeypatch, tmp_path):
    def full(self, path, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DataError, match=r"no room to write .*000000\.jpg"):
        write_jpegs(images, tmp_path, 16)


def test_processes_decode_the_same(images, tmp_path):
    paths = write_jpegs(images, tmp_path, 16)
    assert Feeds(JpegFiles(paths, LABELS.tolist()), 4, workers=2, seed=0).two_loaders() == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 11}, "batch_size takes at most the number of images, 10, got 11"),
        ({"batch_size": 5, "workers": 3}, "workers takes an even number of processes"),
        ({"batch_size": 5, "workers": -2}, "workers takes an even number of processes"),
    ],
)
def test_a_wrong_call_is_one_line(images, arguments, message):
    with pytest.raises(MixError, match=message):
        measure_loading(images, LABELS, **arguments)


def test_the_module_imports_no_decoder():
    source = Path(loading.__file__).read_text()
    assert "\nfrom PIL" not in source
    assert "\nimport PIL" not in source
