"""Ignite: mixing as the ``prepare_batch`` of a supervised trainer.

Use it::

    from batchmix.adapters.ignite import mixup_batch
    trainer = create_supervised_trainer(model, optimizer, loss_fn, prepare_batch=mixup_batch())

Where is the batch intercepted? In ``prepare_batch``, the step's own first act: after the batch was moved to
the device, before the model sees it. ``engine.state.batch`` stays the batch as it was loaded.

How is the loss reached? ``loss_fn`` gets the MixedTarget as its ``y``: torch's losses take it as it stands,
any other one is wrapped, ``batchmix.MixUpLoss(loss_fn)``. The same holds for ``output_transform``, which
counts a training accuracy as ``y.expected_accuracy(y_pred)``; Ignite's metrics take plain targets only.

How is evaluation left untouched? An evaluator has a ``prepare_batch`` of its own. One that was handed to both
is safe too: where no gradient is recorded, as in every evaluator, it mixes nothing. uint8 images then stay as
they are, where the mixer has ``normalize``: let the evaluator's own ``prepare_batch`` normalise them.

Make the mixer first and hand it over, ``mixup_batch(mixer)``: it has ``state_dict``, so that
``Checkpoint({"trainer": trainer, "model": model, "mixer": mixer}, ...)`` resumes the draws with the rest, and
the ``to_save`` of ``FastaiLRFinder`` gives back those that a search takes. On several processes give it a
``seed``: a checkpoint is the first one's, and without a seed each draws by another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from batchmix.core.batches import Kinds
from batchmix.core.plan import describe
from batchmix.errors import MixError, needs
from batchmix.methods.mixup import given_or_mixup
from batchmix.mixer import Mixer

with needs("ignite"):
    from ignite.utils import apply_to_tensor, convert_tensor

__all__ = ["mixup_batch"]

PrepareBatch = Callable[..., tuple[Any, Any]]


def mixup_batch(
    mixer: Mixer | float | None = None,
    *,
    prepare_batch: PrepareBatch | None = None,
    kinds: Kinds | None = None,
    **options: Any,
) -> PrepareBatch:
    """What ``create_supervised_trainer`` and ``supervised_training_step`` take as ``prepare_batch``.

    Args:
        mixer: What mixes, such as ``bm.CutMix(1.0)``, or the ``alpha`` of ``bm.Mixup``; 0.4 if left out.
        prepare_batch: Your own, called as ``prepare_batch(batch, device=..., non_blocking=...)``, and with
            whatever else the engine hands on, as MONAI's do their ``to_kwargs``; what it returns, ``(x, y)``,
            is mixed. If left out, the pair is moved to the device, which is what Ignite does. Batches of
            MONAI, which are dicts, take ``monai.engines.default_prepare_batch``.
        kinds: What a tensor is where that is in doubt, as for a mixer: ``{"y": "segmentation"}``.
        options: In place of a mixer, the arguments of ``bm.Mixup``: ``mixup_batch(alpha=0.2, seed=1)``.

    Returns:
        A callable of ``(batch, device, non_blocking)``, and of arguments of ``Tensor.to`` beside them, that
        returns the mixed samples and their MixedTarget, or ``(x, y)`` unmixed where no gradient is recorded.

    Raises:
        MixError: If an argument is not of the form above; while training, if a batch is not.

    Example:
        >>> prepare_batch = mixup_batch(0.4, seed=0)
        >>> x, y = prepare_batch((torch.rand(8, 3, 32, 32), torch.randint(10, (8,))))
        >>> type(y).__name__
        'MixedTarget'
    """
    mix = given_or_mixup(mixer, options)
    prepare = _to_device if prepare_batch is None else prepare_batch
    if not callable(prepare):
        raise MixError.of("prepare_batch", prepare, "a callable of batch, device and non_blocking")

    def prepare_mixed(
        batch: Any, device: torch.device | str | None = None, non_blocking: bool = False, **to: Any
    ) -> tuple[Any, Any]:
        pair = prepare(batch, device=device, non_blocking=non_blocking, **to)
        if not torch.is_grad_enabled():
            return pair
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise MixError(f"prepare_batch takes a callable that returns (x, y), got {_parts(pair)}")
        return mix(*pair, kinds=kinds)

    return prepare_mixed


def _to_device(
    batch: Any, device: torch.device | str | None, non_blocking: bool, **to: Any
) -> tuple[Any, Any]:
    """What Ignite does with a batch unless it is told otherwise, and MONAI with more arguments."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise MixError(
            f"batch takes (x, y), and any other is made one by your own prepare_batch, got {_parts(batch)}"
        )

    def move(part: Any) -> Any:
        part = convert_tensor(part, device=device, non_blocking=non_blocking)
        return apply_to_tensor(part, lambda tensor: tensor.to(**to)) if to else part

    x, y = batch
    return move(x), move(y)


def _parts(batch: Any) -> str:
    return f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else describe(batch)
