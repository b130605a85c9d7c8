"""Keras 3: a ``PyDataset`` of mixed batches, for any backend.

Use it::

    from batchmix.adapters.keras import MixUpDataset
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(MixUpDataset(x, y, num_classes=10), validation_data=(x_val, to_categorical(y_val, 10)))

Where is the batch intercepted? In the data that ``fit`` reads, on the host: batches are mixed as torch
tensors and handed on as NumPy arrays, whatever the backend computes with. (``KERAS_BACKEND=torch`` in the
environment needs no other framework; Keras' own default is TensorFlow.)

How is the loss reached? Keras losses take arrays, so a mixed target arrives as probabilities, (B,
num_classes): losses of probabilities take them, ``CategoricalCrossentropy`` and its focal form for instance,
and those of class ids (``SparseCategoricalCrossentropy``) do not. Float targets (one-hot, multi-hot, values)
are blended: for a loss that is linear in its target that is the mixed loss, for squared error it has the same
gradient.

How is evaluation left untouched? Validation data do not pass here. The loss wants them as probabilities too:
``keras.utils.to_categorical``, or for a data set ``MixUpDataset(data, mixer=batchmix.Mixup(0),
num_classes=10)``, since alpha 0 mixes nothing; with the mixer's ``normalize``, where that of the training has
one. The metric ``"accuracy"`` compares with the label of larger weight during training; in validation it is
the plain accuracy. The ``class_weight`` of ``fit`` takes the weight of that label for the whole sample: give
class weights to the loss.

Batches are read one after another, in the process that trains. Where reading is slow, give it to a torch
``DataLoader`` with workers: it loads for every backend, and the mixing is done here, where its draws are in
order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from batchmix.core.batches import Kinds
from batchmix.core.plan import describe
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError, needs
from batchmix.methods.mixup import given_or_mixup
from batchmix.mixer import Mixer

with needs("keras"):
    try:
        import keras
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing not in ("tensorflow", "jax"):
            raise
        # Keras is there; its backend is TensorFlow unless it is told otherwise.
        raise ModuleNotFoundError(
            f"this needs {missing}, the backend of Keras here, or KERAS_BACKEND=torch in the environment"
        ) from None

__all__ = ["MixUpDataset"]


class MixUpDataset(keras.utils.PyDataset):
    """Mixed batches of arrays, or of a data set.

    ``mixer.state_dict()`` at the end of a pass over the data, which an epoch is without ``steps_per_epoch``,
    is all that has to be kept to resume the same draws.

    Args:
        x: Samples (N, ...) as an array or tensor, or several in a list, tuple or dict; or a ``PyDataset``, a
            torch ``DataLoader`` or another sized iterable, of batches ``(x, y)``.
        y: Targets of the arrays ``x``: class ids (N,) or (N, 1), or floats: probabilities or values; or masks
            of class ids (N, H, W) or (N, H, W, 1).
        mixer: What mixes, such as ``bm.CutMix(1.0)``, or the ``alpha`` of ``bm.Mixup``; 0.4 if left out.
        num_classes: K, where targets are class ids. Masks that are pasted, as by CutMix, stay ids, and need
            none.
        batch_size: Of arrays; 32 if left out. A data set has its own.
        shuffle: Whether arrays are read in another order each pass, drawn from the mixer's seed and step.
            (The ``shuffle`` of ``fit`` changes the order of whole batches.)
        data_format: ``"channels_last"`` or ``"channels_first"``, of images (B, H, W, C) and series (B, steps,
            features); that of ``keras.config.image_data_format()`` if left out. Images without channels
            (B, H, W) would pass for series, of which steps are cut: give ``x[..., None]``.
        kinds: What an array is where that is in doubt, as for a mixer: ``{"y": "segmentation"}``.
        options: In place of a mixer, the arguments of ``Mixup``: ``MixUpDataset(x, y, alpha=0.2, seed=1)``.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> images, labels = torch.rand(10, 8, 8, 3), torch.arange(10) % 3
        >>> data = MixUpDataset(images, labels, alpha=0.4, seed=0, num_classes=3, batch_size=4)
        >>> x, y = data[0]
        >>> len(data), x.shape, y.shape
        (3, (4, 8, 8, 3), (4, 3))
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        mixer: Mixer | float | None = None,
        num_classes: int | None = None,
        batch_size: int | None = None,
        shuffle: bool = True,
        data_format: str | None = None,
        kinds: Kinds | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.mixer = given_or_mixup(mixer, options)
        if num_classes is not None and not _is_count(num_classes):
            raise MixError.of("num_classes", num_classes, "a whole number >= 1, or None for float targets")
        self.num_classes = num_classes
        self.kinds = kinds
        self.data_format = keras.config.image_data_format() if data_format is None else data_format
        if self.data_format not in ("channels_last", "channels_first"):
            raise MixError.of("data_format", data_format, "'channels_last' or 'channels_first'")
        self.source = _source(x, y, batch_size, shuffle, self.mixer)
        self._begun_at: int | None = None

    @property
    def num_batches(self) -> int | None:
        """Batches an epoch; None for an infinite data set."""
        number: int | None = self.source.num_batches
        return number

    def __len__(self) -> int:
        """Batches an epoch."""
        if self.num_batches is None:
            raise TypeError("an infinite data set has no length")
        return self.num_batches

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Batch ``index``, mixed by the mixer's next draw: samples and targets as NumPy arrays.

        Raises:
            MixError: If the batch is not ``(x, y)``, or the mixer does not take it.
        """
        batch = self.source[index]
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            got = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else describe(batch)
            raise MixError(f"x takes a data set of batches (x, y), without sample weights, got {got}")
        x, y = _tensors("x", batch[0]), _tensors("y", batch[1])
        if isinstance(x, Tensor) and x.dtype == torch.uint8 and x.dim() > 2 and self.mixer.normalize is None:
            floats = "floating point images, such as x.astype('float32') / 255"
            raise MixError(f"x takes {floats}, got uint8 {tuple(x.shape)}")
        dims = self._dims_with_channels(x)
        if isinstance(y, Tensor) and "y" not in (self.kinds or {}):
            self._check_target(y, dims)
        x, y = (_map(_channels_first, part, dims) for part in (x, y))
        mixed = self.mixer(x, y, kinds=self.kinds)
        x, y = (_map(_channels_back, part, dims) for part in mixed)
        return keras.tree.map_structure(_array, x), _map(self._dense, y, dims)

    @property
    def workers(self) -> int:
        """1. Keras asks for it as it takes up a data set, and then alone: ``on_epoch_end`` has to know."""
        self._begun_at = self.mixer.step
        return 1

    def on_epoch_begin(self) -> None:
        """Called by Keras."""
        self.source.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Called by Keras after an epoch, and once before the first of a ``fit``.

        What comes before the first is a look at a batch or two, to build a model that is not built yet.
        Training starts at the same draw, and with a pass of its own, with and without it.
        """
        if self._begun_at is not None:
            self.mixer.step, self._begun_at = self._begun_at, None
            if isinstance(self.source, _Passes):
                self.source.leave()
        self.source.on_epoch_end()

    def _dims_with_channels(self, x: Any) -> float:
        """From how many dimensions on a part of this batch has positions, and its channels last.

        Those of the samples, since a mask has fewer. A series stays as it is where nobody cuts its positions,
        or who does has them there.
        """
        if self.data_format != "channels_last":
            return math.inf
        samples = max((part.dim() for part in keras.tree.flatten(x)), default=0)
        return max(samples, 4 if self.mixer.takes in ("any samples", "token sequences") else 3)

    def _check_target(self, y: Tensor, dims: float) -> None:
        """A single target is class ids or floats, and ``num_classes`` says how many of either."""
        if not y.is_floating_point():
            if (y.dim() == 2 or y.dim() >= dims) and y.shape[-1] > 1:
                raise MixError(
                    "y takes one class id for each sample or position, or floats where it is one-hot or "
                    f"multi-hot, such as y.astype('float32'), got {describe(y)}"
                )
        elif self.num_classes is not None and (y.dim() < 2 or y.shape[-1] != self.num_classes):
            raise MixError(
                f"num_classes takes whole numbers as class ids, or floats (B, {self.num_classes}); leave it "
                f"out for values, got {describe(y)}"
            )

    def _dense(self, target: Any, dims: float) -> Any:
        if not isinstance(target, MixedTarget):  # what the mixer hands on as it is
            return _array(target) if isinstance(target, Tensor) else target
        if target.dtype.is_floating_point:
            flat = target.map(lambda part: part.reshape(len(part), -1))
            return _array(flat.dense(flat.shape[1]).reshape(target.shape))
        if self.num_classes is None:
            raise MixError(
                "num_classes takes the number of classes where targets are class ids, or None where they are "
                f"floats, such as y.astype('float32') of 0 and 1, got None and {describe(target.a)}"
            )
        if target.shape[-1] == 1 and (target.dim() == 2 or target.dim() >= dims):
            target = target.map(lambda part: part.squeeze(-1))
        return _array(target.dense(self.num_classes))


class _Passes:
    """Data that are read pass after pass.

    A pass ends where a batch is asked for again: an epoch of Keras may be a part of one
    (``steps_per_epoch``), and takes its batches in any order (the ``shuffle`` of ``fit``).
    """

    def __init__(self, num_batches: int) -> None:
        self.num_batches = num_batches
        self.leave()

    def leave(self) -> None:
        """The next batch begins a pass."""
        self.seen: set[int] = set()

    def read(self, index: int) -> Any:
        """A batch of this pass."""
        raise NotImplementedError

    def on_epoch_begin(self) -> None:
        pass

    def on_epoch_end(self) -> None:
        if len(self.seen) == self.num_batches:
            self.leave()  # a loader's workers need not wait for the next one

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self.num_batches:
            raise IndexError(f"batch {index} of {self.num_batches}")
        if index in self.seen:
            self.leave()
        self.seen.add(index)
        return self.read(index)


class _Arrays(_Passes):
    """Arrays cut into batches, in an order that a seed and a step determine."""

    def __init__(self, x: Any, y: Any, batch_size: int, shuffle: bool, mixer: Mixer) -> None:
        self.parts = _tensors("x", x), _tensors("y", y)
        if any(part.dim() == 0 for part in keras.tree.flatten(self.parts)):
            raise MixError("x and y take arrays, or several in a list, got a list of numbers: np.array(y)")
        lengths = {len(part) for part in keras.tree.flatten(self.parts)}
        if len(lengths) != 1:
            raise MixError(f"y takes as many targets as x has samples, got lengths {sorted(lengths)}")
        self.size, self.batch_size, self.shuffle, self.mixer = lengths.pop(), batch_size, shuffle, mixer
        if not self.size:
            raise MixError("x takes at least one sample, got none")
        super().__init__(math.ceil(self.size / batch_size))

    def leave(self) -> None:
        super().leave()
        self.order: Tensor | None = None

    def draw_order(self) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.size)
        place = f"{self.mixer.seed}/order/{self.mixer.step}".encode()
        seed = int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "big") >> 1
        return torch.randperm(self.size, generator=torch.Generator().manual_seed(seed))

    def read(self, index: int) -> Any:
        if self.order is None:
            self.order = self.draw_order()
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return keras.tree.map_structure(lambda part: part[rows], self.parts)


class _Stream(_Passes):
    """A sized iterable of batches, read in its own order."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        super().__init__(len(loader))

    def leave(self) -> None:
        super().leave()
        self.batches: Iterator[Any] = iter(())

    def read(self, index: int) -> Any:
        for batch in self.batches:
            return batch
        self.batches = iter(self.loader)
        return next(self.batches)


def _source(x: Any, y: Any, batch_size: Any, shuffle: Any, mixer: Mixer) -> Any:
    """Something with ``[index]``, ``num_batches``, ``on_epoch_begin`` and ``on_epoch_end``."""
    is_dataset = isinstance(x, keras.utils.PyDataset)
    if y is not None and not is_dataset:
        size = 32 if batch_size is None else batch_size
        if not _is_count(size):
            raise MixError.of("batch_size", batch_size, "a whole number >= 1")
        if not isinstance(shuffle, bool):
            raise MixError.of("shuffle", shuffle, "True or False")
        return _Arrays(x, y, size, shuffle, mixer)
    if y is not None:
        raise MixError("y takes nothing where x is a data set, which brings its targets")
    if batch_size is not None:
        raise MixError.of("batch_size", batch_size, "nothing where x is a data set, which has its own")
    if isinstance(x, MixUpDataset):
        raise MixError("x takes data that are not mixed yet, got a MixUpDataset")
    if is_dataset:
        if x.workers > 1 or x.use_multiprocessing:
            raise MixError(
                "x takes a PyDataset with workers=1, which is read in order, "
                f"got workers={x.workers}, use_multiprocessing={x.use_multiprocessing}: "
                "for loading in parallel give a torch DataLoader with num_workers"
            )
        return x
    if isinstance(x, (Tensor, tuple, list, dict)) or hasattr(x, "__array__"):
        raise MixError("y takes the targets where x is arrays, got None")
    if not (hasattr(x, "__iter__") and hasattr(x, "__len__")):
        raise MixError.of(
            "x", x, "arrays, a PyDataset, a torch DataLoader or another sized iterable of (x, y)"
        )
    return _Stream(x)


def _tensors(name: str, parts: Any) -> Any:
    """The same structure of tensors on the CPU."""
    return keras.tree.map_structure(lambda part: _tensor(name, part), parts)


def _tensor(name: str, part: Any) -> Tensor:
    if min(getattr(part, "strides", None) or (0,)) < 0:  # x[..., ::-1]: torch reads no array backwards
        part = part.copy()
    try:
        return torch.as_tensor(part, device="cpu")
    except (TypeError, ValueError, RuntimeError):  # names of classes, objects
        such = ", such as np.unique(y, return_inverse=True)[1] for names of classes" if name == "y" else ""
        raise MixError(f"{name} takes arrays of numbers{such}, got {describe(part)}") from None


def _map(function: Callable[[Any, float], Any], parts: Any, dims: float) -> Any:
    return keras.tree.map_structure(lambda part: function(part, dims), parts)


def _channels_first(part: Tensor, dims: float) -> Tensor:
    """A view with the positions behind the channels, which is where methods with boxes look for them."""
    return part.movedim(-1, 1) if part.dim() >= dims else part


def _channels_back(part: Any, dims: float) -> Any:
    if isinstance(part, MixedTarget):
        return part.map(lambda target: _channels_back(target, dims))
    return part.movedim(1, -1) if isinstance(part, Tensor) and part.dim() >= dims else part


def _array(part: Tensor) -> Any:
    return (part.float() if part.dtype == torch.bfloat16 else part).numpy()  # NumPy has no bfloat16


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
