"""Which images a folder holds, and which of them are to train on and which to test with."""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from batchmix.errors import DataError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""File names that count as images, in lower or upper case."""

TEST_PART = 0.2  # of each class, where the folder has no split of its own
_TRAIN_NAMES = ("train", "training")  # in lower or upper case, as those of the other part
_TEST_NAMES = ("test", "testing", "val", "valid", "validation")
_LAYOUT = "CLASS/IMAGE, or train/CLASS/IMAGE with test/ (or val/, valid/, validation/) of these"


@dataclass(frozen=True)
class Entry:
    """One image file.

    Attributes:
        name: Path below the folder, with forward slashes.
        label: Index into the classes.
        size: Bytes.
        mtime_ns: Time of its last change.
    """

    name: str
    label: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, eq=False)
class Listing:
    """A folder of images, by name.

    Attributes:
        folder: Where the images lie.
        classes: Sorted names, whatever way accents are written; the index is the label.
        train: Images to train on, class by class, each in the order of the names.
        test: Images to test with, in the same order.
    """

    folder: Path
    classes: tuple[str, ...]
    train: tuple[Entry, ...]
    test: tuple[Entry, ...]

    @property
    def digest(self) -> str:
        """A hash of classes, names and sizes: the same wherever the folder lies, and however it got there."""
        parts = [[(_composed(entry.name), entry.size) for entry in part] for part in (self.train, self.test)]
        told = repr((tuple(map(_composed, self.classes)), parts))
        return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()


def list_images(folder: Path) -> Listing:
    """List a folder in the layout of torchvision's ImageFolder.

    Either ``train/CLASS/IMAGE`` with ``test/CLASS/IMAGE``, or ``CLASS/IMAGE``. In the latter a fifth of each
    class is to test with: the images whose names have the smallest hashes, so that the split depends on the
    names alone. Images may lie in folders below that of their class. Hidden files are passed over, and files
    that no image's name ends in.

    The parts may be called ``training``, and ``testing``, ``val``, ``valid`` or ``validation``, in any case.
    Where there are several to test with, the first of this order that holds folders is taken, and the others
    are not read: a ``test`` of images without classes is passed over.

    Args:
        folder: An existing folder.

    Returns:
        The images.

    Raises:
        DataError: If there are none to train on or none to test with, if there are fewer than two classes,
            if a class has none to train on, if one is to test with alone, if one is a part of a split by its
            name and its folders, or if something cannot be read.
    """
    try:
        train, test = (_part(folder, names) for names in (_TRAIN_NAMES, _TEST_NAMES))
        if train is not None and test is not None:
            return _with_split(folder, train, test)
        # A lone train/CLASS/IMAGE is split as CLASS/IMAGE is.
        if train is not None and _subfolders(folder) == [train.name]:
            return _without_split(folder, train)
        return _without_split(folder, folder)
    except OSError as error:
        raise DataError(f"cannot read {error.filename or folder}: {error.strerror or error}") from error


def _part(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first of these folders that is there and holds folders, else the first; in lower or upper case."""
    there = {name.lower(): folder / name for name in _subfolders(folder)}
    parts = [there[name] for name in names if name in there]
    return next((part for part in parts if _subfolders(part)), parts[0] if parts else None)


def _with_split(folder: Path, train: Path, test: Path) -> Listing:
    classes = _classes(train)
    there = _subfolders(test)
    if not there:
        raise DataError(f"no class folders in {test}: it takes {_LAYOUT}")
    tests = {name: _same_name(name, there) for name in classes}
    strange = sorted(set(there) - set(tests.values()))
    if strange:
        raise DataError(f"{test} has the class {strange[0]}, which {train} lacks")
    to_train = [
        entry for label, name in enumerate(classes) for entry in _entries(folder, train / name, label)
    ]
    to_test = [
        entry
        for label, name in enumerate(classes)
        if (own := tests[name]) is not None
        for entry in _entries(folder, test / own, label)
    ]
    _refuse_empty(train, to_train, classes)
    if not to_test:
        raise DataError(f"no images in {test}: {_takes()}")
    return Listing(folder, classes, tuple(to_train), tuple(to_test))


def _without_split(folder: Path, base: Path) -> Listing:
    classes = _classes(base)
    by_class = [list(_entries(folder, base / name, label)) for label, name in enumerate(classes)]
    _refuse_empty(base, [entry for entries in by_class for entry in entries], classes)
    for name, entries in zip(classes, by_class, strict=True):
        _refuse_part(base / name, entries)
    part = "train/" if base == folder else f"{base.name}/"  # a class "train" has always been split without it
    train: list[Entry] = []
    test: list[Entry] = []
    for entries in by_class:
        tests = _tests(entries, part)
        train += [entry for entry in entries if entry.name not in tests]
        test += [entry for entry in entries if entry.name in tests]
    if not test:
        raise DataError(f"{folder} has one image in each class, and none is left to test with")
    return Listing(folder, classes, tuple(train), tuple(test))


def _tests(entries: list[Entry], part: str) -> set[str]:
    count = max(round(TEST_PART * len(entries)), int(len(entries) > 1))
    return {entry.name for entry in sorted(entries, key=lambda entry: _hash(entry.name, part))[:count]}


def _hash(name: str, part: str) -> bytes:
    # The class's folder and the name in it, but not "train/": both layouts split alike.
    below = _composed(name.removeprefix(part))
    return hashlib.sha256(below.encode("utf-8", "surrogateescape")).digest()


def _composed(name: str) -> str:
    """The name with an accent and its letter as one, as most systems have it; macOS can write two."""
    return unicodedata.normalize("NFC", name)


def _same_name(name: str, names: list[str]) -> str | None:
    """The name itself where it is one of these, else the one that differs in how accents are written."""
    return name if name in names else next((own for own in names if _composed(own) == _composed(name)), None)


def _by_name(path: PurePath) -> tuple[list[str], tuple[str, ...]]:
    """What paths are sorted by, the same on every system: those of Windows by themselves ignore the case."""
    return [_composed(part) for part in path.parts], path.parts


def _subfolders(folder: Path) -> list[str]:
    places = [item for item in folder.iterdir() if item.is_dir() and not item.name.startswith(".")]
    return [place.name for place in sorted(places, key=_by_name)]


def _classes(folder: Path) -> tuple[str, ...]:
    classes = tuple(_subfolders(folder))
    if not classes:
        raise DataError(f"no class folders in {folder}: it takes {_LAYOUT}")
    if len(classes) == 1:
        raise DataError(f"one class alone in {folder}, {classes[0]}: it takes two or more, as {_LAYOUT}")
    return classes


def _entries(folder: Path, place: Path, label: int) -> Iterator[Entry]:
    for path in sorted(_walk(place), key=_by_name):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for ever
            raise DataError(f"{path} has the name of an image, and is no file")
        yield Entry(path.relative_to(folder).as_posix(), label, status.st_size, status.st_mtime_ns)


def _walk(place: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    seen = set()
    for parent, folders, names in os.walk(place, onerror=refuse, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder above it, or to one that was read
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=_composed)
        for name in names:
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield Path(parent, name)


def _refuse_empty(base: Path, entries: list[Entry], classes: tuple[str, ...]) -> None:
    if not entries:
        raise DataError(f"no images in {base}: {_takes()}")
    for label in sorted(set(range(len(classes))) - {entry.label for entry in entries}):
        raise DataError(f"no images in {base / classes[label]}: remove the folder, or {_takes()}")


def _refuse_part(place: Path, entries: list[Entry]) -> None:
    """Refuse a class that is a part of a split: a "train" of vehicles has its images right in it."""
    if place.name.lower() in (*_TRAIN_NAMES, *_TEST_NAMES) and not any(
        Path(entry.name).parent.name == place.name for entry in entries
    ):
        raise DataError(
            f"{place} holds folders, as the part of a split and no class does: it takes {_LAYOUT}"
        )


def _takes() -> str:
    return f"names end in {', '.join(SUFFIXES)}"
