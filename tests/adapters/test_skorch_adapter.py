"""The skorch adapter in real nets: every criterion, scikit-learn's tools, and draws that are kept."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from plain_loop import make_model, make_samples
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, Checkpoint, EpochScoring
from skorch.hf import AccelerateMixin
from torch import nn
from torch.nn import functional as F

import batchmix as bm
from batchmix.adapters.skorch import MixUpBinaryClassifier, MixUpClassifier, MixUpNet, MixUpRegressor

X, Y = (part.numpy() for part in make_samples(24, seed=3))


class Net(nn.Module):
    """plain_loop's net, with probabilities where the criterion wants them."""

    def __init__(self, softmax: bool = False, outputs: int = 4) -> None:
        super().__init__()
        self.net = make_model()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net[-1] = nn.Linear(32, outputs)
        self.softmax = softmax

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.net(x)
        return out.softmax(1) if self.softmax else out


def make(cls: type[Any] = MixUpClassifier, **options: Any) -> Any:
    options = {
        "criterion": nn.CrossEntropyLoss,
        "train_split": None,
        "batch_size": 8,
        "max_epochs": 2,
        "lr": 0.1,
        "verbose": 0,
        **options,
    }
    return cls(Net, **options)


def train_losses(net: Any) -> list[float]:
    return [loss for epoch in net.history[:, "batches", :, "train_loss"] for loss in epoch]


def weights(net: Any) -> torch.Tensor:
    return nn.utils.parameters_to_vector(net.module_.parameters()).detach()


# The loss


def first_loss(net: Any, x: Any = X, y: Any = Y) -> float:
    net.set_params(max_epochs=1, batch_size=-1)
    return train_losses(net.fit(x, y))[0]


def expected(loss_fn: Any, x: Any = X, y: Any = Y, **options: Any) -> float:
    """The loss of the whole batch, mixed and computed by hand."""
    net = Net(**options)
    x, y = bm.Mixup(0.4, seed=1)(torch.as_tensor(x), torch.as_tensor(y))
    return loss_fn(net(x), y).item()


def test_the_classifiers_own_criterion_gets_logarithms() -> None:
    net = make(criterion=nn.NLLLoss, module__softmax=True, mixer__seed=1)
    eps = torch.finfo(torch.float32).eps
    wanted = expected(lambda out, y: F.nll_loss((out + eps).log(), y), softmax=True)
    assert first_loss(net) == pytest.approx(wanted, rel=1e-6)
    assert type(net.criterion_) is nn.NLLLoss


def test_parameters_of_the_criterion_hold() -> None:
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    net = make(
        criterion__weight=weight,
        criterion__label_smoothing=0.1,
        criterion__reduction="sum",
        mixer__seed=1,
    )
    wanted = expected(lambda out, y: F.cross_entropy(out, y, weight, label_smoothing=0.1, reduction="sum"))
    assert first_loss(net) == pytest.approx(wanted, rel=1e-6)


class Accelerated(AccelerateMixin, NeuralNetClassifier):
    """As skorch documents it."""


@pytest.mark.parametrize("bases", [(AccelerateMixin, MixUpClassifier), (MixUpNet, Accelerated)])
def test_it_trains_with_accelerate_before_it_and_behind_it(bases: Any) -> None:
    options: dict[str, Any] = {"mixer__seed": 1, "max_epochs": 2}
    plain = make(**options).fit(X, Y)
    net = make(type("Net", bases, {}), accelerator=Accelerator(cpu=True), **options).fit(X, Y)
    assert train_losses(net) == pytest.approx(train_losses(plain), rel=1e-6)
    assert net.mixer_.step == plain.mixer_.step == 6


class Focal(nn.Module):
    """A criterion of no framework's, not linear in its target."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        loss = F.cross_entropy(output, target, reduction="none")
        loss = (1 - (-loss).exp()) ** 2 * loss
        return loss.mean() if self.reduction == "mean" else loss


def test_a_criterion_of_your_own_is_called_for_both_labels() -> None:
    def by_hand(out: torch.Tensor, y: bm.MixedTarget) -> torch.Tensor:
        rows = Focal("none")
        return (y.lam * rows(out, y.a) + (1 - y.lam) * rows(out, y.b)).mean()

    assert first_loss(make(criterion=Focal, mixer__seed=1)) == pytest.approx(expected(by_hand), rel=1e-6)


def test_a_loss_of_your_own_sees_the_mixed_target() -> None:
    seen = []

    class Penalised(NeuralNetClassifier):
        def get_loss(self, y_pred: Any, y_true: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            seen.append((type(y_true), kwargs["training"]))
            return super().get_loss(y_pred, y_true, *args, **kwargs) + 1

    class Mixed(MixUpNet, Penalised):
        pass

    net = make(Mixed, mixer__seed=1)
    assert first_loss(net) == pytest.approx(expected(F.cross_entropy) + 1, rel=1e-6)
    [(kind, training)] = seen
    assert issubclass(kind, bm.MixedTarget)
    assert training


def test_values_and_two_classes_mix_too() -> None:
    y = (Y[:, None] / 4).astype(np.float32)
    net = make(MixUpRegressor, criterion=nn.MSELoss, module__outputs=1, mixer__seed=1)
    assert first_loss(net, y=y) == pytest.approx(expected(F.mse_loss, y=y, outputs=1), rel=1e-6)

    y = (Y > 1).astype(np.float32)
    net = make(MixUpBinaryClassifier, criterion=nn.BCEWithLogitsLoss, module__outputs=1, mixer__seed=1)
    wanted = expected(lambda out, y: F.binary_cross_entropy_with_logits(out[:, 0], y), y=y, outputs=1)
    assert first_loss(net, y=y) == pytest.approx(wanted, rel=1e-6)
    assert set(net.predict(X)) <= {0, 1}


class TwoHeads(nn.Module):
    """The same logits for each of two targets."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.net(x)
        return out, out.flip(1)


class SumOfTwo(nn.Module):
    """A criterion of several targets, in a list or a dict."""

    def forward(self, outputs: tuple[torch.Tensor, ...], targets: Any) -> torch.Tensor:
        targets = targets.values() if isinstance(targets, dict) else targets
        return sum(F.cross_entropy(out, y) for out, y in zip(outputs, targets, strict=True))


@pytest.mark.parametrize("form", [lambda a, b: (a, b), lambda a, b: {"a": a, "b": b}], ids=["tuple", "dict"])
def test_a_criterion_of_several_targets_gets_each_of_them_mixed(form: Any) -> None:
    options = {"criterion": SumOfTwo, "train_split": None, "batch_size": -1, "max_epochs": 1, "verbose": 0}
    net = MixUpNet(TwoHeads, mixer__seed=1, **options)
    x, y = torch.as_tensor(X), torch.as_tensor(Y)
    targets = [form(a, b) for a, b in zip(y, 3 - y, strict=True)]
    net.fit(torch.utils.data.StackDataset(x, targets), None)
    out = Net()(bm.Mixup(0.4, seed=1)(x, y)[0])
    a, b = bm.Mixup(0.4, seed=1)(x, [y, 3 - y])[1]
    wanted = F.cross_entropy(out, a) + F.cross_entropy(out.flip(1), b)
    assert train_losses(net) == pytest.approx([wanted.item()], rel=1e-6)


def test_what_is_in_doubt_is_told_by_kinds() -> None:
    net = make(kinds={"y": "pass"}, mixer__seed=5).fit(X, Y)  # images are mixed, labels are not
    assert train_losses(net) != train_losses(make(mixer__seed=5).fit(X, Y))
    assert clone(net).kinds == {"y": "pass"}


def test_an_optimizer_that_calls_its_closure_again_sees_the_same_mix() -> None:
    net = make(optimizer=torch.optim.LBFGS, optimizer__max_iter=4, max_epochs=1)
    net.fit(X, Y)
    assert net.mixer_.step == 3


# Evaluation


def test_evaluation_sees_plain_batches_and_plain_losses() -> None:
    targets = []

    class Look(Callback):
        def on_batch_begin(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
            targets.append(type(batch[1]))

    split = {"train_split": lambda data, y=None, **kw: (data, data)}
    mixed = make(
        lr=0.0, callbacks=[Look(), EpochScoring("accuracy", name="train_acc", on_train=True)], **split
    )
    plain = make(NeuralNetClassifier, lr=0.0, **split)
    mixed.fit(X, Y)
    plain.fit(X, Y)
    assert set(targets) == {torch.Tensor}
    assert mixed.history[:, "valid_loss"] == pytest.approx(plain.history[:, "valid_loss"], rel=1e-6)
    assert mixed.history[:, "valid_acc"] == plain.history[:, "valid_acc"]
    assert mixed.history[:, "train_loss"] != pytest.approx(plain.history[:, "train_loss"], rel=1e-3)
    step = mixed.mixer_.step
    np.testing.assert_array_equal(mixed.predict_proba(X), plain.predict_proba(X))
    assert mixed.score(X, Y) == plain.score(X, Y)
    assert mixed.mixer_.step == step == 6


# scikit-learn


def test_a_search_finds_the_mixers_parameters() -> None:
    search = GridSearchCV(make(), {"mixer__alpha": [0.0, 0.3]}, cv=2, error_score="raise")
    search.fit(X, Y)
    assert search.best_estimator_.mixer_.alpha in (0.0, 0.3)
    assert len(cross_val_score(make(mixer=bm.Mixup(1.0)), X, Y, cv=2, error_score="raise")) == 2


def test_a_clone_has_the_parameters_and_a_mixer_of_its_own() -> None:
    net = make(mixer__alpha=0.3, mixer__per="batch").initialize()
    twin = clone(net)
    assert twin.get_params()["mixer__alpha"] == 0.3
    assert twin.initialize().mixer_.per == "batch"
    given = bm.Mixup(0.3, seed=4)
    twin = clone(make(mixer=given).fit(X, Y)).fit(X, Y)
    assert (given.step, twin.mixer_.step, twin.mixer_.seed) == (0, 6, 4)


def test_fitting_again_draws_the_same_and_a_warm_start_goes_on() -> None:
    net = make(mixer__seed=1)
    first = train_losses(net.fit(X, Y))
    assert train_losses(net.fit(X, Y)) == first
    net.partial_fit(X, Y)
    assert net.mixer_.step == 12


def test_parameters_of_a_net_in_use_can_be_set() -> None:
    net = make(mixer__alpha=0.4).fit(X, Y)
    net.set_params(mixer__alpha=0.1, lr=0.05)
    assert (net.mixer_.alpha, net.mixer_.step, net.lr) == (0.1, 6, 0.05)
    net.set_params(mixer=bm.Mixup, mixer__alpha=0.2, mixer__fold=False)
    assert (net.mixer_.fold, net.mixer_.step) == (False, 6)
    assert "mixer__fold" in net.get_params()


# What is kept


def test_a_pickled_net_goes_on_as_the_net_itself() -> None:
    net = make(mixer__seed=1).fit(X, Y)
    twin = pickle.loads(pickle.dumps(net))
    for one in (net, twin):
        one.partial_fit(X, Y)
    assert twin.mixer_.state_dict() == net.mixer_.state_dict()
    assert torch.equal(weights(twin), weights(net))


def test_a_resumed_net_draws_what_the_unbroken_one_draws(tmp_path: Path) -> None:
    files = {f"f_{part}": str(tmp_path / f"{part}.pt") for part in ("params", "optimizer", "mixer")}
    unbroken = make(mixer__seed=1, max_epochs=4).fit(X, Y)
    half = make(mixer__seed=1, max_epochs=2).fit(X, Y)
    half.save_params(**files)
    resumed = make(mixer__seed=7, max_epochs=2).initialize()
    resumed.load_params(**files)
    resumed.partial_fit(X, Y)
    assert resumed.mixer_.state_dict() == {"seed": 1, "step": 12}
    assert torch.equal(weights(resumed), weights(unbroken))
    assert train_losses(resumed) == train_losses(unbroken)[6:]


def test_the_checkpoint_callback_keeps_the_draws(tmp_path: Path) -> None:
    checkpoint = Checkpoint(monitor=None, dirname=str(tmp_path), f_mixer="mixer.pt", f_pickle="net.pkl")
    make(mixer__seed=1, callbacks=[checkpoint]).fit(X, Y)
    new = make().initialize()
    new.load_params(checkpoint=checkpoint)
    assert new.mixer_.state_dict() == {"seed": 1, "step": 6}
    assert pickle.loads((tmp_path / "net.pkl").read_bytes()).mixer_.step == 6


def test_a_number_is_the_alpha_of_mixup() -> None:
    net = make(mixer=0.2, mixer__per="batch").initialize()
    assert (net.mixer_.alpha, net.mixer_.per) == (0.2, "batch")
    assert clone(net).set_params(mixer=0.3).initialize().mixer_.alpha == 0.3


# Wrong use


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixer": "0.4"}, "mixer takes a Mixer, or a class of them such as Mixup, got '0.4'"),
        ({"mixer": 0.4, "mixer__alpha": 0.2}, "alpha takes one number, got 0.4 and alpha=0.2"),
        ({"mixer": nn.Identity}, "mixer takes a Mixer, or a class"),
        ({"mixer": bm.Mixup(0.4), "mixer__alpha": 0.2}, "mixer takes a class where there is mixer__alpha"),
        ({"mixer__alpha": -1}, "alpha takes a finite number >= 0, got -1"),
    ],
)
def test_a_wrong_mixer_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(bm.MixError, match=message.replace("(", r"\(")):
        make(**options).fit(X, Y)


def test_a_misspelt_parameter_is_skorchs_error() -> None:
    with pytest.raises(ValueError, match="did you mean mixer__alpha"):
        make(mixer_alpha=0.2).fit(X, Y)


def test_integer_images_are_refused() -> None:
    with pytest.raises(bm.MixError, match=r"x\.float\(\) / 255"):
        make().fit((X * 255).astype(np.uint8), Y)
