"""What a second loader costs: mixed batches a second from JPEG files, from one loader and from two."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import batchmix as bm
from batchmix.errors import DataError, MixError
from batchmix.files import cannot_write

QUALITY = 90

Said = Callable[[str], None]


class JpegFiles(Dataset[tuple[Tensor, int]]):
    """Images that are decoded from JPEG files at every read.

    Args:
        paths: The files.
        labels: The class id of each.
    """

    def __init__(self, paths: Sequence[Path], labels: Sequence[int]) -> None:
        self.paths, self.labels = paths, labels

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """The image, (3, H, W) float32 in [0, 1], and its class id."""
        from PIL import Image

        with Image.open(self.paths[index]) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
        return pixels.permute(2, 0, 1).float() / 255, self.labels[index]


def measure_loading(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    size: int = 224,
    batch_size: int = 64,
    repeats: int = 9,
    workers: int = 0,
    seed: int = 0,
    say: Said = lambda text: None,
) -> dict[str, Any]:
    """Time mixed batches from one loader (a batch mixed with itself) and from two (``between``).

    The images are written as JPEG files into a temporary folder, which is removed. One pass over the files
    goes before, uncounted; then the two take turns, and who goes first changes with every repeat.

    Args:
        images: (N, H, W, 3) uint8, at least one batch of them.
        labels: (N,) class ids.
        size: Pixels of a side of the files; the images are enlarged or reduced to it.
        batch_size: Images in a mixed batch.
        repeats: Times that each of the two goes through as many batches as one pass has.
        workers: Processes that decode, shared by the loaders: an even number; 0 decodes in this one.
        seed: Of orders and draws.
        say: Called with a line before each repeat.

    Returns:
        What the page is made from: the settings, and the seconds of each repeat.

    Raises:
        MixError: If an argument is not of this form.
        DataError: If the files cannot be written.
    """
    if len(images) < batch_size:
        raise MixError.of("batch_size", batch_size, f"at most the number of images, {len(images)}")
    if workers < 0 or workers % 2:
        raise MixError.of("workers", workers, "an even number of processes, which two loaders can share")
    with TemporaryDirectory(prefix="batchmix-jpegs-") as folder:
        paths = write_jpegs(images, Path(folder), size)
        feeds = Feeds(JpegFiles(paths, labels.tolist()), batch_size, workers, seed)
        feeds.one_loader()
        seconds: dict[str, list[float]] = {"one_loader": [], "two_loaders": []}
        for repeat in range(repeats):
            say(f"loading, repeat {repeat + 1} of {repeats}")
            for name in sorted(seconds, reverse=bool(repeat % 2)):
                seconds[name].append(_timed(getattr(feeds, name)))
        weight = sum(path.stat().st_size for path in paths) / len(paths)
    return {
        "images": len(images),
        "size": size,
        "quality": QUALITY,
        "bytes_per_file": round(weight),
        "batch_size": batch_size,
        "batches": feeds.batches,
        "workers": workers,
        "seed": seed,
        "decoder": _decoder(),
        "seconds": seconds,
    }


class Feeds:
    """The two ways to mixed batches.

    Args:
        files: What is loaded.
        batch_size: Images in a mixed batch.
        workers: Processes that decode, in all.
        seed: Of orders and draws.

    Attributes:
        batches: Mixed batches in a pass.
    """

    def __init__(self, files: JpegFiles, batch_size: int, workers: int, seed: int) -> None:
        self.files, self.batch_size, self.workers, self.seed = files, batch_size, workers, seed
        self.batches = len(files) // batch_size
        self.mixup = bm.Mixup(0.4, per="batch", fold=False, seed=seed)

    def one_loader(self) -> int:
        """A pass over the files, every batch mixed with itself; the number of mixed images."""
        return sum(len(self.mixup(x, y)[0]) for x, y in self._loader(self.workers, self.seed))

    def two_loaders(self) -> int:
        """As many mixed batches of two loaders with orders of their own; the number of mixed images."""
        workers = self.workers // 2
        pairs = zip(self._loader(workers, self.seed), self._loader(workers, self.seed + 1), strict=True)
        return sum(len(self.mixup.between(first, second)[0]) for first, second in pairs)

    def _loader(self, workers: int, seed: int) -> DataLoader[tuple[Tensor, int]]:
        order = torch.Generator().manual_seed(seed)
        return DataLoader(
            self.files, self.batch_size, shuffle=True, drop_last=True, num_workers=workers, generator=order
        )


def write_jpegs(images: NDArray[np.uint8], folder: Path, size: int) -> list[Path]:
    """Write images (N, H, W, 3) as JPEG files of ``size`` pixels a side; their paths, in order.

    Raises:
        DataError: If the files cannot be written.
    """
    from PIL import Image

    paths = [folder / f"{place:06}.jpg" for place in range(len(images))]
    for pixels, path in zip(images, paths, strict=True):
        image = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
        try:
            image.save(path, quality=QUALITY)
        except OSError as error:
            raise cannot_write(path, error) from error
    return paths


def _timed(feed: Callable[[], int]) -> float:
    started = time.perf_counter()
    if not feed():
        raise DataError("the loaders gave no batch")
    return time.perf_counter() - started


def _decoder() -> str:
    """What decodes, with its version."""
    import PIL
    from PIL import features

    turbo = features.version_feature("libjpeg_turbo") if features.check_feature("libjpeg_turbo") else None
    return f"Pillow {PIL.__version__}, " + (f"libjpeg-turbo {turbo}" if turbo else "libjpeg")
