"""torchmetrics: accuracy of mixed batches, and any metric on their dominant labels.

Use it::

    from batchmix.adapters.torchmetrics import DominantLabel, MixedAccuracy
    metrics = MetricCollection({
        "accuracy": MixedAccuracy(),                              # each label counts with its weight
        "f1": DominantLabel(MulticlassF1Score(num_classes=10)),   # each sample counts for its larger label
    })
    metrics.update(logits, target)

Where is the batch intercepted? It is not: whatever mixed it hands its MixedTarget to ``update`` or
``forward``.

How is the loss reached? It is not: these are metrics. ``MixedAccuracy`` is ``batchmix.expected_accuracy``
over all that was seen. There is no such exact form for metrics that are not means over samples (F1, AUROC);
those have the dominant label, under which a mix of 0.6 and 0.4 counts like an unmixed sample.

How is evaluation left untouched? Plain targets go through as they are: ``MixedAccuracy`` is then the plain
accuracy, and ``DominantLabel`` the metric that it wraps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from batchmix.core.sampling import check_count
from batchmix.core.targets import MixedTarget, count_correct
from batchmix.errors import MixError, needs

with needs("torchmetrics"):
    from torchmetrics import Metric, MetricCollection
    from torchmetrics.wrappers.abstract import WrapperMetric

__all__ = ["DominantLabel", "MixedAccuracy"]


class MixedAccuracy(Metric):
    """Share of correct predictions; for a mixed target each of the two labels counts with its weight.

    Its state is a sum and a count, so that it adds up over batches and over processes. Both stay float32 in a
    module that becomes bfloat16 or float16; ``set_dtype`` changes them.

    A ``BootStrapper`` resamples tensors, and leaves a MixedTarget as it is, beside other predictions: give it
    the parts, ``bootstrap.update(logits, tuple(target))``.

    Args:
        ignore_index: A class id that is left out, as in ``F.cross_entropy``.
        top_k: A label counts where it is among so many of the largest logits, 1 to K.
        kwargs: Those of ``torchmetrics.Metric``.

    Example:
        >>> metric = MixedAccuracy()
        >>> target = MixedTarget(torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([0.75, 1.0]))
        >>> metric.update(torch.eye(3)[[0, 1]], target)
        >>> metric.compute()
        tensor(0.8750)
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    correct: Tensor
    total: Tensor

    def __init__(self, *, ignore_index: int = -100, top_k: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ignore_index = ignore_index
        self.top_k = check_count("top_k", top_k)
        self.add_state("correct", default=torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("total", default=torch.tensor(0.0), dist_reduce_fx="sum")  # of weights
        # A MetricCollection makes one of metrics whose states are equal after a batch; others never are.
        self.add_state("settings", default=torch.tensor([ignore_index, self.top_k]), dist_reduce_fx="max")

    def update(self, preds: Tensor, target: MixedTarget | Tensor | tuple[Tensor, Tensor, Tensor]) -> None:
        """Count a batch.

        Args:
            preds: Logits or probabilities, (B, K) or (B, K, ...).
            target: Class ids, mixed or plain, (B) or (B, ...); or the parts ``(a, b, lam)`` of mixed ones.

        Raises:
            MixError: If the shapes do not fit, or the targets are not class ids.
        """
        if isinstance(target, tuple):
            target = MixedTarget(*target)
        correct, count = count_correct(preds, target, self.ignore_index, self.top_k)
        self.correct += correct
        self.total += count

    def compute(self) -> Tensor:
        """0-d float32 in [0, 1]."""
        return self.correct / self.total

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any) -> Any:
        """Move the state; its dtype changes by ``set_dtype`` alone, since halves would soon stop growing."""

        def moved(state: Tensor) -> Tensor:
            new = fn(state)
            keeps = self._dtype_convert or new.dtype == state.dtype
            return new if keeps else state.to(new.device)

        return super()._apply(moved, *args)


class DominantLabel(WrapperMetric):
    """Any metric that wants plain targets, on the label of larger weight of mixed ones.

    Args:
        metric: The metric, or a ``MetricCollection``.
        kwargs: Those of ``torchmetrics.Metric``.

    Raises:
        MixError: If ``metric`` is not a metric.

    Example:
        >>> from torchmetrics.classification import MulticlassAccuracy
        >>> metric = DominantLabel(MulticlassAccuracy(num_classes=3, average="micro"))
        >>> target = MixedTarget(torch.tensor([0, 1]), torch.tensor([1, 2]), torch.tensor([0.75, 1.0]))
        >>> metric(torch.eye(3)[[0, 1]], target)
        tensor(1.)
    """

    def __init__(self, metric: Metric | MetricCollection, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(metric, (Metric, MetricCollection)):
            raise MixError.of("metric", metric, "a torchmetrics.Metric or MetricCollection")
        self.metric = metric

    def update(self, preds: Any, target: MixedTarget | Tensor, *args: Any, **kwargs: Any) -> None:
        """Update the metric; ``preds`` and the rest as it takes them."""
        self.metric.update(preds, _plain(target), *args, **kwargs)

    def forward(self, preds: Any, target: MixedTarget | Tensor, *args: Any, **kwargs: Any) -> Any:
        """Update the metric, and return its value for this batch."""
        # Kept where Lightning looks for the value of a step.
        self._forward_cache = self.metric(preds, _plain(target), *args, **kwargs)
        return self._forward_cache

    def compute(self) -> Any:
        """The metric's value for all that was seen."""
        return self.metric.compute()

    def reset(self) -> None:
        """Reset the metric."""
        self.metric.reset()
        super().reset()

    def persistent(self, mode: bool = False) -> None:
        """Whether the metric's state is part of ``state_dict``, as of any metric."""
        super().persistent(mode)
        self.metric.persistent(mode)

    def merge_state(self, incoming_state: Any) -> None:
        """Take in what another, or its metric, has seen."""
        other = incoming_state.metric if isinstance(incoming_state, DominantLabel) else incoming_state
        if isinstance(self.metric, MetricCollection):
            raise MixError("merge_state takes the state of one metric, got that of a MetricCollection")
        self.metric.merge_state(other)

    # What the metric says of itself

    @property
    def higher_is_better(self) -> bool | None:
        """That of the metric, None for a ``MetricCollection``."""
        return getattr(self.metric, "higher_is_better", None)

    def plot(self, *args: Any, **kwargs: Any) -> Any:
        """Plot the metric, as it does itself."""
        return self.metric.plot(*args, **kwargs)

    def _filter_kwargs(self, **kwargs: Any) -> dict[str, Any]:
        if isinstance(self.metric, MetricCollection):  # which chooses for each of its metrics
            return kwargs
        taken: dict[str, Any] = self.metric._filter_kwargs(**kwargs)
        return taken


def _plain(target: Any) -> Any:
    return target.dominant if isinstance(target, MixedTarget) else target
