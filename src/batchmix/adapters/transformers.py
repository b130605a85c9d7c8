"""Hugging Face ``Trainer``: one line after it is made, and its training batches are mixed.

Use it::

    from batchmix.adapters.transformers import mixup

    trainer = Trainer(model=model, args=args, train_dataset=train, eval_dataset=test)
    mixup(trainer, bm.Mixup(0.4))
    trainer.train()

A function rather than a subclass, so that it takes any Trainer: ``Seq2SeqTrainer``, or one of your own.

Text is mixed as its embeddings, which the model's own layer makes of the token ids::

    mixup(trainer, 0.4, embed=True)

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
    Where the mixer has ``normalize``, the images of ``eval_dataset`` have to be normalised by that data set.

Each ``train()`` begins with the draws at which the mixer stood when it was given to the trainer, so that the
trials of a ``hyperparameter_search`` are alike. A checkpoint keeps the state of the mixer in
``trainer_state.json``: ``train(resume_from_checkpoint=True)`` goes on with the very same draws. All processes
of a run have the seed of the first one, and draw apart by their ranks. Those that share a batch, under
tensor, context or sequence parallelism, draw alike where the Trainer says how many they are
(``get_tp_size()``), as recent ones do; else their mixers take one ``rank``, as ``bm.Mixer`` says.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from batchmix.core.batches import IN_USE, Kinds, Leaf, is_detection, lead_of
from batchmix.core.draws import as_rank, rank
from batchmix.core.objects import mix_objects
from batchmix.core.plan import describe
from batchmix.core.sampling import check_flag
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError, needs, why
from batchmix.methods.mixup import given_or_mixup
from batchmix.methods.tokencutmix import OF_TOKENS, TokenCutMix
from batchmix.mixer import WHOLE_SAMPLES, Mixer

with needs("transformers"):
    from transformers import Trainer
    from transformers.trainer_pt_utils import LabelSmoother

__all__ = ["mixup"]

STATE = "batchmix"
"""The key of the mixer's state in ``trainer.state.stateful_callbacks``."""

FREE = (*IN_USE, "head_mask", "decoder_head_mask", "cross_attn_head_mask")
"""Floats that stay as they are: masks of ids that are not mixed, and of parts of the model."""

OF_BOXES = ("min_visible", "form", "normalized", "weighted")
"""The arguments of ``mix_objects`` that ``boxes`` may hold."""


def mixup(
    trainer: Trainer,
    mixer: Mixer | float | None = None,
    *,
    inputs: str | Sequence[str] | None = None,
    labels: str | Sequence[str] | None = None,
    kinds: Kinds | None = None,
    embed: bool = False,
    boxes: Mapping[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    """Mix the training batches of a Trainer, from now on.

    Args:
        trainer: Any ``transformers.Trainer``; given a second time, its mixer is replaced.
        mixer: What mixes, such as ``bm.CutMix(1.0)``, or the ``alpha`` of ``bm.Mixup``; 0.4 if left out.
        inputs: Key, or keys, of the floating point tensors (B, ...) to mix. If left out: the model's
            ``main_input_name``, ``"pixel_values"`` or ``"inputs_embeds"``, the first that the batch has. An
            ``attention_mask`` and a ``pixel_mask`` of whole numbers beside them are united with the
            partner's. Other tensors of floats (B, ...) have to be named here or in ``kinds``; whole
            numbers stay the sample's own. ``"input_ids"``, and ``"token_type_ids"`` beside them, are for
            ``bm.TokenCutMix`` alone, which pastes them; else see ``embed``.
        labels: Key, or keys, of the targets (B, ...) that become a ``MixedTarget``; those of
            ``trainer.label_names`` that the batch has if left out.
        kinds: What a tensor is where that is in doubt, as for a mixer: ``{"y.labels": "regression"}``.
            ``{"x.age": "pass"}`` leaves ``age`` the sample's own.
        embed: Whether ``input_ids`` (B, T) are replaced, in training, by what the model's
            ``get_input_embeddings()`` makes of them, ``inputs_embeds`` (B, T, E), which are then mixed; the
            embedding learns from both samples. It is for mixers that blend, such as ``bm.Mixup(0.4)``:
            CutMix would cut along E. ``token_type_ids`` stay the sample's own: they are ids as well, and
            a partner's tokens are read with the segments of the sample. Models that look for the last token
            by its id, as GPT-2's classifier does, take padding on the left.
        boxes: Of labels that are lists of dicts with ``"boxes"``, arguments of ``bm.mix_objects``:
            ``{"weighted": False}`` has the objects of both images count in full. If left out, boxes beside
            ``"class_labels"`` are taken as transformers' detectors take them,
            ``{"form": "cxcywh", "normalized": True}``, and others as pixels.
        options: In place of a mixer, the arguments of ``bm.Mixup``: ``mixup(trainer, alpha=0.2, seed=1)``.

    Returns:
        ``trainer``.

    Raises:
        MixError: If an argument is not of the form above. While training, one line says so where the batch
            has no labels, where its inputs are token ids that the mixer cannot paste, where a tensor would
            stay unmixed, where the parameters that ``embed`` takes are not whole in each process (FSDP,
            ZeRO-3), or where the loss cannot take a ``MixedTarget``.

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
    if check_flag("embed", embed) and not _blends(mix):
        raise MixError.of("mixer", mix, "one of any samples, such as bm.Mixup(0.4), beside embed=True")
    step = trainer.training_step
    if isinstance(step, _MixingStep):
        step = step.training_step
    trainer.training_step = _MixingStep(
        trainer, step, mix, _keys("inputs", inputs), _keys("labels", labels), kinds, embed, _of_boxes(boxes)
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
        embed: bool,
        boxes: dict[str, Any],
    ) -> None:
        self.trainer = trainer
        self.training_step = training_step
        self.mixer = mixer
        self.start = mixer.state_dict()
        self.inputs = inputs
        self.labels = labels
        self.kinds = kinds
        self.embed = embed
        self.boxes = boxes

    def __call__(self, model: Any, inputs: Mapping[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        # The trainer's state is new in each train(), and is the checkpoint's in a resumed one: it leads, and
        # the mixer follows. JSON keeps both of its numbers as they are.
        memory = self.trainer.state.stateful_callbacks
        if STATE not in memory:
            # Without a seed of its own each process has another one, and a checkpoint keeps the first's.
            memory[STATE] = _of_the_first(self.start)
        self.mixer.load_state_dict(memory[STATE])
        sharing = _sharing(self.trainer) if self.mixer.rank is None else 1
        with nullcontext() if sharing == 1 else as_rank(rank() // sharing):
            mixed = self.mix(self.trainer._prepare_inputs(inputs))
        memory[STATE] = self.mixer.state_dict()
        with _explained(self.trainer.model), _prepared(self.trainer):
            return self.training_step(model, mixed, *args, **kwargs)

    def mix(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with its inputs mixed and its labels paired; all else is handed on."""
        if self.trainer.args.n_gpu > 1:
            raise MixError(
                "trainer takes one GPU a process, by torchrun or CUDA_VISIBLE_DEVICES=0, since DataParallel "
                f"cannot split a MixedTarget, got {self.trainer.args.n_gpu}"
            )
        if self.embed:
            batch = _embedded(batch, self.trainer)
        inputs, labels = self.input_keys(batch), self.label_keys(batch)
        inputs += tuple(self._named("x", batch, {*inputs, *labels}))
        labels += tuple(self._named("y", batch, {*inputs, *labels}))
        self._check_rest(batch, inputs, labels)
        x, y = self._mixed({key: batch[key] for key in inputs}, {key: batch[key] for key in labels})
        for key, value in y.items():
            self._check_weighted(key, value)
        return {**batch, **x, **y}

    def _mixed(self, x: dict[str, Any], y: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Both mixed by one draw; a mixer alone would take all boxes for corners in pixels."""
        kinds = self.kinds if isinstance(self.kinds, Mapping) else {}
        usual = kinds.get("y", "boxes")
        found = [key for key in y if kinds.get(f"y.{key}", usual) == "boxes" and is_detection(y[key])]
        if not found:
            return self.mixer(x, y, kinds=self.kinds)
        mixed = (key for key in x if key not in IN_USE and kinds.get(f"x.{key}") != "pass")
        lead = lead_of([Leaf(f"x.{key}", x[key], "input") for key in mixed])
        plan = self.mixer.plan(lead)
        x, y = self.mixer(x, y, plan=plan, kinds={**kinds, **dict.fromkeys(_paths("y", found), "pass")})
        for key in found:
            of_transformers = any("class_labels" in objects for objects in y[key])
            known = {"form": "cxcywh", "normalized": True} if of_transformers else {}
            options: dict[str, Any] = {**known, **self.boxes}
            if options.get("normalized") and plan.mask is not None:
                _check_sizes(key, y[key], tuple(lead.shape[-2:]))
            try:
                y[key] = mix_objects(y[key], plan, **options)
            except MixError as error:
                raise MixError(f"{key}, taken with boxes={options}: {error}") from None
        return x, y

    def _named(self, root: str, batch: Mapping[str, Any], listed: set[str]) -> Iterator[str]:
        """What else of the batch ``kinds`` says something of, ``"x.age"`` or ``"x.age.0"``."""
        given = self.kinds if isinstance(self.kinds, Mapping) else {}
        for key, path in zip(batch, _paths(root, batch), strict=True):
            if key not in listed and any(f"{one}.".startswith(f"{path}.") for one in given):
                yield key

    def _check_rest(self, batch: Mapping[str, Any], inputs: tuple[str, ...], labels: tuple[str, ...]) -> None:
        """Refuse values that would stay unmixed beside labels that are mixed, and the ids of a text.

        Other whole numbers cannot be blended, and say how a sample is to be read.
        """
        first, listed = batch[inputs[0]], {*inputs, *labels, *FREE}
        if not isinstance(first, Tensor) or first.dim() == 0 or len(first) == 1:
            return  # which the mixer refuses, or mixes with nothing
        for key, value in batch.items():
            if key in listed or not isinstance(value, Tensor) or value.dim() == 0 or len(value) != len(first):
                continue
            if not value.is_floating_point() and key != "input_ids":
                continue
            argument, every, passed = "inputs", "tensor", f"kinds={{'x.{key}': 'pass'}}"
            if key.lower().endswith(("label", "labels")):
                argument, every, remedy = "labels", "target", f"labels={[*labels, key]}, or {passed}"
            elif key == "input_ids":
                remedy = f"{passed} leaves it the sample's own, since ids are not blended"
            elif key.lower().endswith("mask"):
                remedy = f"kinds={{'x.{key}': 'attention_mask'}} where it says what is in use, or 'pass'"
            else:
                remedy = f"inputs={[*(one for one in inputs if one not in IN_USE), key]}, or {passed}"
            raise MixError(f"{argument} takes every {every} of samples, got {key!r} beside them: {remedy}")

    def _check_weighted(self, key: str, objects: Any) -> None:
        """Refuse boxes with weights that the model's own loss does not read: all would count in full."""
        trainer = self.trainer
        own = trainer.compute_loss_func is None and type(trainer).compute_loss is Trainer.compute_loss
        weights = [one["weights"] for one in objects if "weights" in one] if isinstance(objects, list) else []
        if own and any(bool((part != 1).any()) for part in weights):
            raise MixError(
                f"{key} takes a mixer that pastes boxes, such as bm.CutMix(1.0), a compute_loss_func that "
                "reads their 'weights', or boxes={'weighted': False}, by which all count in full, "
                f"got {type(self.mixer).__name__} and the model's own loss"
            )

    def input_keys(self, batch: Mapping[str, Any]) -> tuple[str, ...]:
        """What is to be mixed, and the masks that belong to it."""
        main = getattr(self.trainer.model, "main_input_name", "pixel_values")
        usual = (key for key in (main, "pixel_values", "inputs_embeds") if batch.get(key) is not None)
        keys = self.inputs or tuple(usual)[:1]
        if self.embed:
            named = self.inputs or ("inputs_embeds",)
            keys = tuple("inputs_embeds" if key == "input_ids" else key for key in named)
        if not keys or any(batch.get(key) is None for key in keys):
            wanted = " and ".join(map(repr, keys or (main,)))
            raise MixError(f"inputs takes keys of the batch, which has {_listed(batch)}, got {wanted}")
        if "input_ids" in keys:
            if not isinstance(self.mixer, TokenCutMix):
                raise MixError(
                    "inputs takes floating point tensors, such as inputs_embeds in place of the token ids, "
                    "which embed=True makes of them, or ids where the mixer is a bm.TokenCutMix, "
                    f"got 'input_ids', {describe(batch['input_ids'])}"
                )
            beside = (key for key in OF_TOKENS if batch.get(key) is not None and key not in keys)
            keys = (*keys, *beside)
        masks = (key for key in IN_USE if isinstance(batch.get(key), Tensor) and key not in keys)
        return (*keys, *(key for key in masks if not _is_of_ids(key, batch, keys)))

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
def _prepared(trainer: Trainer) -> Iterator[None]:
    """The step gets inputs that are prepared; a trainer that scales images there would do so twice."""
    own = vars(trainer).get("_prepare_inputs")
    trainer._prepare_inputs = lambda inputs: inputs
    try:
        yield
    finally:
        del trainer._prepare_inputs
        if own is not None:
            trainer._prepare_inputs = own


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
            "bm.mixed_loss(loss_fn, outputs.logits, labels).sum() / (num_items_in_batch or len(labels)), "
            f"got {why(error)}"
        ) from error


def _embedded(batch: Mapping[str, Any], trainer: Trainer) -> dict[str, Any]:
    """The batch with the embeddings of its token ids in their place, which the model learns through them.

    Autocast leaves a look-up as it is, so that what is made here has the dtype that it has in the model.
    """
    ids = batch.get("input_ids")
    if not isinstance(ids, Tensor):
        raise MixError(f"embed takes batches that have 'input_ids', got {_listed(batch)}")
    name = type(trainer.model).__name__
    try:
        embedding = trainer.model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        embedding = None
    takes = inspect.signature(trainer.model.forward).parameters
    by_name = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in takes.values())
    if embedding is None or not ("inputs_embeds" in takes or by_name):
        raise MixError(
            f"embed takes a model that has get_input_embeddings and takes inputs_embeds, got {name}"
        )
    weight = getattr(embedding, "weight", None)
    sharded = hasattr(weight, "ds_id") or type(weight).__name__ == "DTensor"  # ZeRO-3, and FSDP 2
    if sharded or getattr(trainer, "is_fsdp_enabled", False):
        raise MixError(
            "embed takes parameters that are whole in each process, as under DDP and ZeRO-2; under FSDP and "
            f"ZeRO-3 bm.TokenCutMix(1.0) pastes ids, got the sharded ones of {name}"
        )
    rest = {key: value for key, value in batch.items() if key != "input_ids"}
    return {**rest, "inputs_embeds": embedding(ids)}


def _blends(mixer: Mixer) -> bool:
    """Whether it mixes whole samples: others would cut along the features of an embedding."""
    methods = getattr(mixer, "methods", {}).values()
    return all(map(_blends, methods)) if methods else mixer.takes in WHOLE_SAMPLES


def _is_of_ids(name: str, batch: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    """Whether this is the attention mask of token ids that stay as they are beside images that are mixed."""
    ids = batch.get("input_ids")
    if name != "attention_mask" or not isinstance(ids, Tensor) or {"input_ids", "inputs_embeds"} & set(keys):
        return False
    return bool(ids.shape == batch[name].shape)


def _check_sizes(name: str, labels: Sequence[Mapping[str, Any]], size: tuple[int, ...]) -> None:
    """Shares of an image that was padded later would be shares of something else."""
    sizes = [objects.get("size") for objects in labels]
    known = [own for own in sizes if isinstance(own, Tensor) and own.shape == (2,)]
    for own in torch.stack(known).tolist() if known else []:
        if tuple(own) != size:
            raise MixError(
                f"{name} takes boxes that are shares of the whole images, {size}, with their padding, as an "
                "image processor makes them that pads images and annotations in one call, got one whose "
                f"'size' is {tuple(own)}"
            )


def _of_boxes(given: Any) -> dict[str, Any]:
    """The arguments of ``mix_objects``, by their names."""
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not set(given) <= set(OF_BOXES):
        raise MixError.of("boxes", given, f"a dict of arguments of bm.mix_objects: {', '.join(OF_BOXES)}")
    return dict(given)


def _sharing(trainer: Trainer) -> int:
    """How many processes get the same batch; in Accelerate's order their ranks follow one another."""
    sizes = (getattr(trainer, f"get_{kind}_size", None) for kind in ("tp", "cp", "sp"))
    return math.prod(size() for size in sizes if size is not None)


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


def _paths(root: str, keys: Iterable[str]) -> list[str]:
    """What ``kinds`` calls these keys of inputs or targets."""
    return [f"{root}.{key}" for key in keys]


def _listed(batch: Mapping[str, Any]) -> str:
    return ", ".join(map(str, batch)) or "none"
