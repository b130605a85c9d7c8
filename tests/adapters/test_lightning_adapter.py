"""The callback for Lightning, with the real Trainer of each of its two packages."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.tuner import Tuner
from lightning_loop import (
    LIGHTNINGS_OWN_WARNINGS,
    PACKAGES,
    callback,
    framework,
    loader,
    make_module,
    make_trainer,
)
from lightning_watcher import Watcher, assert_mixed, expected, fit, mixer
from messages import one_line
from plain_loop import LR, eval_batches, make_model, train_batches
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassF1Score

import batchmix as bm
from batchmix.adapters.lightning import MixUpCallback
from batchmix.adapters.pytorch_lightning import MixUpCallback as OtherMixUpCallback
from batchmix.adapters.torchmetrics import DominantLabel, MixedAccuracy
from batchmix.core.draws import as_rank

pytestmark = [pytest.mark.filterwarnings(f"ignore:{message}") for message in LIGHTNINGS_OWN_WARNINGS]


# What is mixed, and what is not


@pytest.mark.parametrize("name", PACKAGES)
def test_one_line_is_all_there_is_to_add(name: str) -> None:
    torch.manual_seed(1)
    module = make_module(name)
    make_trainer(name, callback(name)(alpha=0.4)).fit(module, loader(train_batches()), loader(eval_batches()))
    plain = make_module(name)
    make_trainer(name).fit(plain, loader(train_batches()), loader(eval_batches()))
    assert len(module.losses.train) == len(plain.losses.train) == 6
    assert module.losses.train[0] != plain.losses.train[0]


def test_each_callback_serves_both_trainers() -> None:
    for name in PACKAGES:
        runs = []
        for made in (MixUpCallback(mixer()), OtherMixUpCallback(mixer())):
            module = make_module(name)
            make_trainer(name, made).fit(module, loader(train_batches()))
            runs.append(module.losses.train)
        assert runs[0] == runs[1]
        assert len(runs[0]) == 6
    assert isinstance(OtherMixUpCallback(), framework("pytorch_lightning").Callback)
    assert framework("pytorch_lightning").Trainer(callbacks=OtherMixUpCallback(), logger=False)


def test_training_batches_are_mixed_and_all_others_are_not() -> None:
    module, plain = Watcher(), eval_batches()
    trainer = make_trainer("lightning", MixUpCallback(mixer()), max_epochs=1, num_sanity_val_steps=2)
    trainer.fit(module, loader(train_batches()), loader(plain))
    trainer.validate(module, loader(plain), verbose=False)
    trainer.test(module, loader(plain), verbose=False)
    trainer.predict(module, loader(plain))
    assert_mixed(module.seen["train"], expected(train_batches()))
    for stage, times in (("val", 3), ("test", 1), ("predict", 1)):
        seen = module.seen[stage]
        assert len(seen) == times * len(plain)
        for (x, y), (plain_x, plain_y) in zip(seen, plain * times, strict=True):
            assert torch.equal(x, plain_x)
            assert torch.equal(y, plain_y)


def test_validation_in_the_middle_of_an_epoch_is_not_mixed() -> None:
    module = Watcher()
    trainer = make_trainer("lightning", MixUpCallback(mixer()), max_epochs=1, val_check_interval=1)
    trainer.fit(module, loader(train_batches()), loader(eval_batches()))
    assert len(module.seen["val"]) == 3 * len(eval_batches())
    assert all(isinstance(y, Tensor) for _, y in module.seen["val"])
    assert_mixed(module.seen["train"], expected(train_batches()))


@pytest.mark.parametrize("name", PACKAGES)
def test_a_batch_that_another_callback_moves_is_not_mixed(name: str) -> None:
    class Probe(framework(name).Callback):
        """Moves a batch of its own to the device wherever training gives it the word."""

        def __init__(self) -> None:
            self.targets: list[Any] = []

        def look(self, trainer: Any, *_: Any) -> None:
            self.targets.append(trainer.strategy.batch_to_device(train_batches()[0])[1])

        on_train_start = on_train_epoch_start = on_train_batch_start = on_before_optimizer_step = look
        on_train_batch_end = on_train_epoch_end = on_train_end = look

    probe, made = Probe(), callback(name)(mixer())
    trainer = make_trainer(name, probe, made, accumulate_grad_batches=2, max_steps=3)
    trainer.fit(make_module(name), loader(train_batches()), loader(eval_batches()))
    assert len(probe.targets) == 2 + 2 * 2 + 2 * 5 + 3
    assert {type(target) for target in probe.targets} == {Tensor}
    assert made.mixer.step == 5


def test_batches_of_the_data_set_stay_as_they_are() -> None:
    batches = [list(batch) for batch in train_batches()]
    before = copy.deepcopy(batches)
    module = Watcher()
    fit(module, batches, MixUpCallback(mixer()))
    assert type(module.seen["train"][0]) is list
    for (x, y), (old_x, old_y) in zip(batches, before, strict=True):
        assert torch.equal(x, old_x)
        assert torch.equal(y, old_y)


def test_the_logged_loss_is_the_one_of_the_backward_pass() -> None:
    """composer#825."""

    class Logging(Watcher):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            x, y = batch
            self.log("loss", loss, on_step=True, on_epoch=False)
            self.log("accuracy", y.expected_accuracy(self(x)), on_epoch=True)
            return loss

    losses: list[float] = []

    class BackwardLosses(pl.Callback):
        def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
            losses.append(loss.item())

        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            assert trainer.callback_metrics["loss"].item() == losses[-1]

    module = Logging()
    trainer = fit(module, train_batches(), MixUpCallback(mixer()), BackwardLosses())
    assert losses == module.losses
    assert 0 <= trainer.callback_metrics["accuracy"] <= 1


@pytest.mark.parametrize("metric", [MixedAccuracy(), DominantLabel(MulticlassF1Score(4))])
def test_a_metric_is_logged_by_step_and_by_epoch(metric: Any) -> None:
    class Logging(Watcher):
        def __init__(self) -> None:
            super().__init__()
            self.metric = metric

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            x, y = batch
            self.metric(self(x), y)
            self.log("metric", self.metric, on_step=True, on_epoch=True)
            return super().training_step(batch, batch_idx)

    logged = fit(Logging(), train_batches(), MixUpCallback(mixer())).callback_metrics
    assert {"metric_step", "metric_epoch"} <= logged.keys()


# Arguments


def test_a_number_is_the_alpha_of_mixup() -> None:
    assert repr(MixUpCallback(0.2, seed=1).mixer) == repr(bm.Mixup(0.2, seed=1))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(bm.MixError, match=r"^mixer takes a method such as bm.Mixup\(0.4\), got str '0.4'$"):
        MixUpCallback("0.4")
    with pytest.raises(bm.MixError, match=r"^mixer takes .* or None where alpha is given, got Mixup"):
        MixUpCallback(mixer(), alpha=0.2)
    with pytest.raises(bm.MixError, match=r"^alpha takes a finite number >= 0, got -1$"):
        MixUpCallback(alpha=-1)
    with pytest.raises(bm.MixError, match=r"^x and y take a key each, .*, got x='image', y=None$"):
        MixUpCallback(x="image")
    with pytest.raises(bm.MixError, match=r"^y takes a key or a position in the batch, or several, got 1.5$"):
        MixUpCallback(x=0, y=1.5)


@pytest.mark.filterwarnings("ignore:You are using the `dataloader_iter` step flavor")
def test_a_step_that_loads_its_own_batches_is_refused() -> None:
    class Loading(Watcher):
        def training_step(self, dataloader_iter: Any) -> Tensor:
            raise AssertionError("it is not reached")

    with pytest.raises(bm.MixError) as raised:
        fit(Loading(), train_batches(), MixUpCallback(mixer()))
    assert one_line(raised).startswith(
        "training_step takes a batch where a callback mixes it, got one of dataloader_iter"
    )


# Ways to train


def test_each_micro_batch_has_a_draw_of_its_own() -> None:
    """composer#875: partners come from the same micro-batch, and the gradient is that of its mixed loss."""
    module = Watcher()
    fit(module, train_batches(), MixUpCallback(mixer()), accumulate_grad_batches=3)
    assert_mixed(module.seen["train"], expected(train_batches()))
    by_hand = make_model()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=LR)
    for x, y in expected(train_batches()):
        (F.cross_entropy(by_hand(x), y) / 3).backward()
    optimizer.step()
    for ours, theirs in zip(module.net.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_manual_optimization_works() -> None:
    class Manual(Watcher):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            loss = super().training_step(batch, batch_idx)
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    manual, automatic = Manual(), Watcher()
    for module in (manual, automatic):
        fit(module, train_batches(), MixUpCallback(mixer()))
    assert manual.losses == automatic.losses


def test_an_optimizer_that_evaluates_a_batch_again_and_again_sees_the_same_mix() -> None:
    class LineSearch(Watcher):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.LBFGS(self.parameters(), max_iter=3)

    module = LineSearch()
    fit(module, train_batches()[:1], MixUpCallback(mixer()))
    assert len(module.seen["train"]) > 1
    assert_mixed(module.seen["train"], expected(train_batches()[:1]) * len(module.seen["train"]))


def test_bf16_mixed_precision_works() -> None:
    half, full = Watcher(), Watcher()
    fit(half, train_batches(), MixUpCallback(mixer()), precision="bf16-mixed")
    fit(full, train_batches(), MixUpCallback(mixer()))
    assert half.losses == pytest.approx(full.losses, rel=0.02)
    assert half.losses != full.losses


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's own
def test_a_compiled_module_is_mixed_too() -> None:
    module, eager, batches = Watcher(), Watcher(), train_batches()[:1]
    fit(torch.compile(module, backend="eager"), batches, MixUpCallback(mixer()))
    fit(eager, batches, MixUpCallback(mixer()))
    assert module.losses == pytest.approx(eager.losses)
    torch._dynamo.reset()


def test_augmentations_of_a_datamodule_come_first() -> None:
    class Data(pl.LightningDataModule):
        def train_dataloader(self) -> DataLoader:
            return loader(train_batches())

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            x, y = batch
            return x.flip(-1), y

    module = Watcher()
    make_trainer("lightning", MixUpCallback(mixer()), max_epochs=1).fit(module, datamodule=Data())
    assert_mixed(module.seen["train"], expected([(x.flip(-1), y) for x, y in train_batches()]))


@pytest.mark.parametrize(("own", "place"), [(None, 1), (2, 2)], ids=["the strategy's", "the mixer's own"])
def test_processes_that_share_a_batch_draw_alike(own: int | None, place: int) -> None:
    module = Watcher()
    trainer = make_trainer("lightning", MixUpCallback(bm.Mixup(0.4, seed=5, rank=own)), max_epochs=1)
    trainer.strategy.distributed_sampler_kwargs = {"num_replicas": 2, "rank": 1}  # of tensor parallelism
    trainer.fit(module, loader(train_batches()))
    with as_rank(place):
        assert_mixed(module.seen["train"], expected(train_batches()))


def test_an_example_input_of_the_module_is_not_mixed() -> None:
    module = Watcher()
    module.example_input_array = torch.rand(2, 3, 8, 8)
    made = MixUpCallback(mixer())
    fit(module, train_batches(), made, enable_model_summary=True, max_epochs=1)
    assert made.mixer.step == 3


def test_the_search_for_a_learning_rate_leaves_the_draws_as_they_were(tmp_path: Path) -> None:
    module, made = Watcher(lr=0.1), MixUpCallback(mixer())
    trainer = make_trainer("lightning", made, max_epochs=2, default_root_dir=tmp_path)
    search = {"num_training": 6, "early_stop_threshold": None, "update_attr": False}
    found = Tuner(trainer).lr_find(module, loader(train_batches()), **search)
    assert len(found.results["loss"]) == 6
    assert_mixed(module.seen["train"], expected(train_batches() * 2))
    assert made.mixer.state_dict() == {"seed": 5, "step": 0}
    module.seen["train"].clear()
    trainer.fit(module, loader(train_batches()))
    assert_mixed(module.seen["train"], expected(train_batches() * 2))
    assert not list(tmp_path.iterdir())
