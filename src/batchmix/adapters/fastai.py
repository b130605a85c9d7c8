"""fastai 2: ``learn.mixup()``, and the callback behind it.

Use it::

    from batchmix.adapters.fastai import MixUpCallback, MixUpLoss
    learn = vision_learner(dls, resnet18, metrics=accuracy).mixup()  # alpha 0.4, a weight for each image
    learn.fit_one_cycle(5)

Where is the batch intercepted? In ``before_batch``, while training, on the device. It comes after fastai has
cast its own tensor types away, and before mixed precision; every micro-batch of an accumulated one is mixed.

How is the loss reached? ``learn.loss_func`` is never exchanged. fastai computes it for the label of larger
weight, which is what ``learn.yb`` holds; in ``after_loss``, ahead of every callback that adds to the loss or
scales it, the loss of the mix takes its place. That costs a second evaluation of the loss, none of the model,
and leaves nothing to put back: after Ctrl-C, ``lr_find`` or an error the learner predicts, interprets and
exports as ever. fastai's losses flatten outputs and targets, and the weights follow; all else is
``batchmix.mixed_loss``. A loss that returns nothing but one number gets the MixedTarget itself, which torch's
losses inside of it take; so does a loss of several targets.

How is evaluation left untouched? The callback runs in training only. fastai computes metrics in validation
only, so that they are those of plain batches; the training loss in the table is that of mixed ones. With
``learn.recorder.train_metrics = True`` metrics of training batches see the label of larger weight, and
``MixedAccuracy`` counts both labels by their weights. A mixer that has ``normalize`` leaves the uint8 images
of validation as they are: let the model normalise those.

``lr_find`` mixes as training would, and the draws of the training that follows are those without it.

``learn.save`` keeps no callback's state. ``learn.mix_up.mixer.state_dict()`` is all that has to be kept
beside it to go on with the same draws; on several processes give the mixer a ``seed``, or each has another.
``learn.export`` takes the callback along, and loading then needs batchmix; ``learn.remove_cb(MixUpCallback)``
before it leaves a learner that does not.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from batchmix.core import losses
from batchmix.core.batches import Kinds
from batchmix.core.losses import mixed_loss
from batchmix.core.plan import as_rows, describe
from batchmix.core.sampling import check_count
from batchmix.core.targets import MixedTarget, count_correct
from batchmix.core.torch_losses import blend_targets
from batchmix.errors import MixError, needs, shorten, why
from batchmix.methods.mixup import given_or_mixup
from batchmix.mixer import Mixer

with needs("fastai"):
    from fastai.callback.core import Callback
    from fastai.callback.mixup import MixHandler
    from fastai.data.core import TfmdDL
    from fastai.data.transforms import MultiCategory
    from fastai.learner import Learner, Metric
    from fastai.losses import BaseLoss, LabelSmoothingCrossEntropy
    from fastai.torch_core import show_image, subplots

__all__ = ["MixUpCallback", "MixUpLoss", "MixedAccuracy", "mixup"]

MIXING = 9.5  # after CastToTensor (9), so that samples are plain tensors, and before MixedPrecision (10)
LOSS = -9  # before every callback that changes the loss: regularisers (0), GradientAccumulation (6)

TITLE = 28  # characters above an image of fastai's size; longer titles would run into one another

ASKED_OF_A_LOSS = ("activation", "decodes", "reduction")
"""What fastai reads from ``learn.loss_func`` where it has it, to predict and to interpret."""


class MixUpCallback(Callback):
    """Mixes the training batches of a Learner.

    Args:
        mixer: What mixes, such as ``bm.CutMix(1.0)``, or the ``alpha`` of ``bm.Mixup``; 0.4 if left out.
        stack_x: False mixes the samples here. True leaves that to the model, for models that mix inside: it
            is called as ``model(x, x_of_partners, lam)`` in training, with ``lam`` (B,) the weight of ``x``,
            and as ``model(x)`` everywhere else.
        stack_y: True keeps the pair of targets for the loss: any loss, ``lam*loss(out, y1) +
            (1-lam)*loss(out, y2)``. False mixes the targets themselves, ``lam*y1 + (1-lam)*y2``, for
            regression or one-hot targets in floating point; the loss sees nothing else.
        kinds: What an input or target is where that is in doubt, by its place: ``{"x.1": "pass"}``, ``{"y":
            "regression"}``. Several inputs are ``"x.0"``, ``"x.1"``, a single one is ``"x"``.
        options: In place of a mixer, the arguments of ``bm.Mixup``: ``alpha``, ``per``, ``fold``, ``p``,
            ``p_sample``, ``partner``, ``schedule`` (of the number of training batches mixed so far, over all
            fits), ``seed``.

    Attributes:
        mixer: Draws and mixes; its ``state_dict`` is the callback's whole state.

    Raises:
        MixError: If an argument is not of the form above. While training, one line says so where inputs or
            targets cannot be mixed, the loss cannot be computed for two targets or is ``batchmix.MixUpLoss``,
            or another callback mixes, or changes targets afterwards.

    Example:
        >>> MixUpCallback(0.2, per="batch").mixer.alpha
        0.2

    Source: Gugger 2018, fast.ai, where ``stack_x`` and ``stack_y`` have their names from.
    """

    run_valid = False
    _stateattrs = ("_targets", "_dominant", "_loss_is_plain")  # not pickled; they end with the batch

    _targets: tuple[Any, ...] = ()
    _dominant: tuple[Any, ...] = ()
    _loss_is_plain = False

    def __init__(
        self,
        mixer: Mixer | float | None = None,
        *,
        stack_x: bool = False,
        stack_y: bool = True,
        kinds: Kinds | None = None,
        **options: Any,
    ) -> None:
        for name, value in (("stack_x", stack_x), ("stack_y", stack_y)):
            if not isinstance(value, bool):
                raise MixError.of(name, value, "True or False")
        self.stack_x = stack_x
        self.stack_y = stack_y
        self.mixer = given_or_mixup(mixer, options)
        self.kinds = kinds

    @property
    def order(self) -> float:
        """Late to mix, early to compute the loss: fastai sorts its callbacks anew at each event."""
        return LOSS if self._loss_is_plain else MIXING

    def before_fit(self) -> None:
        """Refuse a second callback that mixes, or a loss that hides another, while nothing is changed yet."""
        _refuse_others(self.learn, self)
        _refuse_core_loss(self.learn)
        self._targets, self._dominant, self._loss_is_plain = (), (), False  # of an interrupted batch

    def before_batch(self) -> None:
        """Mix the batch, and keep its targets for the loss."""
        xb, targets = self._mix(tuple(self.learn.xb), tuple(self.learn.yb))
        if not self.stack_y:
            targets = _map(_blended, targets)
        self._dominant = _map(lambda target: target.dominant, targets)
        self.learn.xb, self.learn.yb = xb, self._dominant
        self._targets, self._loss_is_plain = targets, _holds_mixed(targets)

    def after_loss(self) -> None:
        """Put the loss of the mixed targets in the place of the one that fastai computed."""
        if not self._loss_is_plain:
            return
        self._loss_is_plain = False
        if [*map(id, self.learn.yb)] != [*map(id, self._dominant)]:
            raise MixError(
                f"yb takes new targets before they are mixed, in before_batch with an order below {MIXING}, "
                f"got them after it: {shorten(self.learn.yb)}"
            )
        self.learn.loss_grad = _loss(self.learn.loss_func, self.learn.pred, self._targets)
        self.learn.loss = self.learn.loss_grad.clone()

    def after_cancel_batch(self) -> None:
        """The batch was left before its loss: the next one is mixed late again."""
        self._loss_is_plain = False

    def show_batch(self, max_n: int = 9, **kwargs: Any) -> None:
        """Draw images of a training batch as the next step will mix them, "0.72 cat + 0.28 dog".

        The draw is that of the next step, and the mixer's step stays.

        Args:
            max_n: How many images at most.
            kwargs: Those of fastai's ``subplots``: ``nrows``, ``ncols``, ``figsize``, ``suptitle``.

        Raises:
            MixError: If the batches do not hold images.
        """
        images, titles = self._pictures(max_n)
        axes = list(subplots(**{**kwargs, **_grid(len(images), **kwargs)})[1].flat)
        for ax in axes:
            ax.set_axis_off()  # of those that are left over
        for image, title, ax in zip(images, titles, axes, strict=False):
            show_image(image, ax=ax, title=title)

    def _pictures(self, max_n: int) -> tuple[list[Tensor], list[str | None]]:
        """Images of a training batch, mixed as by the next step, and what is written above each."""
        dl = self.learn.dls.train
        batch = tuple(dl.one_batch())
        inputs = getattr(self.learn.dls, "n_inp", len(batch) - 1)
        plain = tuple(part.as_subclass(Tensor) if isinstance(part, Tensor) else part for part in batch)
        x, y = _single(plain[:inputs]), _single(plain[inputs:])
        x, y = self.mixer(x, y, kinds=self.kinds, step=self.mixer.step)
        xb, targets = _several(x, inputs), _several(y, len(batch) - inputs)
        # Decoded once with the labels of the samples, once with those of their partners.
        own = _samples(dl, (*xb, *_map(lambda target: target.a, targets)), batch, max_n)
        partners = _samples(dl, (*xb, *_map(lambda target: target.b, targets)), batch, max_n)
        images = [sample[0] for sample in own]
        for image in images:
            if not isinstance(image, Tensor) or image.dim() != 3:
                raise MixError(f"show_batch takes images (C, H, W), got {describe(image)}")
        if not targets or not isinstance(targets[0], MixedTarget):
            return images, [None] * len(images)
        rows = zip(targets[0].lam.tolist(), own, partners, strict=False)
        return images, [_title(lam, one[inputs], other[inputs]) for lam, one, other in rows]

    def _mix(self, xb: tuple[Any, ...], yb: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """What the model and the loss are called with."""
        x, y, step = _single(xb), _single(yb), self._step()
        if not self.stack_x:
            mixed, targets = self.mixer(x, y, kinds=self.kinds, step=step)
            return _several(mixed, len(xb)), _several(targets, len(yb))
        if not isinstance(x, Tensor):
            raise MixError(f"stack_x takes batches of one input tensor, got {shorten(list(map(type, xb)))}")
        plan = self.mixer.plan(x, y if isinstance(y, Tensor) else None, step=step)
        if plan.mask is not None:
            raise MixError.of("stack_x", self.mixer, "a mixer of whole samples, such as Mixup")
        _, targets = self.mixer(x, y, kinds=self.kinds, plan=plan)
        return (x, x[plan.partner], plan.lam), _several(targets, len(yb))

    def _step(self) -> int | None:
        """Of the next draw of an ``lr_find``, which does not count: the learner is left as it was found."""
        return self.mixer.step + self.learn.train_iter if hasattr(self.learn, "lr_finder") else None


class MixUpLoss(losses.MixUpLoss):
    """``batchmix.MixUpLoss`` as the loss of a Learner, which predicts and interprets as with the wrapped one.

    ``learn.mixup()`` takes any loss without it. Wrap one where your own code calls it with a MixedTarget.

    Args:
        loss_fn: Any loss; fastai's keeps its activation and its decoding.

    Example:
        >>> import torch
        >>> from fastai.losses import CrossEntropyLossFlat
        >>> loss = MixUpLoss(CrossEntropyLossFlat())
        >>> loss.decodes(torch.tensor([[0.2, 0.8]]))
        tensor([1])
    """

    def forward(self, output: Any, target: Any, **options: Any) -> Tensor:
        """The loss of a mixed or plain target; fastai gives functions ``reduction="none"`` as an option."""
        if isinstance(self.loss_fn, BaseLoss) and isinstance(target, MixedTarget) and not options:
            return _loss(self.loss_fn, output, (target,))  # which knows torch's loss in it, and its mean
        loss_fn = functools.partial(self.loss_fn, **options) if options else self.loss_fn
        return mixed_loss(loss_fn, output, target)

    def to(self, *args: Any, **kwargs: Any) -> MixUpLoss:
        """As for any module; fastai's losses are none, and move their class weights when told."""
        if isinstance(self.loss_fn, BaseLoss):
            self.loss_fn.to(*args, **kwargs)
        return super().to(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loss_fn, name) if name in ASKED_OF_A_LOSS else super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "reduction":  # which fastai sets for the time of an interpretation
            self.loss_fn.reduction = value  # type: ignore[attr-defined]
        else:
            super().__setattr__(name, value)


class MixedAccuracy(Metric):
    """Accuracy; in training, where both labels of a mixed sample count by their weights.

    For one target of class ids. ``learn.recorder.train_metrics = True`` has fastai compute it in training.

    Args:
        ignore_index: A class id that is left out, as in ``F.cross_entropy``.
        top_k: A label counts where it is among so many of the largest logits, 1 to K.

    Example:
        >>> metric = MixedAccuracy()
        >>> metric.name
        'mixed_accuracy'
    """

    def __init__(self, *, ignore_index: int = -100, top_k: int = 1) -> None:
        self.ignore_index = ignore_index
        self.top_k = check_count("top_k", top_k)
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.correct, self.count = 0.0, 0.0

    def accumulate(self, learn: Any) -> None:
        """Count the batch that the learner has just seen."""
        targets = tuple(learn.yb)
        if learn.training:
            mixed = (cb._targets for cb in learn.cbs if isinstance(cb, MixUpCallback))
            targets = next(mixed, ()) or targets
        if len(targets) != 1:
            raise MixError(f"MixedAccuracy takes one target, got {len(targets)}")
        counted = count_correct(learn.pred, targets[0], self.ignore_index, self.top_k)
        correct, count = map(learn.to_detach, counted)  # on several processes the mean over them, of both
        self.correct += float(correct)
        self.count += float(count)

    @property
    def value(self) -> float | None:
        """The accuracy in [0, 1], None if nothing was counted."""
        return self.correct / self.count if self.count else None


def mixup(
    self: Learner,
    mixer: Mixer | float | None = None,
    *,
    stack_x: bool = False,
    stack_y: bool = True,
    kinds: Kinds | None = None,
    **options: Any,
) -> Learner:
    """Add mixup to a Learner, as ``learn.mixup()``; called again, it replaces what was there.

    Args:
        self: The learner.
        mixer: As for ``MixUpCallback``, and so are the rest: ``learn.mixup(bm.CutMix(1.0))``.
        stack_x: Whether the model mixes by itself.
        stack_y: Whether the loss gets both targets.
        kinds: What an input or target is where that is in doubt.
        options: ``alpha``, ``per``, ``fold``, ``p``, ``p_sample``, ``partner``, ``schedule``, ``seed``.

    Returns:
        The learner, so that calls can be chained; ``learn.mix_up`` is the callback.

    Raises:
        MixError: If an argument is not of the form above, or the learner has fastai's ``MixUp`` or
            ``CutMix``, or a ``batchmix.MixUpLoss``. The learner is then as it was.

    Example:
        >>> import torch
        >>> from fastai.data.core import DataLoaders
        >>> dls = DataLoaders([(torch.rand(8, 4), torch.arange(8) % 2)], [])
        >>> learn = Learner(dls, torch.nn.Linear(4, 2), loss_func=torch.nn.functional.cross_entropy)
        >>> learn.mixup(0.2, seed=1).mix_up.mixer.alpha
        0.2
    """
    callback = MixUpCallback(mixer, stack_x=stack_x, stack_y=stack_y, kinds=kinds, **options)
    before = self._grab_cbs(MixUpCallback)
    _refuse_others(self, callback, *before)
    _refuse_core_loss(self)
    return self.remove_cbs(before).add_cb(callback)


Learner.mixup = mixup


def _refuse_others(learn: Any, *allowed: Callback) -> None:
    for other in learn.cbs:
        if isinstance(other, (MixUpCallback, MixHandler)) and other not in allowed:
            name = type(other).__name__
            fastais = "fastai's " if isinstance(other, MixHandler) else "a second "
            raise MixError(f"cbs takes one callback that mixes, got {fastais}{name} beside MixUpCallback")


def _refuse_core_loss(learn: Any) -> None:
    """Where it hides from fastai what the loss in it has: activation, decoding, reduction."""
    loss = learn.loss_func
    if type(loss) is losses.MixUpLoss and any(hasattr(loss.loss_fn, name) for name in ASKED_OF_A_LOSS):
        raise MixError(
            "loss_func takes a loss as it is, or in batchmix.adapters.fastai.MixUpLoss, which hides nothing "
            f"of it, got batchmix.{shorten(loss)}"
        )


# The loss of two targets


def _loss(loss_func: Any, pred: Any, targets: tuple[Any, ...]) -> Tensor:
    """``loss_func(pred, *targets)``, some of which are mixed."""
    if isinstance(loss_func, losses.MixUpLoss):
        loss_func = loss_func.loss_fn
    if len(targets) != 1 or not isinstance(targets[0], MixedTarget):
        return _loss_of_parts(loss_func, pred, targets)
    target = targets[0]
    if isinstance(loss_func, BaseLoss) and type(loss_func).__call__ is BaseLoss.__call__:
        loss_func, pred, target = _flattened(loss_func, pred, target)
    if type(loss_func) is LabelSmoothingCrossEntropy:
        # Its mean divides one of its terms by class weights and the other by the count: it has to make both.
        return _loss_of_parts(loss_func, pred, (target,))
    try:
        return mixed_loss(loss_func, pred, target)
    except MixError as error:
        try:
            return _loss_of_parts(loss_func, pred, (target,))
        except MixError:
            name = getattr(loss_func, "__name__", None) or shorten(loss_func)
            raise MixError(f"loss_func={name}: {error}") from None


def _loss_of_parts(loss_func: Callable[..., Any], pred: Any, targets: tuple[Any, ...]) -> Tensor:
    """A loss made of torch's own: each takes its MixedTarget as it stands."""
    try:
        loss: Tensor = loss_func(pred, *targets)
    except (AttributeError, TypeError, ValueError) as error:
        if "MixedTarget" not in str(error):
            raise
        raise MixError(
            "loss_func takes a MixedTarget in the place of each target, by torch's own losses or "
            f"bm.mixed_loss(loss_fn, output, target), got {why(error)}"
        ) from error
    return loss


def _flattened(loss_func: Any, pred: Any, target: MixedTarget) -> tuple[Any, Any, MixedTarget]:
    """What fastai's loss does before it calls torch's, done to each part: moved axis, float, flattened.

    Whatever it does to places of the target happens to their weights as well.
    """
    twin = copy.copy(loss_func)
    twin.func = lambda output, part: (output, part.as_subclass(Tensor))
    output, a = twin(pred, target.a)
    _, b = twin(pred, target.b)
    lam = target.lam
    if a.dim() == 1:
        _, lam = twin(pred, as_rows(lam, target.a.dim()).expand(target.a.shape))
    return loss_func.func, output, MixedTarget(a, b, lam)


# Parts of a batch


def _single(parts: tuple[Any, ...]) -> Any:
    """A single input or target by itself, so that messages name it "x" or "y"."""
    return parts[0] if len(parts) == 1 else parts


def _several(part: Any, count: int) -> tuple[Any, ...]:
    return (part,) if count == 1 else tuple(part)


def _map(function: Callable[[MixedTarget], Any], part: Any) -> Any:
    """Apply a function to every MixedTarget of a structure."""
    if isinstance(part, MixedTarget):
        return function(part)
    if isinstance(part, dict):
        return {key: _map(function, value) for key, value in part.items()}
    if isinstance(part, (tuple, list)):
        return type(part)(_map(function, value) for value in part)
    return part


def _holds_mixed(targets: tuple[Any, ...]) -> bool:
    found: list[MixedTarget] = []
    _map(found.append, targets)
    return bool(found)


def _blended(target: MixedTarget) -> Tensor:
    if not target.dtype.is_floating_point:
        raise MixError(
            "stack_y takes True for class ids, which have no mean, or float targets, "
            f"got False for {describe(target.a)}"
        )
    return blend_targets(*target)


# Pictures


def _samples(dl: Any, parts: tuple[Any, ...], batch: tuple[Any, ...], max_n: int) -> list[tuple[Any, ...]]:
    """The parts of a batch, sample by sample, decoded where fastai knows how: images in [0, 1], names."""
    if not isinstance(dl, TfmdDL):
        return list(zip(*(part[:max_n] for part in parts), strict=True))
    typed = tuple(
        new.as_subclass(type(old)) if isinstance(new, Tensor) and isinstance(old, Tensor) else new
        for new, old in zip(parts, batch, strict=True)
    )
    return [tuple(sample) for sample in dl.show_batch(typed, max_n=max_n, show=False)[2]]


def _grid(count: int, nrows: int | None = None, ncols: int | None = None, **_: Any) -> dict[str, int]:
    """Rows and columns for so many images, as fastai's own grids have them: what is not given follows."""
    rows = nrows or (math.ceil(count / ncols) if ncols else max(1, math.isqrt(count)))
    return {"nrows": rows, "ncols": ncols or math.ceil(count / rows)}


def _title(lam: float, own: Any, partner: Any) -> str:
    """The labels of a mixed image; the weights alone where targets are not a word or a number."""
    parts = [f"{share:.2f} {_name(target)}".strip() for share, target in ((lam, own), (1 - lam, partner))]
    title = " + ".join(parts)
    return title if len(title) <= TITLE else "\n+ ".join(parts)


def _name(target: Any) -> str:
    if isinstance(target, MultiCategory):
        return ";".join(map(str, target))  # as fastai shows them
    if not isinstance(target, Tensor):
        return str(target)
    return f"{target.item():g}" if target.numel() == 1 else ""
