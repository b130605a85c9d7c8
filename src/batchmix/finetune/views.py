"""What DataLoader workers do: decode the views of a batch, each drawn from (seed, epoch, image) alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist
from torch.utils.data import DataLoader, Dataset

from batchmix.data.decoding import decode_crop, decode_square
from batchmix.errors import DataError, why
from batchmix.finetune.files import ImageFiles

View: TypeAlias = tuple[int, int]  # an image, and the epoch that its crop is drawn for
Loaded: TypeAlias = "tuple[Tensor, Tensor] | str"  # images and labels, or why there are none
_RATIO = np.log(4 / 3)  # of a crop's width to its height, at most; as torchvision's RandomResizedCrop


@dataclass(frozen=True)
class Crop:
    """The draws of one training view.

    Args:
        smallest: Share of the image that a crop has at least.
        draws: Five numbers in [0, 1): area, ratio, place across and down, flip.
    """

    smallest: float
    draws: tuple[float, ...]

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the crop.

        A crop that would stick out is made narrower or lower, where torchvision draws again up to ten times.
        """
        area, ratio, across, down, _ = self.draws
        area = (self.smallest + (1 - self.smallest) * area) * width * height
        ratio = float(np.exp((2 * ratio - 1) * _RATIO))
        w, h = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
        left, top = across * (width - w), down * (height - h)
        return left, top, left + w, top + h


class Views(Dataset[tuple[Tensor, Tensor]]):
    """Batches of decoded images, asked for by lists of views.

    Args:
        files: The images.
        size: Side in pixels.
        seed: Of crops and flips.
        crop: Smallest share of a training crop; None for the middle square, as in a test.
        flip: Mirror half of the images.
    """

    def __init__(
        self, files: ImageFiles, size: int, *, seed: int = 0, crop: float | None = None, flip: bool = False
    ) -> None:
        self.files, self.size, self.seed = files, size, seed
        self.crop, self.flip = crop, flip

    def __getitems__(self, views: Sequence[View]) -> Loaded:
        """Images (B, 3, size, size) uint8 in channels_last and labels (B,); a line where one is broken."""
        images = np.empty((len(views), self.size, self.size, 3), np.uint8)
        for place, (index, epoch) in enumerate(views):
            try:
                images[place] = self._decode(index, epoch)
            except MemoryError:  # says nothing of the image
                raise
            except Exception as error:  # damaged images raise nearly anything
                return f"{self.files.path(index)} cannot be decoded: {why(error)}"
        labels = torch.from_numpy(self.files.labels[[index for index, _ in views]])
        return torch.from_numpy(images).permute(0, 3, 1, 2), labels

    def _decode(self, index: int, epoch: int) -> NDArray[np.uint8]:
        path = self.files.path(index)
        if self.crop is None:
            return decode_square(path, self.size)
        draws = np.random.default_rng((self.seed, epoch, index)).random(5)
        pixels = decode_crop(path, self.size, Crop(self.crop, tuple(draws.tolist())).box)
        return pixels[:, ::-1] if self.flip and draws[4] < 0.5 else pixels


def stream(
    views: Views, batches: Sequence[list[View]] | Iterator[list[View]], *, workers: int, pinned: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Decode batches in order, ``workers`` processes ahead of who asks; two batches each are in memory.

    Raises:
        DataError: If an image is broken; the line names its file.
    """
    loader = DataLoader(
        views,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pinned,
        worker_init_fn=_stand_apart,
        multiprocessing_context=_way_to_start() if workers else None,
    )
    with _signals_wait():
        decoded = iter(loader)  # where the workers start
    for loaded in decoded:
        if isinstance(loaded, str):
            raise DataError(loaded)
        yield loaded


@contextmanager
def lost_workers() -> Iterator[None]:
    """Around all that goes on while workers decode: torch raises the end of one wherever the training is.

    Raises:
        DataError: If a worker has ended: as a rule the system killed it, as memory ran out; or if one, or
            this process, was refused memory.
    """
    advice = "fewer --workers or a smaller --batch-size take less of it"
    try:
        yield
    except MemoryError as error:
        raise DataError(f"memory ran out: {advice}") from error
    except RuntimeError as error:  # of which torch's has no type of its own
        if not str(error).startswith("DataLoader worker"):
            raise
        found = f"a process that decodes has ended ({why(error).rstrip('.')})"
        raise DataError(f"{found}: where memory ran out, {advice}") from error


def _way_to_start() -> Any:
    """How workers start: None, torch's own way, or under torchrun forks of a process that has one thread.

    Such a server leaves the threads of gloo and NCCL behind, in whose middle CPython can hang in a fork. It
    takes the time of importing torch, 3 s where it was measured, once for a rank; its forks then take a tenth
    of a second, as forks of the rank do, where "spawn" takes those 3 s for each worker, and again for every
    test. A process alone has none of these threads, and its workers start as Python has it: on Linux as forks
    of it, which share the names of the images, from Python 3.14 on as forks of a server, which is prepared
    here as well; on macOS and Windows by "spawn".
    """
    alone = not (dist.is_available() and dist.is_initialized())
    if sys.platform == "win32" or (alone and multiprocessing.get_start_method() != "forkserver"):
        return None
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "numpy.random", "PIL.Image"])
    resource_tracker.ensure_running()  # here, as Python lets signals through where it starts
    return context


_STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Around the start of workers, who inherit it: none is stopped before it stands apart, nor their server.

    A signal asks the training to stop after its step; a loader that has lost a worker to it would raise an
    error instead, and no checkpoint would be written.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stand_apart(worker: int) -> None:
    """Leave the group of processes that Ctrl-C and torchrun signal as a whole, in the worker itself."""
    if sys.platform == "win32":  # where there are no such groups
        return
    os.setpgid(0, 0)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End where the training was killed: torch's workers watch their server, which they keep alive."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _as_it_is(loaded: Any) -> Any:
    return loaded
