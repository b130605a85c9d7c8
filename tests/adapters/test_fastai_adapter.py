"""The fastai adapter in real Learners: what a user writes, interruptions, other callbacks."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fastai.callback.all import GradientAccumulation, MixUp, ShortEpochCallback
from fastai.callback.core import Callback, CancelBatchException, CancelFitException
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai_learners import (
    Interrupt,
    MixesInside,
    X,
    Y,
    batches,
    image_learner,
    learner,
    one_line,
    plain_losses,
    weights,
)
from plain_loop import make_model
from torch import Tensor, nn
from torch.nn import functional as F

import batchmix as bm
from batchmix.adapters.fastai import MixedAccuracy, MixUpCallback, MixUpLoss
from batchmix.errors import shorten

pytestmark = [
    pytest.mark.filterwarnings("ignore:numpy.core is deprecated"),  # by Learner.load
    pytest.mark.filterwarnings("ignore:CUDA is not available or torch_xla"),  # by MixedPrecision
    pytest.mark.filterwarnings("ignore:torch.cuda.amp.GradScaler is enabled, but CUDA is not"),  # the same
]


# What a user writes


def test_the_names_of_the_article_are_there() -> None:
    assert issubclass(MixUpLoss, bm.MixUpLoss)
    learn = learner()
    assert learn.mixup() is learn
    callback = learn.mix_up
    assert isinstance(callback, MixUpCallback)
    assert (callback.mixer.alpha, callback.mixer.per, callback.mixer.fold) == (0.4, "sample", True)
    assert (callback.stack_x, callback.stack_y) == (False, True)


def test_options_go_to_the_mixer_and_a_ready_one_is_taken() -> None:
    cutmix = bm.CutMix(1.0)
    assert learner().mixup(mixer=cutmix).mix_up.mixer is cutmix
    assert learner().mixup(cutmix).mix_up.mixer is MixUpCallback(cutmix).mixer is cutmix
    mixer = learner().mixup(0.2, per="batch", fold=False, p=0.5, partner="roll", seed=3).mix_up.mixer
    assert (mixer.alpha, mixer.per, mixer.fold, mixer.p, mixer.partner, mixer.seed) == (
        0.2,
        "batch",
        False,
        0.5,
        "roll",
        3,
    )


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"alpha": -1}, "alpha takes a finite number >= 0, got -1"),
        ({"alpha": bm.Mixup(seed=0)}, f"alpha takes a number >= 0, got Mixup {shorten(bm.Mixup(seed=0))}"),
        ({"mixer": 0.4, "alpha": 0.4}, "alpha takes one number, got 0.4 and alpha=0.4"),
        ({"stack_x": 1}, "stack_x takes True or False, got 1"),
        ({"stack_y": None}, "stack_y takes True or False, got None"),
        ({"mixer": "0.4"}, "mixer takes a method such as bm.Mixup(0.4), got str '0.4'"),
        (
            {"mixer": bm.Mixup(seed=0), "alpha": 0.4},
            "mixer takes all options itself, or None where alpha is given, got " + shorten(bm.Mixup(seed=0)),
        ),
        (
            {"mixer": bm.Mixup(seed=0), "per": "batch"},
            "mixer takes all options itself, or None where per is given, got " + shorten(bm.Mixup(seed=0)),
        ),
    ],
)
def test_wrong_arguments_are_named_and_the_learner_stays_as_it_was(options: Any, wanted: str) -> None:
    learn = learner().mixup()
    before = list(learn.cbs)
    with pytest.raises(bm.MixError) as raised:
        learn.mixup(**options)
    assert one_line(raised) == wanted
    assert list(learn.cbs) == before


def test_called_twice_the_later_one_counts_and_mixes_once() -> None:
    first, second = bm.Mixup(0.4, seed=1), bm.Mixup(0.4, seed=5)
    learn = learner().mixup(mixer=first).mixup(mixer=second)
    learn.fit(1)
    assert (first.step, second.step) == (0, 3)
    assert learn.seen.losses == pytest.approx(plain_losses(bm.Mixup(0.4, seed=5)), rel=1e-6)


def test_the_callback_can_be_given_to_fit_alone() -> None:
    learn = learner()
    learn.fit(1, cbs=MixUpCallback(seed=5))
    assert learn.seen.losses == pytest.approx(plain_losses(bm.Mixup(0.4, seed=5)), rel=1e-6)
    assert not hasattr(learn, "mix_up")


def test_it_is_removed_like_any_callback() -> None:
    learn = learner().mixup(seed=5).remove_cb(MixUpCallback)
    learn.fit(1)
    assert learn.seen.losses == pytest.approx(plain_losses(bm.Mixup(0)), rel=1e-6)


def test_schedules_follow_the_mixers_step_over_fits() -> None:
    learn = learner().mixup(seed=5, schedule=bm.off_after(4))
    learn.fit(1)
    learn.fit(1)
    wanted = plain_losses(bm.Mixup(0.4, seed=5, schedule=bm.off_after(4)), epochs=2)
    assert learn.seen.losses == pytest.approx(wanted, rel=1e-6)


def test_the_mixers_state_resumes_beside_the_weights(tmp_path: Path) -> None:
    whole = learner(path=tmp_path).mixup(seed=5)
    whole.fit(2)
    first = learner(path=tmp_path).mixup(seed=5)
    first.fit(1)
    file, state = first.save("half"), first.mix_up.mixer.state_dict()
    second = learner(path=tmp_path).mixup()
    second.load(file.stem)
    second.mix_up.mixer.load_state_dict(state)
    second.fit(1)
    assert second.seen.losses == pytest.approx(whole.seen.losses[3:], rel=1e-6)


# Conflicts


@pytest.mark.parametrize("in_fit", [False, True])
def test_fastais_own_mixup_beside_it_is_refused_before_the_loss_is_swapped(in_fit: bool) -> None:
    loss = CrossEntropyLossFlat()
    learn = learner(loss_func=loss)
    before = weights(learn)
    if in_fit:
        learn.mixup()
    else:
        learn.add_cb(MixUp())
    with pytest.raises(bm.MixError) as raised:
        learn.fit(1, cbs=MixUp()) if in_fit else learn.mixup()
    assert one_line(raised) == "cbs takes one callback that mixes, got fastai's MixUp beside MixUpCallback"
    assert learn.loss_func is loss
    assert torch.equal(weights(learn), before)


def test_two_callbacks_that_mix_are_refused() -> None:
    learn = learner(cbs=[MixUpCallback(), MixUpCallback()])
    with pytest.raises(bm.MixError) as raised:
        learn.fit(1)
    wanted = "cbs takes one callback that mixes, got a second MixUpCallback beside MixUpCallback"
    assert one_line(raised) == wanted


# Interruptions, and what comes after training


@pytest.mark.parametrize("event", ["before_batch", "after_pred", "after_loss", "before_step", "after_batch"])
@pytest.mark.parametrize("error", [KeyboardInterrupt("stop"), RuntimeError("broken"), CancelFitException()])
def test_the_loss_is_the_same_object_whatever_interrupts_training(
    event: str, error: BaseException, tmp_path: Path
) -> None:
    loss = CrossEntropyLossFlat()
    learn = learner(loss_func=loss, path=tmp_path).mixup(seed=5)
    with contextlib.suppress(KeyboardInterrupt, RuntimeError):
        learn.fit(1, cbs=Interrupt(event, error))
    assert learn.loss_func is loss
    assert loss.reduction == "mean"
    assert learn.mix_up.mixer.step == 2 - (event == "before_batch")
    preds, targets = learn.get_preds()
    assert torch.equal(targets, Y)
    torch.testing.assert_close(preds, learn.model.eval()(X).softmax(1).detach(), rtol=1e-5, atol=1e-6)
    learn.mix_up.mixer.step = 0
    learn.seen.losses.clear()
    learn.model.load_state_dict(make_model().state_dict())
    learn.model.zero_grad()
    learn.fit(1)  # as if nothing had been
    assert learn.seen.losses == pytest.approx(plain_losses(bm.Mixup(0.4, seed=5)), rel=1e-6)


def test_an_error_in_the_model_leaves_nothing_behind() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.fails = make_model(), True

        def forward(self, x: Tensor) -> Tensor:
            if self.fails:
                raise KeyboardInterrupt
            return self.net(x)

    loss = CrossEntropyLossFlat()
    learn = learner(model=Fails(), loss_func=loss).mixup()
    with pytest.raises(KeyboardInterrupt):
        learn.fit(1)
    assert learn.loss_func is loss
    learn.model.fails = False
    learn.fit(1)
    assert learn.mix_up.order == 9.5


def test_fastai_3486_lr_find_then_fit_interrupted_then_lr_find_again(tmp_path: Path) -> None:
    loss = CrossEntropyLossFlat()
    learn = learner(loss_func=loss, path=tmp_path).mixup(seed=5)
    before = weights(learn)
    learn.lr_find(num_it=20, show_plot=False)
    assert torch.equal(weights(learn), before)
    assert learn.loss_func is loss
    with pytest.raises(KeyboardInterrupt):
        learn.fit_one_cycle(2, 0.1, cbs=Interrupt("after_pred", KeyboardInterrupt()))
    assert learn.loss_func is loss
    learn.lr_find(num_it=20, show_plot=False)
    learn.fit_one_cycle(2, 0.1)
    assert learn.loss_func is loss
    assert set(map(id, learn.seen.loss_objects)) == {id(loss)}


class Trip(Callback):
    """Stops the second batch, as Ctrl-C would."""

    def before_batch(self) -> None:
        if self.train_iter == 1:
            self.learn.lr_finder.tmp_d.cleanup()  # fastai leaves it to the garbage collector
            raise KeyboardInterrupt


@pytest.mark.parametrize("stack_x", [False, True])
@pytest.mark.parametrize("interrupted", [False, True])
def test_the_search_for_a_learning_rate_mixes_and_leaves_the_draws(
    stack_x: bool, interrupted: bool, tmp_path: Path
) -> None:
    learn = learner(model=MixesInside() if stack_x else None, path=tmp_path).mixup(stack_x=stack_x, seed=5)
    learn.fit(1, 0.0)
    assert learn.mix_up.mixer.step == 3
    learn.seen.losses.clear()
    with contextlib.ExitStack() as stack:
        if interrupted:
            stack.enter_context(pytest.raises(KeyboardInterrupt))
            stack.enter_context(learn.added_cbs(Trip()))
        learn.lr_find(start_lr=1e-30, end_lr=1e-30, num_it=6, show_plot=False, suggest_funcs=None)
    assert learn.mix_up.mixer.step == 3
    searched = list(learn.seen.losses)
    assert len(set(searched)) == len(searched) > 0
    learn.seen.losses.clear()
    learn.fit(2, 0.0)
    assert searched == learn.seen.losses[: len(searched)]


def test_a_part_of_an_epoch_can_be_trained() -> None:
    learn = learner().mixup(seed=5)
    learn.fit(1, cbs=ShortEpochCallback(0.3))
    assert learn.seen.losses == pytest.approx(plain_losses(bm.Mixup(0.4, seed=5))[:2], rel=1e-6)


def test_evaluation_is_that_of_plain_batches() -> None:
    learn = learner(metrics=accuracy).mixup(seed=5)
    learn.fit(1)
    recorded = list(learn.recorder.values[0])[1:]  # the training loss comes first
    step, model = learn.mix_up.mixer.step, learn.model.eval()
    with torch.no_grad():
        wanted = F.cross_entropy(model(X), Y).item()
        right = (model(X).argmax(1) == Y).float().mean().item()
    assert recorded == pytest.approx([wanted, right], rel=1e-6)
    assert list(learn.validate()) == pytest.approx([wanted, right], rel=1e-6)
    assert list(learn.validate(ds_idx=0)) == pytest.approx([wanted, right], rel=1e-6)
    losses = learn.get_preds(ds_idx=0, with_loss=True)[2]
    assert losses.mean().item() == pytest.approx(wanted, rel=1e-6)
    assert learn.mix_up.mixer.step == step


# Beside other callbacks


class Halve(Callback):
    """A regulariser of order 0, as fastai's own are: it adds to the loss."""

    run_valid = False

    def after_loss(self) -> None:
        self.learn.loss_grad = self.learn.loss_grad + 0.5 * self.pred.square().mean()


def test_callbacks_that_add_to_the_loss_add_to_that_of_the_mix() -> None:
    learn = learner(cbs=Halve()).mixup(seed=5)
    learn.fit(1)
    model, wanted = make_model(), []
    optimizer, mixer = torch.optim.SGD(model.parameters(), lr=0.1), bm.Mixup(0.4, seed=5)
    for x, y in batches(X, Y):
        x, target = mixer(x, y)
        out = model(x)
        loss = F.cross_entropy(out, target)
        optimizer.zero_grad()
        (loss + 0.5 * out.square().mean()).backward()
        optimizer.step()
        wanted.append(loss.item())
    assert learn.seen.losses == pytest.approx(wanted, rel=1e-6)
    torch.testing.assert_close(weights(learn), nn.utils.parameters_to_vector(model.parameters()).detach())


class Relabels(Callback):
    """Turns the targets round."""

    run_valid = False

    def before_batch(self) -> None:
        self.learn.yb = tuple(y.flip(0) for y in self.yb)


def test_targets_that_change_before_the_mixing_are_mixed_and_later_ones_refused() -> None:
    learn = learner(cbs=Relabels()).mixup(seed=5)
    learn.fit(1)
    turned = [(x, y.flip(0)) for x, y in batches(X, Y)]
    other = learner(turned).mixup(seed=5)
    other.fit(1)
    assert learn.seen.losses == pytest.approx(other.seen.losses, rel=1e-6)

    late = Relabels()
    late.order = 20
    with pytest.raises(bm.MixError) as raised:
        learner(cbs=late).mixup(seed=5).fit(1)
    assert one_line(raised).startswith(
        "yb takes new targets before they are mixed, in before_batch with an order below 9.5, got them after "
    )


def test_a_callback_that_hands_on_the_same_targets_is_not_refused() -> None:
    class HandsOn(Callback):
        order = 20

        def before_batch(self) -> None:
            self.learn.yb = tuple(self.yb)

    learn = learner(cbs=HandsOn()).mixup(seed=5)
    learn.fit(1)
    assert learn.seen.losses == pytest.approx(plain_losses(bm.Mixup(0.4, seed=5)), rel=1e-6)


def test_a_batch_that_is_left_before_its_loss_leaves_the_next_one_as_it_should_be() -> None:
    class Leaves(Callback):
        order = 20  # after the mixing

        def before_batch(self) -> None:
            if self.training and self.train_iter == 1:
                raise CancelBatchException

    class Order(Callback):
        order = -20

        def __init__(self) -> None:
            self.found: list[float] = []

        def before_batch(self) -> None:
            self.found.append(self.learn.mix_up.order)

    learn = learner(cbs=[Leaves(), order := Order()]).mixup(seed=5)
    learn.fit(1)
    assert set(order.found) == {9.5}
    assert learn.mix_up.mixer.step == 3


def test_gradient_accumulation_mixes_every_micro_batch() -> None:
    learn = learner(batches(X, Y) * 2).mixup(seed=5)
    learn.fit(1, cbs=GradientAccumulation(n_acc=24))
    model, wanted = make_model(), []
    optimizer, mixer = torch.optim.SGD(model.parameters(), lr=0.1), bm.Mixup(0.4, seed=5)
    for i, (x, y) in enumerate(batches(X, Y) * 2, 1):
        x, target = mixer(x, y)
        loss = F.cross_entropy(model(x), target)
        (loss / 3).backward()
        wanted.append(loss.item())
        if i % 3 == 0:
            optimizer.step()
            optimizer.zero_grad()
    assert learn.mix_up.mixer.step == 6
    assert learn.seen.losses == pytest.approx(wanted, rel=1e-5)
    torch.testing.assert_close(weights(learn), nn.utils.parameters_to_vector(model.parameters()).detach())


@pytest.mark.parametrize("to", ["to_fp16", "to_bf16"])
def test_mixed_precision_mixes_in_full_precision_before_it_begins(to: str) -> None:
    learn = getattr(learner().mixup(seed=5), to)()
    learn.fit(1)
    assert learn.seen.losses == pytest.approx(plain_losses(bm.Mixup(0.4, seed=5)), rel=2e-2)
    mixed, _ = bm.Mixup(0.4, seed=5)(X[:8], Y[:8])
    assert torch.equal(learn.seen.seen_x[0][0].cpu(), mixed)
    assert learn.mix_up.order == 9.5 < learn.mixed_precision.order


def test_without_fastais_default_callbacks_its_own_tensors_are_mixed(tmp_path: Path) -> None:
    """CastToTensor is one of those; without it images and categories arrive as subclasses of Tensor."""
    usual, bare = image_learner(tmp_path), image_learner(tmp_path)
    bare.remove_cb(bare.cast_to_tensor)
    for learn in (usual, bare):
        learn.dls.train.shuffle = False
        learn.mixup(seed=5).fit(1)
    torch.testing.assert_close(weights(bare), weights(usual))


def test_ignored_labels_are_no_part_of_the_accuracy_whatever_the_batches() -> None:
    labels = Y.clone()
    labels[:9] = -100  # all of the first batch, and one of the second
    learn = learner(batches(X, labels, size=8), metrics=MixedAccuracy())
    guess = learn.model.eval()(X).argmax(1)
    (_, accuracy) = learn.validate()
    assert accuracy == pytest.approx((guess == Y)[9:].float().mean().item())


def test_labels_among_the_largest_logits_count_where_it_says_so() -> None:
    learn = learner(batches(X, Y, size=8), metrics=MixedAccuracy(top_k=2))
    guesses = learn.model.eval()(X).topk(2, 1).indices
    (_, accuracy) = learn.validate()
    assert accuracy == pytest.approx((guesses == Y[:, None]).any(1).float().mean().item())


def test_the_accuracy_is_that_of_all_processes() -> None:
    """fastai gathers a number as its mean over the processes: here, with one that was right in 5 of 6."""
    metric, others = MixedAccuracy(), iter((5.0, 6.0))
    logits, labels = F.one_hot(Y[:8], 4).float(), Y[:8].clone()
    labels[:6] = (labels[:6] + 1) % 4
    metric.accumulate(
        SimpleNamespace(
            training=False, pred=logits, yb=(labels,), to_detach=lambda part: (part + next(others)) / 2
        )
    )
    assert metric.value == pytest.approx((2 + 5) / (8 + 6))


def test_training_metrics_see_the_larger_label_and_ours_counts_both() -> None:
    learn = learner(batches(X, Y, size=24), metrics=[accuracy, MixedAccuracy()])
    learn.mixup(fold=False, seed=5)
    learn.recorder.train_metrics = True
    learn.fit(1)
    x, target = bm.Mixup(0.4, fold=False, seed=5)(X, Y)
    out, after = make_model()(x), learn.model.eval()(X)
    wanted = [
        (out.argmax(1) == target.dominant).float().mean().item(),
        target.expected_accuracy(out).item(),
        (after.argmax(1) == Y).float().mean().item(),
    ]
    names = list(learn.recorder.metric_names)
    assert "train_mixed_accuracy" in names
    row = dict(zip(names[1:], learn.recorder.values[0], strict=False))
    assert row["train_accuracy"] == pytest.approx(wanted[0])
    assert row["train_mixed_accuracy"] == pytest.approx(wanted[1])
    assert row["valid_accuracy"] == pytest.approx(wanted[2])
    assert row["valid_mixed_accuracy"] == pytest.approx(wanted[2])
    assert wanted[0] != pytest.approx(wanted[1])
