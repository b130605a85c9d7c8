"""The callback for Lightning, with the real Trainer of each of its two packages."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import signal
from collections import namedtuple
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.tuner import Tuner
from lightning.pytorch.utilities import CombinedLoader
from lightning_loop import (
    LIGHTNINGS_OWN_WARNINGS,
    PACKAGES,
    callback,
    framework,
    loader,
    make_module,
    make_trainer,
)
from plain_loop import LR, eval_batches, make_model, make_samples, train_batches
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassF1Score

import batchmix as bm
from batchmix.adapters.lightning import MixUpCallback
from batchmix.adapters.pytorch_lightning import MixUpCallback as OtherMixUpCallback
from batchmix.adapters.torchmetrics import DominantLabel, MixedAccuracy

pytestmark = [
    *(pytest.mark.filterwarnings(f"ignore:{message}") for message in LIGHTNINGS_OWN_WARNINGS),
    # A loader of equal batches need not be resumable, and a resumed run here needs no further checkpoints.
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
]


class Watcher(pl.LightningModule):
    """Keeps every batch that it is given, and trains on those that are ``(x, y)``."""

    def __init__(self, lr: float = LR) -> None:
        super().__init__()
        self.net, self.lr = make_model(), lr
        self.seen: dict[str, list[Any]] = {"train": [], "val": [], "test": [], "predict": []}
        self.losses: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def compute_loss(self, batch: Any) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.losses.append(loss.item())
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen["train"].append(batch)
        return self.compute_loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen["val"].append(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.seen["test"].append(batch)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen["predict"].append(batch)
        return self(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Anything(Watcher):
    """Takes a batch of any form."""

    def compute_loss(self, batch: Any) -> Tensor:
        return self.net(torch.rand(1, 3, 8, 8)).sum()


def mixer() -> bm.Mixup:
    return bm.Mixup(0.4, seed=5)


def fit(module: Any, batches: Any, *callbacks: Any, **options: Any) -> Any:
    """One epoch."""
    trainer = make_trainer("lightning", *callbacks, **({"max_epochs": 1} | options))
    trainer.fit(module, batches if isinstance(batches, (dict, CombinedLoader)) else loader(batches))
    return trainer


def expected(batches: list[Any], start: int = 0) -> list[Any]:
    """What the mixer makes of these batches."""
    again = mixer()
    again.step = start
    return [again(x, y) for x, y in batches]


def assert_mixed(seen: list[Any], wanted: list[Any]) -> None:
    assert len(seen) == len(wanted)
    for (x, y), (wanted_x, wanted_y) in zip(seen, wanted, strict=True):
        assert torch.equal(x, wanted_x)
        for part, wanted_part in zip(y, wanted_y, strict=True):
            assert torch.equal(part, wanted_part)


def one_line(raised: pytest.ExceptionInfo[bm.MixError]) -> str:
    message = str(raised.value)
    assert "\n" not in message
    return message


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


# Forms of a batch


Sample = namedtuple("Sample", "index image label")


@pytest.mark.parametrize(
    ("form", "keys", "image", "label"),
    [
        (lambda x, y: {"image": x, "label": y, "id": ["a"]}, {"x": "image", "y": "label"}, "image", "label"),
        (lambda x, y: [torch.arange(len(x)), y, x], {"x": 2, "y": 1}, 2, 1),
        (lambda x, y: (y, "name", x), {"x": -1, "y": 0}, -1, 0),
        (lambda x, y: Sample(torch.arange(len(x)), x, y), {"x": 1, "y": 2}, 1, 2),
    ],
    ids=["dict", "list", "tuple", "namedtuple"],
)
def test_samples_and_targets_are_found_where_x_and_y_say(
    form: Any, keys: Any, image: Any, label: Any
) -> None:
    batches = [form(x, y) for x, y in train_batches()]
    module = Anything()
    fit(module, batches, MixUpCallback(mixer(), **keys))
    seen = module.seen["train"]
    assert_mixed([(batch[image], batch[label]) for batch in seen], expected(train_batches()))
    assert type(seen[0]) is type(batches[0])
    assert all(isinstance(batch[label], Tensor) for batch in batches)


def test_several_inputs_and_targets_have_one_draw() -> None:
    x, y = make_samples(8, seed=3)
    batch = {"left": x, "right": x.flip(-1), "digit": y, "mask": torch.ones(8, 8, 8, dtype=torch.int64)}
    keys = {"x": ("left", "right"), "y": ["digit", "mask"], "kinds": {"y.mask": "segmentation"}}
    module = Anything()
    fit(module, [batch], MixUpCallback(bm.CutMix(1.0, seed=5), **keys))
    seen = module.seen["train"][0]
    plan = bm.CutMix(1.0, seed=5).plan(x, y)
    assert torch.equal(seen["left"], bm.blend(x, plan))
    assert torch.equal(seen["right"], bm.blend(x.flip(-1), plan))
    assert torch.equal(seen["digit"].lam, plan.lam)
    assert torch.equal(seen["mask"], batch["mask"])


def test_nested_inputs_are_mixed_without_being_told() -> None:
    x, y = make_samples(8, seed=3)
    module = Anything()
    fit(module, [({"image": x, "age": torch.rand(8, 1)}, y)], MixUpCallback(mixer()))
    assert torch.equal(module.seen["train"][0][0]["image"], bm.blend(x, mixer().plan(x)))


def test_one_of_several_dataloaders_is_mixed_by_name() -> None:
    module = Anything()
    loaders = {"labelled": loader(train_batches()), "rest": loader(train_batches())}
    fit(module, loaders, MixUpCallback(mixer(), x="labelled.0", y="labelled.1"))
    seen = module.seen["train"]
    assert_mixed([batch["labelled"] for batch in seen], expected(train_batches()))
    assert all(isinstance(batch["rest"][1], Tensor) for batch in seen)


X, Y = make_samples(8, seed=3)


@dataclasses.dataclass
class Pair:
    """A batch of a type that has neither keys nor positions."""

    x: Tensor
    y: Tensor


@pytest.mark.parametrize(
    ("batch", "keys", "wanted"),
    [
        (
            {"image": X, "label": Y},
            {},
            "x and y take the keys of samples and targets in a batch that is not a pair of them, as in "
            "MixUpCallback(x='image', y='label'), got a dict of 'image', 'label'",
        ),
        (
            (X, Y, "name"),
            {},
            "x and y take the keys of samples and targets in a batch that is not a pair of them, as in "
            "MixUpCallback(x=0, y=1), got a tuple of float32 tensor (8, 3, 8, 8), int64 tensor (8,), str",
        ),
        (
            X,
            {},
            "x and y take the keys of samples and targets in a batch that is not a pair of them, as in "
            "MixUpCallback(x='image', y='label'), got float32 tensor (8, 3, 8, 8)",
        ),
        (
            {"image": X, "label": Y},
            {"x": "img", "y": "label"},
            "x takes keys of the batch, a dict of 'image', 'label', got 'img'",
        ),
        (
            (X, Y),
            {"x": 0, "y": 2},
            "y takes keys of the batch, a tuple of float32 tensor (8, 3, 8, 8), int64 tensor (8,), got 2",
        ),
        (
            (X, Y),
            {"x": "image", "y": "label"},
            "x takes keys of the batch, a tuple of float32 tensor (8, 3, 8, 8), int64 tensor (8,), "
            "got 'image'",
        ),
        (
            Pair(X, Y),
            {"x": "x", "y": "y"},
            "x takes keys of the batch, a Pair, which is no dict, tuple or list, got 'x'",
        ),
        (
            Pair(X, Y),
            {},
            "x and y take the keys of samples and targets in a batch that is not a pair of them, as in "
            "MixUpCallback(x='image', y='label'), got a Pair, which is no dict, tuple or list",
        ),
        (X, {"x": 0, "y": 1}, "x takes keys of the batch, float32 tensor (8, 3, 8, 8), got 0"),
        (
            ((X * 255).to(torch.uint8), Y),
            {},
            "x takes floating point samples, such as x.float() / 255, got uint8 tensor (8, 3, 8, 8)",
        ),
    ],
)
def test_a_batch_that_cannot_be_mixed_is_named_on_one_line(batch: Any, keys: Any, wanted: str) -> None:
    made = MixUpCallback(mixer(), **keys)
    with pytest.raises(bm.MixError) as raised:
        fit(Anything(), [batch], made)
    assert one_line(raised) == wanted
    assert made.mixer.step == 0


@pytest.mark.parametrize("form", [dict, list])
def test_several_dataloaders_are_not_taken_for_a_pair(form: type) -> None:
    loaders: Any = {"a": loader(train_batches()), "b": loader(train_batches())}
    example = "x='a.0', y='a.1'"
    if form is list:
        loaders, example = CombinedLoader(list(loaders.values())), "x='0.0', y='0.1'"
    with pytest.raises(bm.MixError) as raised:
        fit(Anything(), loaders, MixUpCallback(mixer()))
    assert f"MixUpCallback({example}), got a {form.__name__} of" in one_line(raised)


@pytest.mark.parametrize("form", [dict, list])
def test_a_loader_that_has_ended_before_the_others_leaves_nothing_to_mix(form: type) -> None:
    """Half a batch of labels and a whole one without: semi-supervised training."""
    short, long = train_batches()[:1], train_batches()
    loaders = {"labelled": loader(short), "other": loader(long)}
    places = {"x": "labelled.0", "y": "labelled.1"} if form is dict else {"x": "0.0", "y": "0.1"}
    made = loaders if form is dict else list(loaders.values())
    module, callback = Anything(), MixUpCallback(mixer(), **places)
    fit(module, CombinedLoader(made, "max_size"), callback)
    batches = [list(batch.values()) if form is dict else batch for batch in module.seen["train"]]
    labelled, others = zip(*batches, strict=True)
    assert_mixed(list(labelled[:1]), expected(short))
    assert labelled[1:] == (None,) * (len(long) - 1)
    assert [type(y) for _, y in others] == [Tensor] * len(long)
    assert callback.mixer.step == 1


def test_a_number_is_the_alpha_of_mixup() -> None:
    assert repr(MixUpCallback(0.2, seed=1).mixer) == repr(bm.Mixup(0.2, seed=1))


# Several callbacks


FACES, SCENES = {"x": "faces.0", "y": "faces.1"}, {"x": "scenes.0", "y": "scenes.1"}


def both_loaders() -> dict[str, DataLoader]:
    return {"faces": loader(train_batches()), "scenes": loader(train_batches())}


class AnotherCallback(MixUpCallback):
    """One that Lightning takes for another callback."""


def test_each_loader_can_have_a_callback_of_its_own(tmp_path: Path) -> None:
    scenes = bm.CutMix(1.0, seed=6)
    module, made = Anything(), [MixUpCallback(mixer(), **FACES), MixUpCallback(scenes, **SCENES)]
    trainer = make_trainer("lightning", *made, max_epochs=1)
    trainer.fit(module, both_loaders())
    again = bm.CutMix(1.0, seed=6)
    assert_mixed([batch["faces"] for batch in module.seen["train"]], expected(train_batches()))
    assert_mixed(
        [batch["scenes"] for batch in module.seen["train"]], [again(x, y) for x, y in train_batches()]
    )
    assert "batch_to_device" not in vars(trainer.strategy)

    trainer.save_checkpoint(tmp_path / "two.ckpt")
    kept = torch.load(tmp_path / "two.ckpt", weights_only=False)["callbacks"]
    assert kept["MixUpCallback(x='faces.0', y='faces.1')"] == {"seed": 5, "step": 3}
    assert kept["MixUpCallback(x='scenes.0', y='scenes.1')"] == {"seed": 6, "step": 3}

    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, both_loaders())
    assert len(module.seen["train"]) == 6
    assert_mixed([batch["faces"] for batch in module.seen["train"][3:]], expected(train_batches(), start=3))
    assert "batch_to_device" not in vars(trainer.strategy)


@pytest.mark.parametrize("order", [1, -1], ids=["first in, first out", "last in, first out"])
def test_hooks_are_released_in_any_order(order: int) -> None:
    trainer = make_trainer("lightning")
    made = [MixUpCallback(mixer(), **FACES), MixUpCallback(mixer(), **SCENES)]
    theirs = trainer.strategy.batch_to_device = lambda batch: batch
    for one in made:
        one._intercept(trainer)
    for one in made[::order]:
        assert trainer.strategy.batch_to_device is not theirs
        one._release()
    assert trainer.strategy.batch_to_device is theirs


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {}),
        (FACES, {}),
        (FACES, FACES),
        (FACES, {"x": "scenes.0", "y": "faces.1"}),
        ({"x": ("faces", "more"), "y": "y"}, {"x": "faces.0", "y": "z"}),
    ],
)
def test_two_callbacks_for_one_part_of_a_batch_are_refused(first: Any, second: Any) -> None:
    made = [MixUpCallback(mixer(), **first), AnotherCallback(mixer(), **second)]
    trainer = make_trainer("lightning", *made, max_epochs=1)
    with pytest.raises(bm.MixError) as raised:
        trainer.fit(Anything(), both_loaders())
    assert one_line(raised).startswith(
        "callbacks takes one MixUpCallback for a part of the batch, of several methods as bm.Choice({"
    )
    assert "batch_to_device" not in vars(trainer.strategy)


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


# What is left behind


class Tripping(Watcher):
    """Fails in the second step of training; ``error`` says how."""

    error: BaseException | None = None

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if batch_idx == 1 and self.error is not None:
            raise self.error
        return super().training_step(batch, batch_idx)


def assert_as_found(trainer: Any, module: Any) -> None:
    """The module has what training without the callback leaves in one, and the trainer nothing of ours."""
    bare = type(module)()
    fit(bare, train_batches())
    assert set(vars(module)) - {"error"} == set(vars(bare))
    assert "batch_to_device" not in vars(trainer.strategy)


def test_the_module_is_as_found_and_pickles_at_any_time() -> None:
    module, copies = Watcher(), []

    class Pickles(pl.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            pl_module.seen["train"].clear()
            copies.append(pickle.loads(pickle.dumps(pl_module)))

    made = MixUpCallback(mixer())
    trainer = fit(module, train_batches(), made, Pickles())
    assert len(copies) == 3
    assert_as_found(trainer, module)
    fit(copies[-1], train_batches())
    assert isinstance(copies[-1].seen["train"][0][1], Tensor)
    assert pickle.loads(pickle.dumps(made)).mixer.state_dict() == {"seed": 5, "step": 3}


@pytest.mark.parametrize(
    "error", [RuntimeError("the module's own"), KeyboardInterrupt()], ids=["error", "Ctrl-C"]
)
def test_a_run_that_breaks_leaves_all_as_found(error: BaseException) -> None:
    module, made = Tripping(), MixUpCallback(mixer())
    handler = signal.getsignal(signal.SIGINT)
    trainer = make_trainer("lightning", made, max_epochs=1)
    module.error = error
    try:
        with pytest.raises(SystemExit if isinstance(error, KeyboardInterrupt) else RuntimeError):
            trainer.fit(module, loader(train_batches()))
    finally:
        signal.signal(signal.SIGINT, handler)  # after Ctrl-C Lightning ignores further ones
    assert_as_found(trainer, module)
    module.error = None
    fit(module, train_batches())
    assert isinstance(module.seen["train"][-1][1], Tensor)


def test_a_hook_that_somebody_else_had_put_there_is_put_back() -> None:
    module, calls = Watcher(), []
    trainer = make_trainer("lightning", MixUpCallback(mixer()), max_epochs=1)
    batch_to_device = trainer.strategy.batch_to_device

    def theirs(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return batch_to_device(*args, **kwargs)

    trainer.strategy.batch_to_device = theirs
    trainer.fit(module, loader(train_batches()))
    assert trainer.strategy.batch_to_device is theirs
    assert len(calls) == 3
    assert_mixed(module.seen["train"], expected(train_batches()))


# Resuming


class Resumable(DataLoader):
    """A loader that goes on in the middle of an epoch, as torchdata's StatefulDataLoader does."""

    def __init__(self, batches: list[Any]) -> None:
        super().__init__(batches, batch_size=None)
        self.given = self.start = 0

    def __iter__(self) -> Any:
        first, self.start = self.start, 0
        for place in range(first, len(self.dataset)):
            self.given = place + 1
            yield self.dataset[place]

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start = state["given"] % len(self.dataset)


def every_step(name: str, folder: Path) -> Any:
    """A checkpoint after each step."""
    model_checkpoint = framework(name).callbacks.ModelCheckpoint
    return model_checkpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_resumed_run_goes_on_with_the_very_same_draws(name: str, tmp_path: Path) -> None:
    """From checkpoints in the middle of an epoch, between two epochs, and in the middle of the second."""
    whole = make_module(name)
    trainer = make_trainer(
        name, every_step(name, tmp_path), callback(name)(mixer()), enable_checkpointing=True
    )
    trainer.fit(whole, Resumable(train_batches()))
    assert len(whole.losses.train) == 6
    for step in (1, 2, 3, 4, 5):
        path = tmp_path / f"step={step}.ckpt"
        kept = torch.load(path, weights_only=False)["callbacks"]["MixUpCallback"]
        assert kept == {"seed": 5, "step": step}
        resumed, made = make_module(name), callback(name)(alpha=0.4, seed=99)  # the checkpoint knows better
        make_trainer(name, made).fit(resumed, Resumable(train_batches()), ckpt_path=path, weights_only=False)
        assert resumed.losses.train == pytest.approx(whole.losses.train[step:], rel=1e-6, abs=1e-6)
        assert made.mixer.state_dict() == {"seed": 5, "step": 6}


def test_the_two_packages_resume_one_anothers_draws(tmp_path: Path) -> None:
    trainer = make_trainer(
        "lightning", every_step("lightning", tmp_path), MixUpCallback(mixer()), enable_checkpointing=True
    )
    whole, resumed = make_module("lightning"), make_module("pytorch_lightning")
    trainer.fit(whole, Resumable(train_batches()))
    trainer = make_trainer("pytorch_lightning", OtherMixUpCallback(alpha=0.4))
    checkpoint = tmp_path / "step=2.ckpt"
    trainer.fit(resumed, Resumable(train_batches()), ckpt_path=checkpoint, weights_only=False)
    assert resumed.losses.train == pytest.approx(whole.losses.train[2:], rel=1e-6, abs=1e-6)


class SavesWhenBroken(pl.Callback):
    """What Lightning's OnExceptionCheckpoint does, at any place among the callbacks."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_exception(self, trainer: Any, *args: Any) -> None:
        trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("first", [True, False], ids=["mixing first", "saving first"])
def test_a_step_that_was_interrupted_is_drawn_again(first: bool, tmp_path: Path) -> None:
    """Lightning makes an interrupted step anew. All batches are the same here, since a loader moves on."""
    batches, path = train_batches()[:1] * 4, tmp_path / "broken.ckpt"
    whole, broken, resumed = Watcher(), Tripping(), Watcher()
    fit(whole, batches, MixUpCallback(mixer()))
    broken.error = RuntimeError("the module's own")
    made = MixUpCallback(mixer())
    both = [made, SavesWhenBroken(path)]
    with pytest.raises(RuntimeError, match="the module's own"):
        fit(broken, batches, *(both if first else reversed(both)))
    assert made.mixer.step == 2
    trainer = make_trainer("lightning", MixUpCallback(alpha=0.4), max_epochs=1)
    trainer.fit(resumed, loader(batches), ckpt_path=path, weights_only=False)
    assert broken.losses + resumed.losses == pytest.approx(whole.losses, rel=1e-6)


def test_a_callback_that_saves_at_the_end_of_a_batch_finds_it_done(tmp_path: Path) -> None:
    states = []

    class Saves(pl.Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            states.append(
                next(made for made in trainer.callbacks if isinstance(made, MixUpCallback)).state_dict()
            )

    fit(Watcher(), train_batches(), Saves(), MixUpCallback(mixer()))
    assert [state["step"] for state in states] == [1, 2, 3]
