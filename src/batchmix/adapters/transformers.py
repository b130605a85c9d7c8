"""Hugging Face ``Trainer``: one line after it is made, and its training batches are mixed.

Use it::

    from batchmix.adapters.transformers import mixup

    trainer = Trainer(model=model, args=args, train_dataset=train, eval_dataset=test)
    mixup(trainer, bm.Mixup(0.4))
    trainer.train()

A function rather than a subclass, so that it takes any Trainer: ``Seq2SeqTrainer``, or one of your own.

Where is the batch intercepted?
    In ``trainer.training_step``, once the batch is on the device. The collator is shared with evaluation, and
    a ``TrainerCallback`` cannot change a batch.

How is the loss reached?
    The labels arrive as a ``MixedTarget`` wherever the plain ones did: in the model's own loss, in
    ``compute_loss_func`` and in a ``compute_loss`` of your own; torch's losses take it. A
    ``label_smoothing_factor`` goes through ``F.cross_entropy``, which computes the same.

How is evaluation left untouched?
    ``evaluate`` and ``predict`` go through ``prediction_step``, which stays as it is: they, and
    ``compute_metrics`` with them, see plain batches. The training loss in the log is that of mixed batches.

Each ``train()`` begins with the draws at which the mixer stood when it was given to the trainer, so that the
trials of a ``hyperparameter_search`` are alike. A checkpoint keeps the state of the mixer in
``trainer_state.json``: ``train(resume_from_checkpoint=True)`` goes on with the very same draws. All processes
of a run have the seed of the first one, and draw apart by their ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from batchmix.core.batches import Kinds
from batchmix.core.plan import describe
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError, needs, why
from batchmix.methods.mixup import given_or_mixup
from batchmix.methods.tokencutmix import OF_TOKENS, TokenCutMix
from batchmix.mixer import Mixer

with needs("transformers"):
    from transformers import Trainer
    from transformers.trainer_pt_utils import LabelSmoother

__all__ = ["mixup"]

STATE = "batchmix"
"""The key of the mixer's state in ``trainer.state.stateful_callbacks``."""


def mixup(
    trainer: Trainer,
    mixer: Mixer | float | None = None,
    *,
    inputs: str | Sequence[str] | None = None,
    labels: str | Sequence[str] | None = None,
    kinds: Kinds | None = None,
    **options: Any,
) -> Trainer:
    """Mix the training batches of a Trainer, from now on.

    Args:
        trainer: Any ``transformers.Trainer``; given a second time, its mixer is replaced.
        mixer: What mixes, such as ``bm.CutMix(1.0)``, or the ``alpha`` of ``bm.Mixup``; 0.4 if left out.
        inputs: Key, or keys, of the floating point tensors (B, ...) to mix. If left out: the model's
            ``main_input_name``, ``"pixel_values"`` or ``"inputs_embeds"``, the first that the batch has. An
            integer ``attention_mask`` beside them is united with the partner's. ``"input_ids"``, and
            ``"token_type_ids"`` beside them, are for ``bm.TokenCutMix`` alone, which pastes them.
        labels: Key, or keys, of the targets (B, ...) that become a ``MixedTarget``; those of
            ``trainer.label_names`` that the batch has if left out.
        kinds: What a tensor is where that is in doubt, as for a mixer: ``{"y.labels": "regression"}``.
        options: In place of a mixer, the arguments of ``bm.Mixup``: ``mixup(trainer, alpha=0.2, seed=1)``.

    Returns:
        ``trainer``.

    Raises:
        MixError: If an argument is not of the form above. While training, one line says so where the batch
            has no labels, where its inputs are token ids that the mixer cannot paste, or where the loss
            cannot take a ``MixedTarget``.

    Example:
        >>> import tempfile, torch
        >>> from transformers import TrainingArguments
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer = Trainer(torch.nn.Linear(4, 2), TrainingArguments(folder))
        >>> mixup(trainer, 0.4, labels="label") is trainer
        True
    """
    if not isinstance(trainer, Trainer):
        raise MixError.of("trainer", trainer, "a transformers.Trainer")
    mix = given_or_mixup(mixer, options)
    step = trainer.training_step
    if isinstance(step, _MixingStep):
        step = step.training_step
    trainer.training_step = _MixingStep(
        trainer, step, mix, _keys("inputs", inputs), _keys("labels", labels), kinds
    )
    if type(trainer.label_smoother) is LabelSmoother:
        trainer.label_smoother = _MixedLabelSmoother(trainer.label_smoother.epsilon)
    return trainer


class _MixingStep:
    """The trainer's own ``training_step``, given mixed batches."""

    def __init__(
        self,
        trainer: Trainer,
        training_step: Callable[..., Tensor],
        mixer: Mixer,
        inputs: tuple[str, ...],
        labels: tuple[str, ...],
        kinds: Kinds | None,
    ) -> None:
        self.trainer = trainer
        self.training_step = training_step
        self.mixer = mixer
        self.start = mixer.state_dict()
        self.inputs = inputs
        self.labels = labels
        self.kinds = kinds

    def __call__(self, model: Any, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        # The trainer's state is new in each train(), and is the checkpoint's in a resumed one: it leads, and
        # the mixer follows. JSON keeps both of its numbers as they are.
        memory = self.trainer.state.stateful_callbacks
        if STATE not in memory:
            # Without a seed of its own each process has another one, and a checkpoint keeps the first's.
            memory[STATE] = _of_the_first(self.start)
        self.mixer.load_state_dict(memory[STATE])
        mixed = self.mix(self.trainer._prepare_inputs(inputs))
        memory[STATE] = self.mixer.state_dict()
        with _explained(self.trainer.model):
            return self.training_step(model, mixed, *args, **kwargs)

    def mix(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with its inputs mixed and its labels paired; all else is handed on."""
        if self.trainer.args.n_gpu > 1:
            raise MixError(
                "trainer takes one GPU a process, by torchrun or CUDA_VISIBLE_DEVICES=0, since DataParallel "
                f"cannot split a MixedTarget, got {self.trainer.args.n_gpu}"
            )
        x = {key: batch[key] for key in self.input_keys(batch)}
        y = {key: batch[key] for key in self.label_keys(batch)}
        x, y = self.mixer(x, y, kinds=self.kinds)
        for key, value in y.items():
            self._check_weighted(key, value)
        return {**batch, **x, **y}

    def _check_weighted(self, key: str, objects: Any) -> None:
        """Refuse boxes with weights that the model's own loss does not read: all would count in full."""
        trainer = self.trainer
        own = trainer.compute_loss_func is None and type(trainer).compute_loss is Trainer.compute_loss
        weights = [one["weights"] for one in objects if "weights" in one] if isinstance(objects, list) else []
        if own and any(bool((part != 1).any()) for part in weights):
            raise MixError(
                f"{key} takes a mixer that pastes boxes, such as bm.CutMix(1.0), or a compute_loss_func that "
                f"reads their 'weights', got {type(self.mixer).__name__} and the model's own loss"
            )

    def input_keys(self, batch: Mapping[str, Any]) -> tuple[str, ...]:
        """What is to be mixed, and the attention mask that belongs to it."""
        main = getattr(self.trainer.model, "main_input_name", "pixel_values")
        usual = (key for key in (main, "pixel_values", "inputs_embeds") if batch.get(key) is not None)
        keys = self.inputs or tuple(usual)[:1]
        if not keys or any(batch.get(key) is None for key in keys):
            wanted = " and ".join(map(repr, keys or (main,)))
            raise MixError(f"inputs takes keys of the batch, which has {_listed(batch)}, got {wanted}")
        if "input_ids" in keys:
            if not isinstance(self.mixer, TokenCutMix):
                raise MixError(
                    "inputs takes floating point tensors, such as inputs_embeds in place of the token ids, "
                    "or ids where the mixer is a bm.TokenCutMix, "
                    f"got 'input_ids', {describe(batch['input_ids'])}"
                )
            beside = (key for key in OF_TOKENS if batch.get(key) is not None and key not in keys)
            keys = (*keys, *beside)
        mask = batch.get("attention_mask")
        united = isinstance(mask, Tensor) and not mask.is_floating_point()
        return (*keys, "attention_mask") if united and "attention_mask" not in keys else keys

    def label_keys(self, batch: Mapping[str, Any]) -> tuple[str, ...]:
        """Which targets the batch has, of those that the trainer knows."""
        wanted = self.labels or tuple(self.trainer.label_names)
        keys = tuple(key for key in wanted if batch.get(key) is not None)
        if not keys or (self.labels and keys != self.labels):
            named = " and ".join(map(repr, wanted or ("labels",)))
            raise MixError(f"labels takes keys of the batch, which has {_listed(batch)}, got {named}")
        return keys


class _MixedLabelSmoother(LabelSmoother):
    """The Trainer's label smoothing, for mixed labels too: cross entropy has it built in."""

    def __call__(
        self,
        model_output: Any,
        labels: Any,
        shift_labels: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        if not isinstance(labels, MixedTarget):
            given = {} if num_items_in_batch is None else {"num_items_in_batch": num_items_in_batch}
            plain: Tensor = super().__call__(model_output, labels, shift_labels=shift_labels, **given)
            return plain
        logits = model_output["logits"] if isinstance(model_output, dict) else model_output[0]
        if shift_labels:
            logits, labels = logits[..., :-1, :], labels.map(lambda ids: ids[..., 1:])
        reduction = "mean" if num_items_in_batch is None else "sum"
        loss = F.cross_entropy(
            logits.flatten(0, -2),
            labels.view(-1),
            ignore_index=self.ignore_index,
            label_smoothing=self.epsilon,
            reduction=reduction,
        )
        return loss if num_items_in_batch is None else loss / num_items_in_batch


@contextmanager
def _explained(model: Any) -> Iterator[None]:
    """A loss that cannot take a MixedTarget is named, with what can be done."""
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        if "MixedTarget" not in str(error):
            raise
        raise MixError(
            f"compute_loss_func takes the place of a loss that cannot take a MixedTarget, as that of "
            f"{type(model).__name__}: lambda outputs, labels, num_items_in_batch=None: "
            f"bm.mixed_loss(loss_fn, outputs.logits, labels), got {why(error)}"
        ) from error


def _of_the_first(state: dict[str, int]) -> dict[str, int]:
    """The state that the first process has, in all of them."""
    shared = [state]
    if dist.is_available() and dist.is_initialized():
        dist.broadcast_object_list(shared)
    return shared[0]


def _keys(name: str, given: Any) -> tuple[str, ...]:
    """One key, several, or none given."""
    if given is None:
        return ()
    keys = (given,) if isinstance(given, str) else given
    if not isinstance(keys, Sequence) or not keys or not all(isinstance(key, str) for key in keys):
        raise MixError.of(name, given, "a key of the batch, or several")
    return tuple(keys)


def _listed(batch: Mapping[str, Any]) -> str:
    return ", ".join(map(str, batch)) or "none"
