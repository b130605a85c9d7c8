from __future__ import annotations

import hashlib
import os
import unicodedata
from itertools import chain
from pathlib import Path, PurePath

import pytest

from batchmix.data.listing import Listing, list_images
from batchmix.errors import DataError


def _touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def _names(listing: Listing) -> tuple[list[str], list[str]]:
    return [entry.name for entry in listing.train], [entry.name for entry in listing.test]


def test_a_folder_with_a_split(tmp_path: Path) -> None:
    _touch(tmp_path, "train/dog/b.jpg", "train/dog/a.PNG", "train/cat/1.jpeg", "test/dog/1.jpg")
    listing = list_images(tmp_path)
    assert listing.classes == ("cat", "dog")
    assert _names(listing) == (["train/cat/1.jpeg", "train/dog/a.PNG", "train/dog/b.jpg"], ["test/dog/1.jpg"])
    assert [entry.label for entry in listing.train] == [0, 1, 1]
    assert [entry.label for entry in listing.test] == [1]


def test_its_digest_is_of_classes_names_and_sizes_alone(tmp_path: Path) -> None:
    names = ("train/dog/b.jpg", "train/cat/1.jpeg", "test/dog/1.jpg")
    here, there = (_touch(tmp_path / place, *names) for place in ("here", "there"))
    os.utime(there / names[0], (0, 0))
    digest = list_images(here).digest
    assert list_images(there).digest == digest
    (there / names[0]).write_bytes(b"another")
    others = [list_images(there).digest, list_images(_touch(here, "train/bird/1.jpg")).digest]
    assert len({digest, *others}) == 3


def test_val_serves_where_there_is_no_test(tmp_path: Path) -> None:
    _touch(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg")
    assert _names(list_images(tmp_path))[1] == ["val/cat/2.jpg"]
    _touch(tmp_path, "test/cat/3.jpg")
    assert _names(list_images(tmp_path))[1] == ["test/cat/3.jpg"]


def test_a_test_folder_without_classes_is_passed_over(tmp_path: Path) -> None:
    _touch(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "test/3.jpg")
    with pytest.raises(DataError, match=r"^no class folders in \S*test: it takes [^\n]+$"):
        list_images(tmp_path)
    _touch(tmp_path, "val/cat/2.jpg")
    assert _names(list_images(tmp_path))[1] == ["val/cat/2.jpg"]


def test_a_class_is_the_same_however_its_accents_are_written(tmp_path: Path) -> None:
    whole, split = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    _touch(tmp_path, f"train/{whole}/1.jpg", "train/tea/1.jpg", f"test/{split}/2.jpg")
    assert _names(list_images(tmp_path))[1] == [f"test/{split}/2.jpg"]
    _touch(tmp_path, f"test/{whole}/3.jpg")  # two names for one class, of which one has no images to train on
    with pytest.raises(DataError, match=r"^\S*test has the class [^\n]+, which \S*train lacks$"):
        list_images(tmp_path)


@pytest.mark.parametrize("train", ["train", "Train", "training"])
@pytest.mark.parametrize("test", ["test", "Test", "testing", "val", "valid", "validation", "Validation"])
def test_the_parts_have_the_names_that_people_give_them(train: str, test: str, tmp_path: Path) -> None:
    _touch(tmp_path, f"{train}/cat/1.jpg", f"{train}/dog/1.jpg", f"{test}/cat/2.jpg")
    listing = list_images(tmp_path)
    assert listing.classes == ("cat", "dog")
    assert _names(listing) == ([f"{train}/cat/1.jpg", f"{train}/dog/1.jpg"], [f"{test}/cat/2.jpg"])


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_of_a_split_is_no_class(part: str, tmp_path: Path) -> None:
    _touch(tmp_path, f"{part}/cat/1.jpg", f"{part}/dog/1.jpg", "held-out/cat/2.jpg", "held-out/dog/2.jpg")
    with pytest.raises(
        DataError, match=f"^{tmp_path}/{part} holds folders, as the part of a split"
    ) as caught:
        list_images(tmp_path)
    assert "train/CLASS/IMAGE with test/ (or val/, valid/, validation/)" in str(caught.value)


def test_a_train_among_vehicles_is_a_class(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"{kind}/{number}.jpg" for kind in ("bus", "train") for number in range(2)))
    assert list_images(tmp_path).classes == ("bus", "train")


def test_a_fifth_of_each_class_is_to_test_with(tmp_path: Path) -> None:
    for name, count in (("cat", 50), ("dog", 10), ("eel", 2), ("fox", 1)):
        _touch(tmp_path, *(f"{name}/{number}.jpg" for number in range(count)))
    listing = list_images(tmp_path)
    tests = [entry.label for entry in listing.test]
    assert [tests.count(label) for label in range(4)] == [10, 2, 1, 0]
    train, test = _names(listing)
    assert len({*train, *test}) == len(train) + len(test) == 63


def test_the_split_depends_on_the_names_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{kind}/{number}.jpg" for kind in ("cat", "dog") for number in range(20)]
    here = _names(list_images(_touch(tmp_path / "here", *names)))
    walk = os.walk

    def backwards(*args: object, **options: object) -> object:
        return ((parent, folders, names[::-1]) for parent, folders, names in walk(*args, **options))  # type: ignore

    monkeypatch.setattr(os, "walk", backwards)
    assert _names(list_images(_touch(tmp_path / "there", *reversed(names)))) == here
    # The smallest by sha256sum on the command line, written down so that no later version splits otherwise.
    assert [name for name in here[1] if name.startswith("cat")] == [
        "cat/0.jpg",
        "cat/13.jpg",
        "cat/3.jpg",
        "cat/8.jpg",
    ]


def test_a_lone_train_is_split_as_its_classes_would_be(tmp_path: Path) -> None:
    names = [f"{kind}/{number}.jpg" for kind in ("cat", "dog") for number in range(20)]
    flat = _names(list_images(_touch(tmp_path / "flat", *names)))
    for train in ("train", "Train"):
        lone = _names(list_images(_touch(tmp_path / f"lone {train}", *(f"{train}/{name}" for name in names))))
        assert lone == tuple([f"{train}/{name}" for name in part] for part in flat)


def test_accents_written_in_two_ways_split_alike(tmp_path: Path) -> None:
    letters = "éèüöäñçåîø"
    composed = [f"{kind}/{letter}.jpg" for kind in ("cat", "dog") for letter in letters]
    apart = [unicodedata.normalize("NFD", name) for name in composed]
    _, one = _names(list_images(_touch(tmp_path / "one", *composed)))
    _, other = _names(list_images(_touch(tmp_path / "other", *apart)))
    assert {unicodedata.normalize("NFC", name) for name in other} == set(one)


ACCENTS = [
    "train/zèbre/1.jpg",
    "train/élan/à.jpg",
    "train/élan/b.jpg",
    "test/zèbre/é.jpg",
    "test/zèbre/f.jpg",
]


def test_accents_written_in_two_ways_have_one_order_and_one_digest(tmp_path: Path) -> None:
    """As macOS can write them, e and its accent sort before z, and é behind it."""
    one = list_images(_touch(tmp_path / "one", *ACCENTS))
    apart = [unicodedata.normalize("NFD", name) for name in ACCENTS]
    other = list_images(_touch(tmp_path / "other", *apart))
    for mine, theirs in zip(_names(one), _names(other), strict=True):
        assert mine == [unicodedata.normalize("NFC", name) for name in theirs]
    assert [entry.label for entry in one.train] == [entry.label for entry in other.train]
    assert other.digest == one.digest
    assert all((other.folder / entry.name).is_file() for entry in other.train + other.test)


def test_a_digest_is_what_it_has_always_been(tmp_path: Path) -> None:
    _touch(tmp_path, *ACCENTS)
    train = [(name, 0) for name in ("train/zèbre/1.jpg", "train/élan/b.jpg", "train/élan/à.jpg")]
    told = repr((("zèbre", "élan"), [train, [("test/zèbre/f.jpg", 0), ("test/zèbre/é.jpg", 0)]]))
    assert list_images(tmp_path).digest == hashlib.sha256(told.encode()).hexdigest()


def test_the_order_is_the_same_where_paths_ignore_the_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("cat/B.jpg", "cat/a.jpg", "cat/a/1.jpg", "dog/1.jpg")
    before = list_images(_touch(tmp_path, *names))
    monkeypatch.setattr(PurePath, "__lt__", lambda one, other: str(one).lower() < str(other).lower())
    assert sorted([Path("B"), Path("a")]) == [Path("a"), Path("B")]  # as on Windows
    assert _names(list_images(tmp_path)) == _names(before)


def test_what_is_no_image_is_passed_over(tmp_path: Path) -> None:
    _touch(tmp_path, "cat/1.jpg", "cat/deep/2.jpg", "cat/notes.txt", "cat/._1.jpg", "cat/.thumbs/1.jpg")
    _touch(tmp_path, ".git/x.jpg", "readme.jpg", "dog/1.jpg")
    listing = list_images(tmp_path)
    assert listing.classes == ("cat", "dog")
    assert sorted(chain(*_names(listing))) == ["cat/1.jpg", "cat/deep/2.jpg", "dog/1.jpg"]


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    _touch(tmp_path, "elsewhere/1.jpg", "elsewhere/2.jpg")
    _touch(tmp_path, "images/dog/1.jpg")
    (tmp_path / "images" / "cat").symlink_to(tmp_path / "elsewhere")
    listing = list_images(tmp_path / "images")
    assert sorted(chain(*_names(listing))) == ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "no class folders in {root}: it takes CLASS/IMAGE"),
        (["1.jpg"], "no class folders in {root}"),
        (["cat/1.txt", "dog/1.txt"], "no images in {root}: names end in .bmp, "),
        (["cat/1.jpg", "dog/1.jpg"], "{root} has one image in each class, and none is left to test with"),
        (["cat/1.jpg", "cat/2.jpg"], "one class alone in {root}, cat: it takes two or more, as CLASS/IMAGE"),
        (["train/cat/1.jpg", "test/cat/2.jpg"], "one class alone in {root}/train, cat: it takes two or more"),
        (["val/cat/1.jpg", "val/dog/1.jpg"], "one class alone in {root}, val: it takes two or more"),
        (["cat/1.jpg", "cat/2.jpg", "dog/x.txt"], "no images in {root}/dog: remove the folder"),
        (["train/x.txt", "test/cat/1.jpg"], "no class folders in {root}/train"),
        (["train/cat/1.jpg", "train/dog/x", "test/cat/1.jpg"], "no images in {root}/train/dog: remove"),
        (["train/cat/1.jpg", "train/dog/1.jpg", "test/cat/x.txt"], "no images in {root}/test: names end in"),
        (
            ["train/cat/1.jpg", "train/dog/1.jpg", "test/eel/1.jpg"],
            "{root}/test has the class eel, which {root}/train lacks",
        ),
    ],
)
def test_a_folder_of_another_kind(names: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        list_images(_touch(tmp_path, *names))
    assert str(caught.value).startswith(said.format(root=tmp_path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_class_may_have_no_test_images(tmp_path: Path) -> None:
    _touch(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "test/cat/1.jpg", "test/dog/x.txt")
    assert _names(list_images(tmp_path))[1] == ["test/cat/1.jpg"]


def test_a_folder_in_a_class_may_be_a_link_and_a_circle_ends(tmp_path: Path) -> None:
    _touch(tmp_path / "images", "dog/1.jpg", "cat/1.jpg", "cat/2.jpg")
    _touch(tmp_path / "more", "3.jpg", "4.jpg")
    (tmp_path / "images" / "cat" / "sub").symlink_to(tmp_path / "more")
    (tmp_path / "more" / "back").symlink_to(tmp_path / "images" / "cat")
    names = [name for part in _names(list_images(tmp_path / "images")) for name in part]
    assert sorted(names) == ["cat/1.jpg", "cat/2.jpg", "cat/sub/3.jpg", "cat/sub/4.jpg", "dog/1.jpg"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_with_the_name_of_an_image_is_named(tmp_path: Path) -> None:
    _touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    os.mkfifo(tmp_path / "dog" / "2.jpg")
    with pytest.raises(DataError, match=r"dog/2\.jpg has the name of an image, and is no file$"):
        list_images(tmp_path)


def test_a_dangling_link_is_named(tmp_path: Path) -> None:
    _touch(tmp_path, "cat/1.jpg", "dog/1.jpg")
    (tmp_path / "cat" / "2.jpg").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"^cannot read .*cat/2.jpg: No such file or directory$"):
        list_images(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    _touch(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/1.jpg")
    (tmp_path / "cat").chmod(0)
    try:
        with pytest.raises(DataError, match=r"^cannot read .*cat: Permission denied$"):
            list_images(tmp_path)
    finally:
        (tmp_path / "cat").chmod(0o755)
