"""Images on the device: one indexed read gives a batch shifted, flipped and normalised."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# Mean and standard deviation of the CIFAR-10 training images, per channel, in [0, 1].
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


class ImageBatches:
    """Training images, kept on the device, and the batches of every step.

    The order of an epoch and the shifts of a step are functions of the seed and the epoch or step alone, so
    that a run can go on from anywhere. Flips alternate by epoch: each image is seen both ways in turn.

    Args:
        images: (N, H, W, 3) uint8.
        labels: (N,) int64, on the same device.
        batch_size: B.
        shift: Largest shift in pixels, with reflected borders.
        seed: Of orders, flips and shifts.
        mean: Of the images per channel, in [0, 1]; that of CIFAR-10 if left out.
        std: Standard deviation, likewise.
        compiled: Cut the windows with a compiled program, whose values are the same to rounding.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        shift: int,
        seed: int,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        compiled: bool = False,
    ) -> None:
        self.labels = labels
        self.compiled = compiled
        self.mean, self.std = mean, std
        self.batch_size = batch_size
        self.shift = shift
        self.seed = seed
        self.height, self.width = images.shape[1:3]
        self.padded = _pad(images, shift)
        self.flipped_first = torch.rand(len(images), generator=self._generator("flip", 0)) < 0.5
        self.rows = torch.arange(self.height, device=images.device)
        self.columns = torch.arange(self.width, device=images.device)
        self._order: tuple[int, Tensor] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass."""
        return len(self.labels) // self.batch_size

    def at(self, step: int, size: int, part: slice = slice(None), *, crop: int = 0) -> tuple[Tensor, Tensor]:
        """The batch of ``step``: (B, 3, size, size) float32 normalised in channels_last, (B,) labels.

        Of a ``part`` of the batch the images and shifts are those that it has in the whole. A ``crop`` above
        0 is the side of a square cut from each image, itself square: from anywhere in it, or as far from its
        centre as the largest shift if that is farther.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        chosen = self._order_of(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        generator = self._generator("shift", step)
        first, choices = self._corners(crop)
        top, left = first + torch.randint(choices, (2, len(chosen), 1), generator=generator)[:, part]
        chosen = chosen[part]
        flip = self.flipped_first[chosen] ^ bool(epoch % 2)
        # Four numbers an image travel to the device, and its pixels are counted there.
        drawn = torch.stack([chosen, top[:, 0], left[:, 0], flip.long()])
        drawn = without_waiting(drawn, self.padded.device)
        of_rows, of_columns = self.rows[: crop or None], self.columns[: crop or None]
        grey_levels = _in_grey_levels(tuple(self.mean), tuple(self.std), self.padded.device)
        cut = _compiled_windows() if self.compiled else _windows
        images = cut(self.padded, drawn, of_rows, of_columns, *grey_levels)
        return resize(images, size), self.labels[drawn[0]]

    def _corners(self, crop: int) -> tuple[int, int]:
        """At which rows and columns of the padded images a window begins: the first, and how many."""
        most = 2 * self.shift  # from the first to the last
        if not crop:
            return 0, most + 1
        spare = self.height - crop
        reach = max(spare, most)
        return (spare + most - reach) // 2, reach + 1

    def _order_of(self, epoch: int) -> Tensor:
        if self._order is None or self._order[0] != epoch:
            order = torch.randperm(len(self.labels), generator=self._generator("order", epoch))
            self._order = epoch, order
        return self._order[1]

    def _generator(self, purpose: str, number: int) -> torch.Generator:
        """A generator for one purpose at one epoch or step."""
        places = {"flip": 0, "order": 1, "shift": 2}
        return torch.Generator().manual_seed((self.seed * 3 + places[purpose]) * 10_000_019 + number)


def _windows(
    padded: Tensor, drawn: Tensor, of_rows: Tensor, of_columns: Tensor, centre: Tensor, spread: Tensor
) -> Tensor:
    """Normalised windows of images; ``drawn`` is (4, B): which image, its top, its left, whether mirrored."""
    chosen, top, left, flip = drawn[:, :, None].unbind()
    rows = top + of_rows
    columns = left + torch.where(flip.bool(), of_columns.flip(0), of_columns)
    images = padded[chosen[:, :, None], rows[:, :, None], columns[:, None, :]]
    return ((images.float() - centre) / spread).permute(0, 3, 1, 2)


@functools.cache
def _compiled_windows() -> Callable[..., Tensor]:
    """The same as one program for each size of windows: it reads and writes every pixel once."""
    compiled: Callable[..., Tensor] = torch.compile(_windows, dynamic=False)
    return compiled


def normalize(images: Tensor, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """(N, H, W, 3) uint8 to (N, 3, H, W) float32 of mean 0 and standard deviation 1, in channels_last."""
    centre, spread = _in_grey_levels(tuple(mean), tuple(std), images.device)
    return ((images.float() - centre) / spread).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=64)  # to copy them to a device is to wait for it
def _in_grey_levels(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel of uint8 images; not to be written to."""
    return torch.tensor(mean, device=device) * 255, torch.tensor(std, device=device) * 255


def without_waiting(numbers: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device, without waiting for what the device still does.

    A GPU copies from memory that cannot be paged out while the host goes on; from other memory it may not.
    """
    if device.type == "cuda":
        numbers = numbers.pin_memory()
    return numbers.to(device, non_blocking=True)


def resize(x: Tensor, size: int) -> Tensor:
    """Square images of ``size`` pixels, (N, C, size, size), averaged over what each pixel covers."""
    if x.shape[-2:] == (size, size):
        return x
    return F.interpolate(x, size=(size, size), mode="bilinear", antialias=True)


def _pad(images: Tensor, border: int) -> Tensor:
    """(N, H, W, 3) with ``border`` pixels reflected on every side."""
    rows = _reflected(images.shape[1], border).to(images.device)
    columns = _reflected(images.shape[2], border).to(images.device)
    return images[:, rows][:, :, columns].contiguous()


def _reflected(length: int, border: int) -> Tensor:
    """Indices of a line with its border reflected: 2 1 0 1 2 ... for a border of 2."""
    place = torch.arange(-border, length + border).abs()
    return torch.where(place >= length, 2 * (length - 1) - place, place)
