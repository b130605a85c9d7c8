"""The fastai adapter in real Learners: interruptions, exports, every loss, and fastai's old bugs."""

from __future__ import annotations

import contextlib
import copy
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from plain_loop import CLASSES, make_model, make_samples
from torch import Tensor, nn
from torch.nn import functional as F

import batchmix as bm
from batchmix.errors import shorten

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
    warnings.filterwarnings("ignore", "The 'mode.chained_assignment' option")
    from fastai.callback.all import (
        GradientAccumulation,
        MixUp,
        ShortEpochCallback,
    )
    from fastai.callback.core import Callback, CancelFitException
    from fastai.data.all import (
        CategoryBlock,
        DataBlock,
        DataLoader,
        DataLoaders,
        IndexSplitter,
        Normalize,
    )
    from fastai.interpret import ClassificationInterpretation, Interpretation
    from fastai.learner import Learner, load_learner
    from fastai.losses import (
        BCEWithLogitsLossFlat,
        CrossEntropyLossFlat,
        DiceLoss,
        FocalLoss,
        FocalLossFlat,
        L1LossFlat,
        LabelSmoothingCrossEntropy,
        LabelSmoothingCrossEntropyFlat,
        MSELossFlat,
    )
    from fastai.metrics import accuracy
    from fastai.optimizer import SGD
    from fastai.vision.all import ImageBlock, PILImage, imagenet_stats

    from batchmix.adapters.fastai import MixedAccuracy, MixUpCallback, MixUpLoss

pytestmark = [
    pytest.mark.filterwarnings("ignore:load_learner` uses Python's insecure pickle"),
    pytest.mark.filterwarnings("ignore:numpy.core is deprecated"),  # by Learner.load
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept"),  # by show_image
    pytest.mark.filterwarnings("ignore:CUDA is not available or torch_xla"),  # by MixedPrecision
    pytest.mark.filterwarnings("ignore:torch.cuda.amp.GradScaler is enabled, but CUDA is not"),  # the same
]

X, Y = make_samples(24, seed=3)
Batches = list[tuple[Any, ...]]


class Seen(Callback):
    """Keeps what the learner holds where everything has been done to the batch."""

    order = 60

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.valid_losses: list[float] = []
        self.seen_x: list[Any] = []
        self.loss_objects: list[Any] = []

    def after_pred(self) -> None:
        if self.training:
            self.seen_x.append(self.learn.xb)

    def after_loss(self) -> None:
        (self.losses if self.training else self.valid_losses).append(self.learn.loss.mean().item())

    def __call__(self, event_name: str) -> Any:
        self.loss_objects.append(self.learn.loss_func)
        return super().__call__(event_name)


def batches(*parts: Tensor, size: int = 8) -> Batches:
    """Batches of ``size`` samples of every part."""
    return list(zip(*(part.split(size) for part in parts), strict=True))


def loaders(data: Batches, n_inp: int = 1) -> DataLoaders:
    samples = [sample for batch in data for sample in zip(*batch, strict=True)]
    dls = DataLoaders(*(DataLoader(samples, bs=len(data[0][0])) for _ in range(2)))
    dls.n_inp = n_inp
    return dls


def learner(
    data: Batches | None = None,
    model: nn.Module | None = None,
    loss_func: Any = None,
    n_inp: int = 1,
    path: Path | str = ".",
    **options: Any,
) -> Learner:
    """A Learner without bars and logs, on plain_loop's model and samples."""
    learn = Learner(
        loaders(batches(X, Y) if data is None else data, n_inp),
        make_model() if model is None else model,
        loss_func=CrossEntropyLossFlat() if loss_func is None else loss_func,
        opt_func=SGD,
        lr=0.1,
        wd=0.0,
        path=path,
        **options,
    )
    learn.add_cb(Seen())
    learn.logger = lambda *_: None
    return _barless(learn)


def _barless(learn: Learner) -> Learner:
    return learn.remove_cb(learn.progress) if hasattr(learn, "progress") else learn


def plain_losses(
    mixer: bm.Mixer, loss_fn: Callable[..., Tensor] = F.cross_entropy, epochs: int = 1, every: int = 1
) -> list[float]:
    """The losses of the same training, written out in torch."""
    model, losses = make_model(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        for i, (x, y) in enumerate(batches(X, Y), 1):
            x, target = mixer(x, y)
            loss = loss_fn(model(x), target)
            (loss / every).backward()
            losses.append(loss.item())
            if i % every == 0:
                optimizer.step()
                optimizer.zero_grad()
    return losses


def weights(learn: Learner) -> Tensor:
    return nn.utils.parameters_to_vector(learn.model.parameters()).detach().clone()


def one_line(raised: pytest.ExceptionInfo[bm.MixError]) -> str:
    """Our line; fastai puts one of its own before those of callbacks."""
    message = str(raised.value)
    if message.startswith("Exception occured in"):
        message = message.partition("\n\t")[2]
    assert "\n" not in message
    return message


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
        (
            {"alpha": bm.Mixup(seed=0)},
            "alpha takes a number >= 0, and a mixer goes by its name, mixer=, got "
            + shorten(bm.Mixup(seed=0)),
        ),
        ({"stack_x": 1}, "stack_x takes True or False, got 1"),
        ({"stack_y": None}, "stack_y takes True or False, got None"),
        ({"mixer": 0.4}, "mixer takes a mixer such as bm.CutMix(1.0), got 0.4"),
        (
            {"mixer": bm.Mixup(), "alpha": 0.2},
            "mixer takes the place of alpha and the options of Mixup, got alpha beside it",
        ),
        (
            {"mixer": bm.Mixup(), "per": "batch"},
            "mixer takes the place of alpha and the options of Mixup, got per beside it",
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


class Interrupt(Callback):
    """Ctrl-C, or an error, at an event of the second batch."""

    def __init__(self, event: str, error: BaseException) -> None:
        setattr(self, event, self.interrupt)
        self.error = error

    def interrupt(self) -> None:
        if self.iter == 1 and self.training:
            raise self.error


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


# With images and categories, as fastai makes them


def image_learner(tmp_path: Path, **options: Any) -> Learner:
    """A learner with fastai's own data block: images of two categories, normalised."""
    images = (X * 255).byte().permute(0, 2, 3, 1).numpy()
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_x=lambda i: PILImage.create(images[i]),
        get_y=lambda i: "cat" if i % 2 else "dog",
        splitter=IndexSplitter(list(range(16, 24))),
        batch_tfms=Normalize.from_stats(*imagenet_stats, cuda=False),
    )
    dls = block.dataloaders(list(range(24)), bs=8, num_workers=0, device="cpu")
    net = make_model()
    last = net[-1]
    net[-1] = nn.Linear(last.in_features, 2)  # of any more, a class without a name could win
    net[-1].load_state_dict({name: part[:2] for name, part in last.state_dict().items()})
    learn = Learner(dls, net, opt_func=SGD, lr=0.1, path=tmp_path, **options)
    learn.logger = lambda *_: None
    return _barless(learn)


def test_fastai_3180_and_1136_predict_interpret_and_pickle(tmp_path: Path) -> None:
    learn = image_learner(tmp_path, metrics=accuracy).mixup(seed=5)
    learn.fit(1)
    item = PILImage.create((X[0] * 255).byte().permute(1, 2, 0).numpy())
    name, index, probabilities = learn.predict(item)
    assert name == ["cat", "dog"][int(index)]
    assert float(probabilities.sum()) == pytest.approx(1)
    interpretation = Interpretation.from_learner(learn)
    losses, _ = interpretation.top_losses(3)
    assert len(losses) == 3
    assert ClassificationInterpretation.from_learner(learn).confusion_matrix().sum() == 8
    again = pickle.loads(pickle.dumps(learn.mix_up.mixer))
    assert again.state_dict() == learn.mix_up.mixer.state_dict()


def functional(output: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    return F.cross_entropy(output, target, reduction=reduction)


@pytest.mark.parametrize("loss", [CrossEntropyLossFlat(), nn.CrossEntropyLoss(), functional])
def test_a_wrapped_loss_predicts_and_interprets_as_the_loss_itself(loss: Any, tmp_path: Path) -> None:
    """fastai reads activation, decoding and reduction of a loss, which a wrapper must not hide."""
    item = PILImage.create((X[0] * 255).byte().permute(1, 2, 0).numpy())
    wrapped = image_learner(tmp_path, loss_func=MixUpLoss(loss)).mixup(seed=5)
    wrapped.fit(1)
    wanted = image_learner(tmp_path, loss_func=loss)
    wanted.model.load_state_dict(wrapped.model.state_dict())
    for got, plain in zip(wrapped.predict(item), wanted.predict(item), strict=True):
        assert str(got) == str(plain)
    losses = (Interpretation.from_learner(learn).top_losses(8)[0] for learn in (wrapped, wanted))
    torch.testing.assert_close(*losses)
    assert getattr(loss, "reduction", "mean") == "mean"
    wrapped.export("wrapped.pkl")
    assert str(load_learner(tmp_path / "wrapped.pkl").predict(item)) == str(wanted.predict(item))


def test_a_wrapped_loss_takes_the_weights_of_fastais_losses_to_a_device() -> None:
    loss = MixUpLoss(CrossEntropyLossFlat(weight=torch.ones(4))).to("meta")
    assert loss.loss_fn.func.weight.device.type == "meta"


@pytest.mark.parametrize("keep", [True, False])
def test_an_exported_learner_predicts_unmixed(keep: bool, tmp_path: Path) -> None:
    learn = image_learner(tmp_path).mixup(seed=5, schedule=lambda step: 1.0)
    learn.fit(1)
    item = PILImage.create((X[0] * 255).byte().permute(1, 2, 0).numpy())
    wanted = learn.predict(item)[2]
    if not keep:
        learn.remove_cb(MixUpCallback)
    learn.export("model.pkl")
    loaded = load_learner(tmp_path / "model.pkl")
    assert any(isinstance(cb, MixUpCallback) for cb in loaded.cbs) is keep
    assert (b"batchmix.adapters" in (tmp_path / "model.pkl").read_bytes()) is keep
    torch.testing.assert_close(loaded.predict(item)[2], wanted)
    learn.fit(1)  # and training goes on


def test_a_learner_stopped_between_mixing_and_loss_is_exported(tmp_path: Path) -> None:
    learn = image_learner(tmp_path).mixup(seed=5)
    with pytest.raises(KeyboardInterrupt):
        learn.fit(1, cbs=Interrupt("after_pred", KeyboardInterrupt()))
    assert learn.mix_up.order == -9
    learn.export("stopped.pkl")
    loaded = load_learner(tmp_path / "stopped.pkl")
    assert loaded.mix_up.order == 9.5
    assert loaded.mix_up._targets == ()
    assert loaded.mix_up.mixer.state_dict() == {"seed": 5, "step": 2}
    learn.fit(1)
    assert learn.mix_up.order == 9.5


def test_fastais_views_of_a_learner_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learn = image_learner(tmp_path).mixup()
    learn.show_training_loop()
    assert "MixUpCallback" in capsys.readouterr().out
    assert "Trainable" in str(learn.summary())
    learn.fit(1)
    step = learn.mix_up.mixer.step
    learn.show_results(max_n=2)
    learn.dls.show_batch(max_n=2)
    plt.close("all")
    assert learn.mix_up.mixer.step == step


def texts(figure: Any) -> list[str]:
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def test_a_mixed_batch_is_drawn_as_the_next_step_mixes_it(tmp_path: Path) -> None:
    learn = image_learner(tmp_path).mixup(seed=5)
    learn.dls.train.shuffle = False
    learn.mix_up.show_batch(max_n=4)
    figure = plt.gcf()
    x, y = learn.dls.train.one_batch()
    mixed, target = bm.Mixup(0.4, seed=5)(x.as_subclass(Tensor), y.as_subclass(Tensor))
    names = ["cat", "dog"]
    wanted = [f"{w:.2f} {names[a]} + {1 - w:.2f} {names[b]}" for a, b, w in zip(*target, strict=True)]
    assert texts(figure) == wanted[:4]
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in imagenet_stats)
    drawn = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(
        np.asarray(drawn) / 255, (mixed[0] * std + mean).permute(1, 2, 0), atol=1 / 255
    )
    assert learn.mix_up.mixer.step == 0
    plt.close("all")


def test_batches_of_plain_tensors_are_drawn_too() -> None:
    learn = learner().mixup(seed=5)
    learn.mix_up.show_batch(max_n=5, figsize=(4, 2))
    _, target = bm.Mixup(0.4, seed=5)(X[:8], Y[:8])
    w, a, b = float(target.lam[0]), int(target.a[0]), int(target.b[0])
    assert len(texts(plt.gcf())) == 5
    assert not any(axis.axison for axis in plt.gcf().axes)
    assert texts(plt.gcf())[0] == f"{w:.2f} {a} + {1 - w:.2f} {b}"
    plt.close("all")
    with pytest.raises(bm.MixError, match=r"^show_batch takes images \(C, H, W\), got "):
        learner(batches(torch.rand(8, 5), Y[:8])).mixup().mix_up.show_batch()


# Losses


def two(loss: Callable[..., Any]) -> tuple[Any, Any]:
    """The same loss with and without its reduction."""
    plain, rows = loss(), loss()
    rows.reduction = "none"
    return plain, rows


LOSSES = {
    "cross entropy": CrossEntropyLossFlat,
    "torch's cross entropy": nn.CrossEntropyLoss,
    "focal": partial(FocalLossFlat, gamma=2.0),
    "focal, not flat": FocalLoss,
    "label smoothing": LabelSmoothingCrossEntropyFlat,
    "label smoothing, not flat": partial(LabelSmoothingCrossEntropy, eps=0.2),
    "sum": partial(CrossEntropyLossFlat, reduction="sum"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_fastai_3183_every_loss_is_mixed_by_its_values_at_both_labels(name: str) -> None:
    plain, rows = two(LOSSES[name])
    learn = learner(loss_func=plain, data=batches(X, Y, size=24)).mixup(seed=5)
    learn.fit(1)
    x, (a, b, lam) = bm.Mixup(0.4, seed=5)(X, Y)
    out = make_model()(x)
    wanted = lam * rows(out, a) + (1 - lam) * rows(out, b)
    wanted = wanted.sum() if plain.reduction == "sum" else wanted.mean()
    assert learn.seen.losses == pytest.approx([wanted.item()], rel=1e-5)


WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.0])


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropyLossFlat(),
        CrossEntropyLossFlat(weight=WEIGHT, ignore_index=2),
        CrossEntropyLossFlat(weight=WEIGHT, label_smoothing=0.1),
        nn.CrossEntropyLoss(weight=WEIGHT, ignore_index=2, label_smoothing=0.1),
        FocalLossFlat(weight=WEIGHT),
        LabelSmoothingCrossEntropyFlat(),
        LabelSmoothingCrossEntropy(weight=WEIGHT),
        LabelSmoothingCrossEntropy(reduction="sum"),
        MixUpLoss(CrossEntropyLossFlat(weight=WEIGHT)),
        pytest.param(lambda out, y: F.cross_entropy(out, y, weight=WEIGHT), id="function"),
    ],
    ids=str,
)
def test_where_nothing_is_mixed_the_loss_is_the_plain_one(loss: Any) -> None:
    plain, unmixed = learner(loss_func=copy.deepcopy(loss)), learner(loss_func=loss).mixup(0.0)
    plain.fit(2)
    unmixed.fit(2)
    assert unmixed.seen.losses == pytest.approx(plain.seen.losses, rel=1e-6)
    assert torch.allclose(weights(unmixed), weights(plain), atol=1e-7)


def test_a_weighted_mean_is_divided_by_the_weights_of_both_labels() -> None:
    learn = learner(loss_func=CrossEntropyLossFlat(weight=WEIGHT)).mixup(seed=5)
    learn.fit(1)
    wanted = plain_losses(bm.Mixup(0.4, seed=5), partial(F.cross_entropy, weight=WEIGHT))
    assert learn.seen.losses == pytest.approx(wanted, rel=1e-6)


def test_fastai_2286_a_lam_per_sample_under_every_reduction() -> None:
    learn = learner().mixup(seed=5).remove_cb(Seen)
    x, (a, b, lam) = bm.Mixup(0.4, seed=5)(X[:8], Y[:8])
    out = learn.model(x)
    rows = lam * F.cross_entropy(out, a, reduction="none") + (1 - lam) * F.cross_entropy(
        out, b, reduction="none"
    )
    for reduction, wanted in {"none": rows, "sum": rows.sum(), "mean": rows.mean()}.items():
        for loss in (
            nn.CrossEntropyLoss(reduction=reduction),
            CrossEntropyLossFlat(reduction=reduction),
            LabelSmoothingCrossEntropyFlat(eps=0.0, reduction=reduction),
        ):
            learn.loss_func, learn.mix_up.mixer.step = loss, 0
            learn.training = True
            learn.xb, learn.yb = (X[:8],), (Y[:8],)
            learn("before_batch")
            learn.pred = learn.model(*learn.xb)
            learn.loss_grad = loss(learn.pred, *learn.yb)
            learn("after_loss")
            torch.testing.assert_close(learn.loss_grad.as_subclass(Tensor), wanted)
            torch.testing.assert_close(learn.loss.as_subclass(Tensor), wanted)


def test_plain_cross_entropy_without_y_int_is_mixed() -> None:
    learn = learner(loss_func=nn.CrossEntropyLoss()).mixup(seed=5)
    learn.fit(1)
    assert learn.seen.losses == pytest.approx(plain_losses(bm.Mixup(0.4, seed=5)), rel=1e-6)


def test_batch_size_1_trains() -> None:
    learn, plain = learner(batches(X, Y, size=1)).mixup(), learner(batches(X, Y, size=1))
    learn.fit(1)
    plain.fit(1)
    assert learn.seen.losses == pytest.approx(plain.seen.losses, rel=1e-6)


class Segmenter(nn.Module):
    """A class for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layer = nn.Conv2d(3, CLASSES, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def masks() -> tuple[Tensor, Tensor]:
    """Images whose height and width differ, and a class for each of their pixels."""
    generator = torch.Generator().manual_seed(4)
    x = torch.rand(8, 3, 6, 4, generator=generator)
    return x, torch.randint(CLASSES, (8, 6, 4), generator=generator)


@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropyLossFlat(axis=1),
        CrossEntropyLossFlat(axis=1, weight=WEIGHT, ignore_index=1),
        nn.CrossEntropyLoss(),
        FocalLossFlat(axis=1, gamma=0.0),
    ],
    ids=str,
)
def test_a_lam_per_sample_follows_a_flattened_segmentation_loss(loss: Any) -> None:
    x, y = masks()
    model = Segmenter()
    learn = learner(batches(x, y), model=copy.deepcopy(model), loss_func=loss).mixup(seed=5)
    learn.fit(1)
    mixed, target = bm.Mixup(0.4, seed=5)(x, y)
    inner = getattr(loss, "func", loss)
    options = {"weight": inner.weight, "ignore_index": getattr(inner, "ignore_index", -100)}
    wanted = F.cross_entropy(model(mixed), target, **options)
    assert learn.seen.losses == pytest.approx([wanted.item()], rel=1e-6)


def test_cutmix_pastes_segmentation_masks_with_the_pixels() -> None:
    x, y = masks()
    model = Segmenter()
    learn = learner(batches(x, y), model=copy.deepcopy(model), loss_func=CrossEntropyLossFlat(axis=1))
    learn.mixup(mixer=bm.CutMix(1.0, seed=5))
    learn.fit(1)
    mixed, pasted = bm.CutMix(1.0, seed=5)(x, y)
    assert isinstance(pasted, Tensor)
    assert not torch.equal(pasted, y)
    assert learn.seen.losses == pytest.approx([F.cross_entropy(model(mixed), pasted).item()], rel=1e-6)


def test_dice_is_mixed_by_its_values_at_both_masks() -> None:
    x, y = masks()
    model = Segmenter()
    learn = learner(batches(x, y), model=copy.deepcopy(model), loss_func=DiceLoss(reduction="mean"))
    learn.mixup(seed=5).fit(1)
    mixed, (a, b, lam) = bm.Mixup(0.4, seed=5)(x, y)
    rows, out = DiceLoss(reduction="none"), model(mixed)
    wanted = lam[:, None] * rows(out, a) + (1 - lam[:, None]) * rows(out, b)
    assert learn.seen.losses == pytest.approx([wanted.mean().item()], rel=1e-5)


def test_cutmix_does_not_write_into_the_batch() -> None:
    data = batches(X.clone(), Y.clone())
    learn = learner(data).mixup(mixer=bm.CutMix(1.0, seed=5))
    learn.fit(1)
    for (x, y), (before_x, before_y) in zip(data, batches(X, Y), strict=True):
        assert torch.equal(x, before_x)
        assert torch.equal(y, before_y)
    assert learn.seen.losses == pytest.approx(plain_losses(bm.CutMix(1.0, seed=5)), rel=1e-6)


@pytest.mark.parametrize("pos_weight", [None, torch.tensor([1.0, 2.0, 3.0, 4.0])])
def test_several_labels_a_sample_are_mixed(pos_weight: Tensor | None) -> None:
    hot = F.one_hot(Y, CLASSES).float()
    loss = BCEWithLogitsLossFlat(pos_weight=pos_weight)
    learn = learner(batches(X, hot, size=24), loss_func=loss).mixup(seed=5)
    learn.fit(1)
    x, (a, b, lam) = bm.Mixup(0.4, seed=5)(X, hot)
    soft = lam[:, None] * a + (1 - lam[:, None]) * b
    wanted = F.binary_cross_entropy_with_logits(make_model()(x), soft, pos_weight=pos_weight)
    assert learn.seen.losses == pytest.approx([wanted.item()], rel=1e-5)


def hinge(output: Tensor, y: Tensor) -> Tensor:
    return (1 - output.gather(1, y[:, None]).squeeze(1)).clamp(min=0)


def test_a_loss_of_your_own_is_taken_by_rows_or_as_torchs() -> None:
    reduced = learner(loss_func=lambda out, y: F.cross_entropy(out, y) + out.square().mean()).mixup(seed=5)
    reduced.fit(1)
    wanted = plain_losses(bm.Mixup(0.4, seed=5), lambda out, y: F.cross_entropy(out, y) + out.square().mean())
    assert reduced.seen.losses == pytest.approx(wanted, rel=1e-6)

    def mean_hinge(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        return hinge(out, y) if reduction == "none" else hinge(out, y).mean()

    rows = learner(loss_func=mean_hinge).mixup(seed=5)
    rows.fit(1)
    wanted = plain_losses(bm.Mixup(0.4, seed=5), partial(bm.mixed_loss, mean_hinge))
    assert rows.seen.losses == pytest.approx(wanted, rel=1e-6)


def test_a_loss_of_one_number_is_named_before_anything_is_changed() -> None:
    def mean_hinge(out: Tensor, y: Tensor) -> Tensor:
        return hinge(out, y).mean()

    learn = learner(loss_func=mean_hinge).mixup(seed=5)
    before = weights(learn)
    with pytest.raises(bm.MixError) as raised:
        learn.fit(1)
    assert one_line(raised) == (
        "loss_func=mean_hinge: loss_fn takes output and target to one loss a sample where lam differs "
        "between samples, got one number: give it reduction='none', or mix with per='batch'"
    )
    assert learn.loss_func is mean_hinge
    assert torch.equal(weights(learn), before)
    learn.mixup(per="batch", seed=5).fit(1)
    mixer = bm.Mixup(0.4, per="batch", seed=5)
    assert learn.seen.losses == pytest.approx(
        plain_losses(mixer, partial(bm.mixed_loss, mean_hinge)), rel=1e-6
    )


def test_errors_of_a_loss_that_are_not_ours_stay_as_they_are() -> None:
    class Broken(nn.Module):
        calls = 0

        def forward(self, out: Tensor, y: Tensor) -> Tensor:
            self.calls += 1
            if self.calls > 1:
                raise ValueError("the loss's own")
            return F.cross_entropy(out, y)

    with pytest.raises(ValueError, match=r"the loss's own$"):
        learner(loss_func=Broken()).mixup().fit(1)


# Several inputs, several targets, regression, models that mix inside


class TwoInputs(nn.Module):
    def __init__(self, heads: int = 1) -> None:
        super().__init__()
        self.net = make_model()
        self.heads = heads

    def forward(self, left: Tensor, right: Tensor) -> Any:
        out = self.net(left) + self.net(right)
        return out if self.heads == 1 else (out, out[:, :1])


def test_fastai_2112_several_inputs_are_mixed_by_one_draw() -> None:
    right = X.flip(-1)
    learn = learner(batches(X, right, Y), model=TwoInputs(), n_inp=2).mixup(seed=5)
    learn.fit(1)
    (left, other), y = bm.Mixup(0.4, seed=5)((X[:8], right[:8]), Y[:8])
    assert torch.equal(learn.seen.seen_x[0][0], left)
    assert torch.equal(learn.seen.seen_x[0][1], other)
    assert learn.seen.losses[0] == pytest.approx(
        F.cross_entropy(TwoInputs()(left, other), y).item(), rel=1e-6
    )


def test_an_integer_input_is_named_and_can_be_passed_through() -> None:
    ids = torch.arange(24)

    class Net(TwoInputs):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.net(left) + 0 * right[:, None]

    def make() -> Learner:
        return learner(batches(X, ids, Y), model=Net(), n_inp=2)

    learn = make().mixup(seed=5)
    with pytest.raises(bm.MixError) as raised:
        learn.fit(1)
    assert one_line(raised) == (
        "x.1 takes floating point samples (TokenCutMix and TabularCutMix paste ids), "
        "or kinds={'x.1': 'pass'}, got int64 tensor (8,)"
    )
    assert learn.mix_up.mixer.step == 0
    learn = make().mixup(seed=5, kinds={"x.1": "pass"})
    learn.fit(1)
    assert torch.equal(learn.seen.seen_x[0][1], ids[:8])
    assert learn.seen.losses == pytest.approx(plain_losses(bm.Mixup(0.4, seed=5)), rel=1e-6)


def two_heads(pred: Any, y: Any, size: Any) -> Tensor:
    return F.cross_entropy(pred[0], y) + F.mse_loss(pred[1], size)


def test_several_targets_reach_a_loss_of_torchs_losses() -> None:
    size = torch.rand(24, 1, generator=torch.Generator().manual_seed(1))
    data = batches(X, X.flip(-1), Y, size)
    learn = learner(data, model=TwoInputs(heads=2), loss_func=two_heads, n_inp=2).mixup(seed=5)
    learn.fit(1)
    inputs, targets = bm.Mixup(0.4, seed=5)((X[:8], X[:8].flip(-1)), (Y[:8], size[:8]))
    wanted = two_heads(TwoInputs(heads=2)(*inputs), *targets)
    assert learn.seen.losses[0] == pytest.approx(wanted.item(), rel=1e-6)


def test_a_loss_of_several_targets_that_does_not_take_them_is_told_what_to_do() -> None:
    def by_hand(pred: Any, y: Tensor, size: Tensor) -> Tensor:
        return F.cross_entropy(pred[0], y) + (pred[1] - size).square().mean()

    data = batches(X, X.flip(-1), Y, torch.rand(24, 1))
    learn = learner(data, model=TwoInputs(heads=2), loss_func=by_hand, n_inp=2).mixup()
    before = weights(learn)
    with pytest.raises(bm.MixError) as raised:
        learn.fit(1)
    assert one_line(raised).startswith(
        "loss_func takes a MixedTarget in the place of each target, by torch's own losses or bm.mixed_loss("
    )
    assert torch.equal(weights(learn), before)


@pytest.mark.parametrize("stack_y", [True, False])
@pytest.mark.parametrize("loss", [MSELossFlat(), L1LossFlat(), nn.MSELoss()], ids=str)
def test_regression_keeps_both_targets_or_mixes_them(stack_y: bool, loss: Any) -> None:
    values = torch.rand(24, CLASSES, generator=torch.Generator().manual_seed(1))
    learn = learner(batches(X, values, size=24), loss_func=loss).mixup(stack_y=stack_y, seed=5)
    learn.fit(1)
    x, (a, b, lam) = bm.Mixup(0.4, seed=5)(X, values)
    rows, out = lam[:, None], make_model()(x)
    one = F.l1_loss if "L1" in str(loss) else F.mse_loss
    both = rows * one(out, a, reduction="none") + (1 - rows) * one(out, b, reduction="none")
    mixed = one(out, rows * a + (1 - rows) * b)
    assert learn.seen.losses == pytest.approx([(both.mean() if stack_y else mixed).item()], rel=1e-5)
    assert both.mean().item() != pytest.approx(mixed.item(), rel=1e-3)


def test_single_values_are_mixed_directly_whatever_the_loss() -> None:
    """``stack_y=False`` shows the loss nothing but a plain tensor, so that it may return one number."""
    values = torch.rand(24, generator=torch.Generator().manual_seed(1))
    seen: list[Tensor] = []

    def loss(out: Tensor, y: Tensor) -> Tensor:
        seen.append(y)
        return (out[:, 0] - y).square().mean()

    learn = learner(batches(X, values), loss_func=loss).mixup(stack_y=False, seed=5)
    learn.fit(1)
    _, (a, b, lam) = bm.Mixup(0.4, seed=5)(X[:8], values[:8])
    assert len(seen) == 6  # once a batch, three of them in validation
    torch.testing.assert_close(seen[0], lam * a + (1 - lam) * b)
    assert torch.equal(torch.cat(seen[3:]), values)


def test_class_ids_are_not_mixed_directly() -> None:
    with pytest.raises(bm.MixError) as raised:
        learner().mixup(stack_y=False).fit(1)
    assert one_line(raised) == (
        "stack_y takes True for class ids, which have no mean, or float targets, "
        "got False for int64 tensor (8,)"
    )


class MixesInside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = make_model()

    def forward(self, x: Tensor, other: Tensor | None = None, lam: Tensor | None = None) -> Tensor:
        return self.net(x if other is None else torch.lerp(other, x, lam.view(-1, 1, 1, 1)))


def test_with_stack_x_the_model_gets_both_halves_and_mixes_by_itself() -> None:
    learn = learner(model=MixesInside()).mixup(stack_x=True, seed=5)
    learn.fit(1)
    x, other, lam = learn.seen.seen_x[0]
    plan = bm.Mixup(0.4, seed=5).plan(X[:8])
    assert torch.equal(x, X[:8])
    assert torch.equal(other, X[:8][plan.partner])
    assert torch.equal(lam, plan.lam)
    assert learn.seen.losses == pytest.approx(plain_losses(bm.Mixup(0.4, seed=5)), rel=1e-6)
    assert learn.get_preds()[0].shape == (24, CLASSES)


def test_stack_x_takes_one_input_and_whole_samples() -> None:
    with pytest.raises(bm.MixError) as raised:
        learner(model=MixesInside()).mixup(stack_x=True, mixer=bm.CutMix(1.0)).fit(1)
    assert one_line(raised).startswith("stack_x takes a mixer of whole samples, such as Mixup, got CutMix(")
    with pytest.raises(bm.MixError) as raised:
        learner(batches(X, X, Y), model=TwoInputs(), n_inp=2).mixup(stack_x=True).fit(1)
    assert one_line(raised).startswith("stack_x takes batches of one input tensor, got ")


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
