"""The torchmetrics adapter with real metrics: the same number as on all batches at once, everywhere."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import MeanSquaredError, MetricCollection, MetricTracker
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score
from torchmetrics.wrappers import BootStrapper

import batchmix as bm
from batchmix.adapters.torchmetrics import DominantLabel, MixedAccuracy

Batches = list[tuple[Tensor, bm.MixedTarget]]


def make_batches() -> Batches:
    """Logits and mixed targets, in batches of 8, 8 and 5."""
    generator = torch.Generator().manual_seed(3)
    mixup, batches = bm.Mixup(1.0, seed=4, fold=False), []
    for size in (8, 8, 5):
        x, y = torch.rand(size, 2), torch.randint(4, (size,), generator=generator)
        batches.append((torch.randn(size, 4, generator=generator), mixup(x, y)[1]))
    return batches


def joined(batches: Batches) -> tuple[Tensor, bm.MixedTarget]:
    logits, targets = zip(*batches, strict=True)
    return torch.cat(logits), bm.MixedTarget(*(torch.cat(parts) for parts in zip(*targets, strict=True)))


def test_accuracy_adds_up_over_batches_of_any_size() -> None:
    metric, batches = MixedAccuracy(), make_batches()
    for logits, target in batches:
        torch.testing.assert_close(metric(logits, target), bm.expected_accuracy(logits, target))
    torch.testing.assert_close(metric.compute(), bm.expected_accuracy(*joined(batches)))
    metric.reset()
    assert metric.total == metric.correct == 0


def test_accuracy_of_plain_targets_is_torchmetrics_own() -> None:
    ours, theirs = MixedAccuracy(), MulticlassAccuracy(4, average="micro")
    for logits, target in make_batches():
        ours.update(logits, target.a)
        theirs.update(logits, target.a)
    torch.testing.assert_close(ours.compute(), theirs.compute())


def test_every_position_of_a_segmentation_counts() -> None:
    logits, y = torch.randn(4, 3, 5, 6), torch.randint(3, (4, 5, 6))
    target = bm.MixedTarget(y, y.flip(0), torch.tensor([0.6, 1.0, 0.7, 0.9]))
    metric = MixedAccuracy()
    metric.update(logits, target)
    assert metric.total == 120
    torch.testing.assert_close(metric.compute(), bm.expected_accuracy(logits, target))


def test_samples_are_counted_whole_whatever_their_weights() -> None:
    for logits, target in make_batches():
        metric = MixedAccuracy()
        metric.update(logits, target)
        assert metric.total == len(target)


def test_ignored_positions_count_nothing_and_a_batch_of_them_neither() -> None:
    logits, y = torch.randn(4, 3, 5, 6), torch.randint(3, (4, 5, 6))
    y[:, :2] = 255
    target = bm.MixedTarget(y, y.flip(0), torch.tensor([0.6, 1.0, 0.7, 0.9]))
    metric = MixedAccuracy(ignore_index=255)
    metric.update(logits, target)
    metric.update(logits, torch.full_like(y, 255))
    torch.testing.assert_close(metric.compute(), bm.expected_accuracy(logits, target, ignore_index=255))
    torch.testing.assert_close(
        metric.compute(), bm.expected_accuracy(logits[:, :, 2:], target.map(lambda y: y[:, 2:]))
    )


def test_labels_among_the_largest_logits_count_over_all_batches() -> None:
    metric, several = MixedAccuracy(top_k=2), list(make_batches())
    for logits, target in several:
        metric.update(logits, target)
    right = sum(bm.expected_accuracy(logits, y, top_k=2) * len(y) for logits, y in several)
    torch.testing.assert_close(metric.compute(), right / sum(len(y) for _, y in several))
    with pytest.raises(bm.MixError, match=r"^top_k takes a whole number >= 1, got 0"):
        MixedAccuracy(top_k=0)


def test_other_metrics_see_the_dominant_label() -> None:
    metric, theirs = DominantLabel(MulticlassF1Score(4)), MulticlassF1Score(4)
    for logits, target in make_batches():
        torch.testing.assert_close(metric(logits, target), theirs(logits, target.dominant))
    torch.testing.assert_close(metric.compute(), theirs.compute())
    metric.reset()
    assert metric.metric.update_count == 0


def test_plain_targets_pass_untouched() -> None:
    metric, theirs = DominantLabel(MulticlassConfusionMatrix(4)), MulticlassConfusionMatrix(4)
    for logits, target in make_batches():
        metric.update(logits, target.a)
        theirs.update(logits, target.a)
    assert torch.equal(metric.compute(), theirs.compute())


def test_accuracies_of_other_settings_stay_apart_in_a_collection() -> None:
    """Also where both found the same in the first batch."""
    collection = MetricCollection({"one": MixedAccuracy(), "two": MixedAccuracy(top_k=2)})
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]] * 2)
    collection.update(logits, torch.tensor([0, 1]))
    assert collection.compute() == {"one": 0, "two": 0}
    collection.update(logits, torch.tensor([2, 2]))
    assert collection.compute() == {"one": 0, "two": 0.5}


def test_metrics_work_in_a_collection() -> None:
    collection = MetricCollection(
        {"accuracy": MixedAccuracy(), "f1": DominantLabel(MulticlassF1Score(4)), "again": MixedAccuracy()}
    )
    batches = make_batches()
    for logits, target in batches:
        collection.update(logits, target)
    values, (logits, target) = collection.compute(), joined(batches)
    torch.testing.assert_close(values["accuracy"], bm.expected_accuracy(logits, target))
    torch.testing.assert_close(values["again"], values["accuracy"])
    torch.testing.assert_close(values["f1"], MulticlassF1Score(4)(logits, target.dominant))
    collection.reset()
    assert collection["accuracy"].total == 0

    inside = DominantLabel(MetricCollection([MulticlassF1Score(4), MulticlassAccuracy(4)]))
    inside.update(*batches[0])
    assert set(inside.compute()) == {"MulticlassF1Score", "MulticlassAccuracy"}


class Weighed(MeanMetric):
    """A metric with an argument of its own."""

    def update(self, preds: Tensor, target: Tensor, weight: Tensor) -> None:
        super().update((preds.argmax(1) == target).float(), weight)


def test_a_keyword_reaches_the_metrics_of_a_collection_that_take_it() -> None:
    inside = MetricCollection({"inside": MulticlassF1Score(4)})
    collection = MetricCollection(
        {
            "f1": DominantLabel(MulticlassF1Score(4)),
            "weighed": DominantLabel(Weighed()),
            "collection": DominantLabel(inside),
        },
        compute_groups=False,
    )
    logits, target = make_batches()[0]
    collection.update(logits, target, weight=torch.ones(8))
    collection.update(preds=logits, target=target, weight=torch.ones(8))
    dominant = bm.expected_accuracy(logits, target.dominant)
    torch.testing.assert_close(collection["weighed"].compute(), dominant)
    torch.testing.assert_close(collection["f1"].compute(), inside["inside"].compute())


def test_a_metric_keeps_what_it_says_of_itself() -> None:
    assert DominantLabel(MeanSquaredError()).higher_is_better is False
    assert DominantLabel(MetricCollection([MulticlassAccuracy(4)])).higher_is_better is None
    tracker = MetricTracker(DominantLabel(MulticlassF1Score(4)))
    values = []
    for logits, target in make_batches():
        tracker.increment()
        values.append(tracker(logits, target).item())
    assert tracker.best_metric() == max(values)


def test_a_metric_plots_itself() -> None:
    metric, axes = DominantLabel(MulticlassF1Score(4)), Figure().subplots()
    metric.plot(metric(*make_batches()[0]), ax=axes)
    assert axes.lines


def test_metrics_pickle_move_and_keep_their_state() -> None:
    batches = make_batches()
    for metric in (MixedAccuracy(), DominantLabel(MulticlassAccuracy(4))):
        metric.update(*batches[0])
        twin = pickle.loads(pickle.dumps(metric)).to("cpu")
        for one in (metric, twin, metric.clone()):
            one.update(*batches[1])
        torch.testing.assert_close(twin.compute(), metric.compute())

    metric = MixedAccuracy()
    metric.persistent(True)
    metric.update(*batches[0])
    new = MixedAccuracy()
    new.load_state_dict(metric.state_dict())
    assert (new.correct, new.total) == (metric.correct, metric.total)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_counts_stay_exact_in_a_module_of_halves(dtype: torch.dtype) -> None:
    module = torch.nn.ModuleDict({"net": torch.nn.Linear(2, 2), "metric": MixedAccuracy()})
    metric = module["metric"]
    metric.update(torch.eye(2), torch.tensor([0, 0]))
    for change in (lambda: module.to(dtype), module.half, module.bfloat16, metric.reset):
        change()
        for state in (metric.correct, metric.total, metric._defaults["total"]):
            assert state.dtype == torch.float32
    y = torch.arange(4096) % 4
    metric.update(torch.eye(4, dtype=dtype)[torch.where(y == 3, 0, y)], y)
    for _ in range(8):
        metric.update(torch.eye(4, dtype=dtype)[:1], torch.tensor([1]))
    assert (metric.correct, metric.total) == (3072, 4104)


def test_the_state_moves_and_set_dtype_changes_it() -> None:
    metric = MixedAccuracy().to("meta", torch.bfloat16)
    for state in (metric.correct, metric.total, metric._defaults["total"]):
        assert (state.device.type, state.dtype) == ("meta", torch.float32)
    assert metric.device.type == "meta"
    metric.reset()
    assert metric.total.device.type == "meta"
    assert MixedAccuracy().set_dtype(torch.float64).total.dtype == torch.float64


@pytest.mark.parametrize("strategy", ["poisson", "multinomial"])
def test_the_parts_of_a_target_are_resampled_by_a_bootstrapper(strategy: str) -> None:
    """All predictions are for the first label, of the larger weight."""
    bootstrap = BootStrapper(MixedAccuracy(), num_bootstraps=5, sampling_strategy=strategy, raw=True)
    own = torch.arange(40) % 4
    target = bm.MixedTarget(own, (own + 1) % 4, torch.linspace(0.5, 1, 40))
    metric = MixedAccuracy()
    metric.update(torch.eye(4)[own], tuple(target))
    torch.testing.assert_close(metric.compute(), target.lam.mean())
    bootstrap.update(torch.eye(4)[own], tuple(target))
    assert (bootstrap.compute()["raw"] > 0.6).all()  # 0.25 of them would be right for other samples' labels


def _one_of_two(rank: int, store: str) -> None:
    batches = make_batches()  # before there are ranks, which draw apart
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    metrics = MixedAccuracy(), DominantLabel(MulticlassAccuracy(4, average="micro"))
    for logits, target in batches[rank::2]:  # 13 samples here, 8 there
        for metric in metrics:
            metric.update(logits, target)
    logits, target = joined(batches)
    torch.testing.assert_close(metrics[0].compute(), bm.expected_accuracy(logits, target))
    dominant = bm.expected_accuracy(logits, target.dominant)
    torch.testing.assert_close(metrics[1].compute(), dominant)
    assert metrics[0].total == len(batches[rank][1]) + (len(batches[2][1]) if rank == 0 else 0)
    torch.distributed.destroy_process_group()


def test_two_processes_agree_on_the_accuracy_of_all_batches(tmp_path: Path) -> None:
    """In a fresh process that forks: one import for both, and no threads to be forked."""
    shim = str(Path(__file__).parents[1] / "shim")
    ran = subprocess.run(
        [sys.executable, __file__, str(tmp_path / "store")],
        env=os.environ | {"PYTHONPATH": shim},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr


def test_wrong_use_is_named() -> None:
    with pytest.raises(bm.MixError, match=r"metric takes a torchmetrics\.Metric or MetricCollection, got 3"):
        DominantLabel(3)  # type: ignore[arg-type]
    logits, target = make_batches()[0]
    with pytest.raises(bm.MixError, match=r"logits takes \(B, K, ...\)"):
        MixedAccuracy().update(logits[:3], target)
    with pytest.raises(bm.MixError, match="class ids"):
        MixedAccuracy().update(logits, bm.MixedTarget(logits, logits, 1.0))


def test_a_mean_over_samples_can_be_weighted_by_hand() -> None:
    """What the docstring says of metrics that are means: the two labels, each with its weight."""
    metric, batches = MeanMetric(), make_batches()
    for logits, target in batches:
        for labels, weight in ((target.a, target.lam), (target.b, 1 - target.lam)):
            metric.update((logits.argmax(1) == labels).float(), weight)
    torch.testing.assert_close(metric.compute(), bm.expected_accuracy(*joined(batches)))


if __name__ == "__main__":
    torch.multiprocessing.start_processes(_one_of_two, args=(sys.argv[1],), nprocs=2, start_method="fork")


@pytest.mark.filterwarnings("ignore:The ``compute`` method")  # of what was loaded, as of any metric
def test_the_state_of_a_wrapped_metric_is_kept_and_merged() -> None:
    def made() -> DominantLabel:
        metric = DominantLabel(MulticlassAccuracy(4, average="micro"))
        metric.persistent(True)
        return metric

    first, second, restored = made(), made(), made()
    first.update(torch.eye(4), torch.arange(4))
    second.update(torch.eye(4), torch.arange(4).flip(0))
    restored.load_state_dict(first.state_dict())
    assert (float(restored.compute()), float(second.compute())) == (1, 0)
    first.merge_state(second)
    assert float(first.compute()) == 0.5
    with pytest.raises(bm.MixError, match=r"^merge_state takes the state of one metric"):
        DominantLabel(MetricCollection([MulticlassAccuracy(4)])).merge_state(first)
