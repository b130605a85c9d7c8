"""The files of a folder of images, in few bytes: millions of names would cost gigabytes as objects.

One array for all forks of a process to share: they count no references in it, so that its pages are never
copied. Workers that are started otherwise are sent a copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from batchmix.data.listing import Entry


class ImageFiles:
    """Paths and labels of images.

    Args:
        folder: Where they lie.
        entries: The images.

    Attributes:
        labels: (N,) int64.
    """

    def __init__(self, folder: Path, entries: Sequence[Entry]) -> None:
        names = [entry.name.encode("utf-8", "surrogateescape") for entry in entries]
        self.folder = folder
        self.labels = np.array([entry.label for entry in entries], np.int64)
        self._names = np.frombuffer(b"".join(names), np.uint8)
        self._ends = np.cumsum([0, *map(len, names)])

    def __len__(self) -> int:
        """Number of images, N."""
        return len(self.labels)

    def path(self, index: int) -> Path:
        """The file of an image."""
        name = self._names[self._ends[index] : self._ends[index + 1]].tobytes()
        return self.folder / name.decode("utf-8", "surrogateescape")
