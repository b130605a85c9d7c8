"""skorch: nets that mix their training batches.

Use it::

    from batchmix.adapters.skorch import MixUpClassifier
    net = MixUpClassifier(Module, criterion=nn.CrossEntropyLoss, mixer__alpha=0.4)  # for NeuralNetClassifier

``MixUpNet`` does the same for a net of your own: ``class Net(MixUpNet, MyNeuralNet): pass``. The mixer is
a part of the net like the module: ``mixer`` is a class (or instance), ``mixer__alpha`` its argument,
``mixer_`` the one in use, and ``net.save_params(f_mixer="mixer.pt")``, ``load_params`` and
``Checkpoint(f_mixer=...)`` keep its draws beside ``f_params`` and ``f_optimizer``.

Where is the batch intercepted? In ``train_step``, once a batch, on the net's device; an optimizer that calls
its closure several times sees the same mix each time. Callbacks get the batch as it was loaded.

How is the loss reached? Through ``get_loss``, yours included, with the MixedTarget as ``y_true``; where it
reaches ``criterion_``, the mixed form of that criterion is computed (``batchmix.mixed_loss``). A criterion of
several targets gets a MixedTarget for each, which torch's losses and ``batchmix.mixed_loss`` in it take.
``train_loss`` in the history is thus that of mixed batches, and so is an ``EpochScoring(on_train=True)`` that
uses the cached predictions: it compares predictions for mixed samples with the labels of one of the two.

How is evaluation left untouched? ``validation_step``, ``predict``, ``score`` and all else never come by
``train_step``. uint8 images stay as they are there, where the mixer has ``normalize``: let the module
normalise what comes in uint8.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from numbers import Real
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map_only

from batchmix.core.batches import Kinds
from batchmix.core.losses import LossFn, mixed_loss
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError, needs
from batchmix.methods.mixup import Mixup, check_needs_no_plan, given_or_mixup
from batchmix.mixer import Mixer

with needs("skorch"):
    from skorch import NeuralNet, NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
    from skorch.dataset import unpack_data
    from skorch.utils import to_tensor

__all__ = ["MixUpBinaryClassifier", "MixUpClassifier", "MixUpNet", "MixUpRegressor"]


class MixUpNet(NeuralNet):
    """``skorch.NeuralNet`` that mixes its training batches.

    Before another net among the bases it makes that one mix: ``class Net(MixUpNet, MyNet): pass``.

    Args:
        args: Those of the net.
        mixer: What makes the mixer: a class, called with the ``mixer__...`` arguments each time that the net
            is initialized; or a mixer, which is copied then, so that fitting changes no argument of the net;
            or the ``alpha`` of ``Mixup``.
        kinds: What a tensor is where that is in doubt, as for a mixer: ``{"y": "segmentation"}``.
        kwargs: Those of the net, and ``mixer__...``.

    Attributes:
        mixer_: The mixer in use, once the net is initialized.

    Example:
        >>> import batchmix as bm
        >>> class Net(MixUpNet, NeuralNetRegressor):
        ...     "A net of one's own."
        >>> net = Net("its module", mixer=bm.CutMix, mixer__alpha=1.0)
        >>> net.get_params()["mixer__alpha"]
        1.0
    """

    criterion_: Any
    prefixes_ = [*NeuralNet.prefixes_, "mixer"]  # noqa: RUF012  (skorch's own form)

    def __init__(
        self,
        *args: Any,
        mixer: Callable[..., Mixer] | Mixer | float = Mixup,
        kinds: Kinds | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.mixer = mixer
        self.kinds = kinds

    def _initialize_history(self) -> Any:
        # Not in `initialize`, which skorch's AccelerateMixin replaces: this is the last part that both call.
        super()._initialize_history()
        return self.initialize_mixer()

    def initialize_mixer(self) -> Any:
        """Make ``mixer_`` from ``mixer`` and the ``mixer__...`` parameters.

        Raises:
            MixError: If they do not give a mixer.
        """
        options = self.get_params_for("mixer")
        if isinstance(self.mixer, Mixer):
            if options:
                raise MixError.of(
                    "mixer", self.mixer, f"a class where there is mixer__{next(iter(options))}, such as Mixup"
                )
            self.mixer_ = copy.deepcopy(check_needs_no_plan(self.mixer))
            return self
        made = self.mixer(**options) if callable(self.mixer) else self.mixer
        if isinstance(made, Real):
            made = given_or_mixup(made, options)
        if not isinstance(made, Mixer):
            raise MixError.of("mixer", self.mixer, "a Mixer, or a class of them such as Mixup")
        self.mixer_ = check_needs_no_plan(made)
        return self

    def set_params(self, **params: Any) -> Any:
        """As in skorch; a mixer in use is made anew, and goes on at its step."""
        ours = {name: value for name, value in params.items() if name.partition("__")[0] == "mixer"}
        if not (ours and self.initialized_):
            return super().set_params(**params)
        super().set_params(**{name: value for name, value in params.items() if name not in ours})
        for name, value in ours.items():
            setattr(self, name, value)
        step = self.mixer_.step
        self.initialize_mixer()
        self.mixer_.step = step
        return self

    def train_step(self, batch: Any, **fit_params: Any) -> Any:
        """As in skorch, with the mixed batch."""
        x, y = (to_tensor(part, device=self.device) for part in unpack_data(batch))
        return super().train_step(self.mixer_(x, y, kinds=self.kinds), **fit_params)

    def get_loss(self, y_pred: Any, y_true: Any, *args: Any, **kwargs: Any) -> Any:
        """As in skorch; ``y_true`` may be a MixedTarget, or a list or dict in which the targets are."""
        y_true = tree_map_only(MixedTarget, lambda target: _OnItsDevice(*target), y_true)
        if not isinstance(y_true, MixedTarget):
            return super().get_loss(y_pred, y_true, *args, **kwargs)
        plain = self.criterion_
        self.criterion_ = _MixedForm(plain)
        try:
            return super().get_loss(y_pred, y_true, *args, **kwargs)
        finally:
            self.criterion_ = plain


class MixUpClassifier(MixUpNet, NeuralNetClassifier):
    """``skorch.NeuralNetClassifier`` that mixes its training batches.

    Args:
        args: Those of ``NeuralNetClassifier``; ``module`` comes first.
        mixer: As for ``MixUpNet``, and so is ``kinds``.
        kwargs: Those of ``NeuralNetClassifier``, and ``mixer__...``.

    Example:
        >>> import torch
        >>> module = torch.nn.Linear(4, 3)
        >>> net = MixUpClassifier(module, criterion=torch.nn.CrossEntropyLoss, mixer__alpha=0.4, verbose=0)
        >>> net.fit(torch.rand(20, 4).numpy(), torch.arange(20).numpy() % 3).predict(torch.rand(2, 4)).shape
        (2,)
    """


class MixUpBinaryClassifier(MixUpNet, NeuralNetBinaryClassifier):
    """``skorch.NeuralNetBinaryClassifier`` that mixes its training batches.

    Args:
        args: Those of ``NeuralNetBinaryClassifier``; ``module`` comes first.
        mixer: As for ``MixUpNet``, and so is ``kinds``.
        kwargs: Those of ``NeuralNetBinaryClassifier``, and ``mixer__...``.

    Example:
        >>> import torch
        >>> net = MixUpBinaryClassifier(torch.nn.Linear(4, 1), mixer__alpha=0.4, verbose=0)
        >>> y = torch.tensor([0.0, 1.0]).repeat(10)
        >>> net.fit(torch.rand(20, 4).numpy(), y.numpy()).predict(torch.rand(2, 4)).shape
        (2,)
    """


class MixUpRegressor(MixUpNet, NeuralNetRegressor):
    """``skorch.NeuralNetRegressor`` that mixes its training batches.

    Args:
        args: Those of ``NeuralNetRegressor``; ``module`` comes first.
        mixer: As for ``MixUpNet``, and so is ``kinds``.
        kwargs: Those of ``NeuralNetRegressor``, and ``mixer__...``.

    Example:
        >>> import torch
        >>> net = MixUpRegressor(torch.nn.Linear(4, 1), mixer__alpha=0.4, verbose=0)
        >>> net.fit(torch.rand(20, 4).numpy(), torch.rand(20, 1).numpy()).predict(torch.rand(2, 4)).shape
        (2, 1)
    """


class _OnItsDevice(MixedTarget):
    """A target that skorch's ``to_tensor``, on the way to the criterion, hands on as it is."""

    __slots__ = ()

    def convert_to_tensors(self, kind: str) -> MixedTarget:
        return self


class _MixedForm:
    """A criterion that takes mixed targets, and passes for the criterion itself.

    Nets look at what their criterion is: ``NeuralNetClassifier`` takes the logarithm if it is an ``NLLLoss``.
    """

    def __init__(self, criterion: LossFn) -> None:
        self._criterion = criterion

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return type(self._criterion)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._criterion, name)

    def __call__(self, output: Any, target: Any) -> Tensor:
        return mixed_loss(self._criterion, output, target)
