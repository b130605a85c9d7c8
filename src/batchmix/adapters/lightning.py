"""Lightning: one callback, and the training batches of any LightningModule are mixed.

Use it::

    from batchmix.adapters.lightning import MixUpCallback

    trainer = Trainer(callbacks=[MixUpCallback(alpha=0.4)])
    trainer.fit(model, train_loader, val_loader)

``batchmix.adapters.pytorch_lightning`` has the same callback for the package of that name.

Where is the batch intercepted?
    In ``trainer.strategy.batch_to_device``, for the time of ``fit``. A callback cannot replace a batch, and
    this is the last place that it passes, whether module or datamodule prepares it: it is on the device by
    then, and ``on_after_batch_transfer`` has run. The module is not touched. ``training_step`` and the hooks
    around it get a new batch; with accumulated gradients, each micro-batch has a draw of its own.

How is the loss reached?
    ``training_step`` finds a ``MixedTarget`` in the place of its ``y``. Torch's losses take it as it stands,
    any other one is called as ``bm.mixed_loss(loss_fn, logits, y)``. Metrics (torchmetrics, say) do not take
    it: in ``training_step`` log ``y.expected_accuracy(logits)``, or give them ``y.dominant``.

How is evaluation left untouched?
    Only what the training loop loads is mixed. The sanity check, validation within ``fit``, ``validate``,
    ``test`` and ``predict``, and a batch that another callback moves to the device for itself, stay as they
    are; uint8 images too, where the mixer has ``normalize``: normalise them where ``trainer.training`` is
    False, in ``on_after_batch_transfer``.

A checkpoint keeps the state of the mixer: ``fit(ckpt_path=...)`` goes on with the very same draws, in the
middle of an epoch too. All processes of a run have the seed of the first one, and draw apart by their ranks.
Those that share a batch, as under tensor parallelism (``ModelParallelStrategy``), draw alike: the ranks are
those that the strategy gives to samplers, unless the mixer has a ``rank``. What the processes that
``ddp_spawn`` and ``ddp_notebook`` start have counted ends with them: another Trainer with the same callback
begins with the same draws, unless it goes on from a checkpoint.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from torch import Tensor

from batchmix.core.batches import Kinds
from batchmix.core.draws import as_rank
from batchmix.core.plan import describe
from batchmix.errors import MixError, needs
from batchmix.methods.mixup import given_or_mixup
from batchmix.mixer import Mixer

with needs("lightning"):
    try:
        from lightning.pytorch import Callback
    except ModuleNotFoundError:  # the same framework under its older name
        from pytorch_lightning import Callback

__all__ = ["MixUpCallback"]

Key = str | int


class MixUpCallback(Callback):
    """Mixes the training batches of a Trainer.

    Args:
        mixer: What mixes, such as ``bm.CutMix(1.0)``, or the ``alpha`` of ``bm.Mixup``; 0.4 if left out.
        x: Where a batch has its samples: a key of a dict, a position in a tuple or list, or a sequence of
            these for several inputs. A dot leads further in: ``"labelled.0"``; a batch of a CombinedLoader
            of which that loader has ended stays as it is. If left out, a batch is ``(x, y)``. Batches of
            other types, dataclasses too, are not taken. What is not named stays as it is.
        y: Where it has its targets, likewise.
        kinds: What a tensor is where that is in doubt, as for a mixer: ``{"y": "segmentation"}``, or with
            several keys ``{"y.mask": "segmentation"}``.
        options: In place of a mixer, the arguments of ``bm.Mixup``: ``MixUpCallback(alpha=0.2, seed=1)``.

    Attributes:
        mixer: The mixer in use.

    Raises:
        MixError: If an argument is not of the form above. While training, one line says so where a batch does
            not have what ``x`` and ``y`` name, or another callback mixes that too.

    Example: (a trainer of two loaders, ``trainer.fit(model, {"faces": ..., "scenes": ...})``)
        >>> import batchmix as bm
        >>> faces = MixUpCallback(0.4, seed=0, x="faces.0", y="faces.1")
        >>> scenes = MixUpCallback(bm.CutMix(1.0, seed=1), x="scenes.0", y="scenes.1")
        >>> faces.state_dict()  # both are callbacks of the Trainer
        {'seed': 0, 'step': 0}
    """

    def __init__(
        self,
        mixer: Mixer | float | None = None,
        *,
        x: Key | Sequence[Key] | None = None,
        y: Key | Sequence[Key] | None = None,
        kinds: Kinds | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if (x is None) != (y is None):
            raise MixError(f"x and y take a key each, or are both left out, got x={x!r}, y={y!r}")
        self.mixer = given_or_mixup(mixer, options)
        self.x = _check_keys("x", x)
        self.y = _check_keys("y", y)
        self.kinds = kinds
        self._in_step: tuple[dict[str, int], Any, int] | None = None
        self._hook: _MixingHook | None = None
        self._place: int | None = None

    # For the time of fit

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Begin to mix what the trainer loads for training."""
        if stage != "fit":
            return
        if "dataloader_iter" in inspect.signature(pl_module.training_step).parameters:
            raise MixError(
                "training_step takes a batch where a callback mixes it, got one of dataloader_iter: "
                "call the mixer in it, x, y = mixer(x, y)"
            )
        self._refuse_others(trainer.callbacks)
        # Without a seed of its own each process has another one, and a checkpoint keeps that of the first.
        self.load_state_dict(trainer.strategy.broadcast(self.mixer.state_dict()))
        self._intercept(trainer)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Leave the trainer as it was found."""
        self._release()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Leave it so after an error or Ctrl-C too, where ``teardown`` is not called."""
        self._release()

    def _intercept(self, trainer: Any) -> None:
        self._release()
        # The rank by which samplers deal out batches: processes that share one have the same.
        for_samplers = getattr(trainer.strategy, "distributed_sampler_kwargs", None) or {}
        self._place = for_samplers.get("rank")
        self._hook = _MixingHook(trainer, self._mix)

    def _release(self) -> None:
        if self._hook is not None:
            self._hook.release()
            self._hook = None

    def _refuse_others(self, callbacks: Sequence[Callback]) -> None:
        """Refuse a second callback that would mix what this one mixes."""
        for other in callbacks:
            if isinstance(other, MixUpCallback) and other is not self and self._meets(other):
                raise MixError(
                    "callbacks takes one MixUpCallback for a part of the batch, of several methods as "
                    "bm.Choice({bm.Mixup(0.4): 0.5, bm.CutMix(1.0): 0.5}), "
                    f"got {_where(self.x, self.y)} and {_where(other.x, other.y)}"
                )

    def _meets(self, other: MixUpCallback) -> bool:
        """Whether a place of the one is a place of the other, or leads to it; all do where none are given."""
        ours, theirs = ((*_each(one.x), *_each(one.y)) for one in (self, other))
        return not (ours and theirs) or any(_leads_to(a, b) or _leads_to(b, a) for a in ours for b in theirs)

    def _mix(self, batch: Any, trainer: Any) -> Any:
        """The same batch with its samples mixed and its targets paired; the one given stays as it is."""
        progress = trainer.fit_loop.epoch_loop.batch_progress.total
        self._in_step = self.mixer.state_dict(), progress, progress.processed
        if any(_has_ended(batch, key) for key in (*_each(self.x), *_each(self.y))):
            return batch
        x, y = self._keys(batch, trainer.train_dataloader)
        samples, targets = _take(batch, x), _take(batch, y)
        place = self._place if self.mixer.rank is None else None
        with nullcontext() if place is None else as_rank(place):
            mixed = self.mixer(samples, targets, kinds=self.kinds)
        for keys, part in zip((x, y), mixed, strict=True):
            batch = _put(batch, keys, part)
        return batch

    def _keys(self, batch: Any, loader: Any) -> tuple[Any, Any]:
        """Where this batch has its samples and its targets."""
        if self.x is None:
            pair = isinstance(batch, (tuple, list)) and len(batch) == 2
            if pair and not isinstance(loader, (tuple, list, Mapping)):
                return 0, 1
            raise MixError(
                "x and y take the keys of samples and targets in a batch that is not a pair of them, as in "
                f"MixUpCallback({_example(batch)}), got {_shown(batch)}"
            )
        for name, keys in (("x", self.x), ("y", self.y)):
            for key in _each(keys):
                if not _has(batch, key):
                    raise MixError(f"{name} takes keys of the batch, {_shown(batch)}, got {key!r}")
        return self.x, self.y

    # Checkpoints

    @property
    def state_key(self) -> str:
        """The name of its state in a checkpoint, another one for each place that is mixed."""
        name: str = super().state_key
        return name if self.x is None else f"{name}({_where(self.x, self.y)})"

    def state_dict(self) -> dict[str, int]:
        """The mixer's state; within a step that of its beginning, since a resumed run makes the step anew."""
        if self._in_step is not None:
            before, progress, processed = self._in_step
            if progress.processed == processed:
                return before
        return self.mixer.state_dict()

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on where the state was taken."""
        self._in_step = None
        self.mixer.load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        # A copy of the callback intercepts nothing.
        return {**vars(self), "_in_step": None, "_hook": None}


class _MixingHook:
    """A ``batch_to_device`` for the trainer's strategy: the one that was there, and then the mixing.

    Several may stand one on another, and be released in any order; one that is released and still stood upon
    hands batches on.
    """

    def __init__(self, trainer: Any, mix: Callable[[Any, Any], Any]) -> None:
        self.trainer = trainer
        self.strategy = trainer.strategy
        self.mix: Callable[[Any, Any], Any] | None = mix
        self.found = vars(self.strategy).get("batch_to_device")
        self.batch_to_device = self.strategy.batch_to_device
        self.strategy.batch_to_device = self

    def __call__(self, batch: Any, *args: Any, **kwargs: Any) -> Any:
        batch = self.batch_to_device(batch, *args, **kwargs)
        if self.mix is None or batch is None or not self._is_for_training():
            return batch
        return self.mix(batch, self.trainer)

    def _is_for_training(self) -> bool:
        """Whether the training loop asks: Lightning notes for itself by which name it calls a hook."""
        module, name = self.trainer.lightning_module, "batch_to_device"
        return bool(self.trainer.training) and getattr(module, "_current_fx_name", name) == name

    def release(self) -> None:
        """Mix no more, and put back what was found, with all that was released before."""
        self.mix = None
        hook = first = vars(self.strategy).get("batch_to_device")
        while isinstance(hook, _MixingHook) and hook.mix is None:
            hook = hook.found
        if hook is not None:
            self.strategy.batch_to_device = hook
        elif first is not None:
            del self.strategy.batch_to_device


def _check_keys(name: str, keys: Any) -> Any:
    """One key, or several in a tuple, or None."""
    if keys is None or _is_key(keys):
        return keys
    if isinstance(keys, Sequence) and keys and all(map(_is_key, keys)):
        return tuple(keys)
    raise MixError.of(name, keys, "a key or a position in the batch, or several")


def _each(keys: Any) -> tuple[Key, ...]:
    """The same in a tuple."""
    if isinstance(keys, tuple):
        return keys
    return () if keys is None else (keys,)


def _is_key(key: Any) -> bool:
    return isinstance(key, (str, int)) and not isinstance(key, bool)


def _split(batch: Any, key: Key) -> tuple[Any, Key | None]:
    """The first key on the way, as the batch has it, and the way that is left."""
    if isinstance(batch, Mapping):
        if key in batch:
            return key, None
        first, _, rest = str(key).partition(".")
        return first, rest or None
    first, _, rest = str(key).partition(".")
    return int(first), rest or None


def _get(batch: Any, key: Key) -> Any:
    first, rest = _split(batch, key)
    return batch[first] if rest is None else _get(batch[first], rest)


def _leads_to(key: Key, other: Key) -> bool:
    """Whether the other place is this one, or further in."""
    return f"{other}.".startswith(f"{key}.")


def _where(x: Any, y: Any) -> str:
    """The two arguments as they are written."""
    return f"x={x!r}, y={y!r}"


def _step(batch: Any, key: Key) -> tuple[Any, Key | None] | None:
    """The part that a key leads to first, and the way that is left; None where it leads nowhere."""
    if not isinstance(batch, (tuple, list, Mapping)):
        return None
    try:
        first, rest = _split(batch, key)
        return batch[first], rest
    except (KeyError, IndexError, ValueError):
        return None


def _has(batch: Any, key: Key) -> bool:
    step = _step(batch, key)
    return step is not None and (step[1] is None or _has(step[0], step[1]))


def _has_ended(batch: Any, key: Key) -> bool:
    """Whether a None stands on the way, as a CombinedLoader has it for a loader that has ended."""
    step = _step(batch, key)
    if step is None or step[1] is None:
        return False
    return step[0] is None or _has_ended(step[0], step[1])


def _set(batch: Any, key: Key, value: Any) -> Any:
    """A copy of the batch, of the same type, with another value at this key."""
    first, rest = _split(batch, key)
    value = value if rest is None else _set(batch[first], rest, value)
    if isinstance(batch, Mapping):
        new: Any = copy.copy(batch)
        new[first] = value
        return new
    parts = list(batch)
    parts[first] = value
    return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)


def _take(batch: Any, keys: Any) -> Any:
    return {key: _get(batch, key) for key in keys} if isinstance(keys, tuple) else _get(batch, keys)


def _put(batch: Any, keys: Any, value: Any) -> Any:
    if not isinstance(keys, tuple):
        return _set(batch, keys, value)
    for key in keys:
        batch = _set(batch, key, value[key])
    return batch


def _shown(batch: Any) -> str:
    """What a batch consists of, on one line."""
    if isinstance(batch, Mapping):
        return f"a {type(batch).__name__} of {', '.join(map(repr, batch))}"
    if isinstance(batch, (tuple, list)):
        parts = (describe(part) if hasattr(part, "shape") else type(part).__name__ for part in batch)
        return f"a {type(batch).__name__} of {', '.join(parts)}"
    if isinstance(batch, Tensor):
        return describe(batch)
    return f"a {type(batch).__name__}, which is no dict, tuple or list"


def _example(batch: Any) -> str:
    """How x and y could be given for it."""
    if isinstance(batch, (tuple, list)):
        return "x='0.0', y='0.1'" if batch and isinstance(batch[0], (tuple, list)) else "x=0, y=1"
    if isinstance(batch, Mapping):
        first = next(iter(batch), None)
        if isinstance(batch.get(first), (tuple, list)):
            return f"x='{first}.0', y='{first}.1'"
    return "x='image', y='label'"
