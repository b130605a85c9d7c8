"""The fastai adapter with every loss."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from fastai.losses import (
    BCEWithLogitsLossFlat,
    CrossEntropyLossFlat,
    DiceLoss,
    FocalLoss,
    FocalLossFlat,
    LabelSmoothingCrossEntropy,
    LabelSmoothingCrossEntropyFlat,
)
from fastai_learners import Seen, X, Y, batches, learner, one_line, plain_losses, weights
from plain_loop import CLASSES, make_model
from torch import Tensor, nn
from torch.nn import functional as F

import batchmix as bm
from batchmix.adapters.fastai import MixUpCallback, MixUpLoss


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
        "between samples, got one number: give it reduction='none', call it sample by sample "
        "(help(batchmix.mixed_loss) shows how), or mix with per='batch'"
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


@pytest.mark.parametrize("options", [{"weight": torch.arange(1.0, 5)}, {"ignore_index": 2}], ids=list)
def test_a_wrapped_flat_loss_keeps_its_mean(options: dict[str, Any]) -> None:
    loss_func, y = CrossEntropyLossFlat(**options), torch.tensor([0, 1, 2, 3])
    output = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    mixed = MixUpLoss(loss_func)(output, bm.MixedTarget(y, y.flip(0), 1.0))
    torch.testing.assert_close(mixed, loss_func(output, y))


def test_the_wrapper_of_plain_loops_is_refused_since_it_hides_the_loss_in_it() -> None:
    learn = learner(loss_func=bm.MixUpLoss(CrossEntropyLossFlat()))
    before = list(learn.cbs)
    for call in (learn.mixup, lambda: learn.fit(1, cbs=MixUpCallback())):
        with pytest.raises(bm.MixError) as raised:
            call()
        assert one_line(raised).startswith(
            "loss_func takes a loss as it is, or in batchmix.adapters.fastai.MixUpLoss, which hides nothing "
            "of it, got batchmix.MixUpLoss("
        )
        assert list(learn.cbs) == before

    learner(loss_func=bm.MixUpLoss(F.cross_entropy)).mixup(seed=5).fit(1)  # it has nothing to hide
    learn = learner(loss_func=MixUpLoss(CrossEntropyLossFlat())).mixup(seed=5)
    learn.fit(1)
    assert learn.seen.losses == pytest.approx(plain_losses(bm.Mixup(0.4, seed=5)), rel=1e-6)
    preds, _, losses = learn.get_preds(with_loss=True)
    torch.testing.assert_close(preds.sum(1), torch.ones(len(Y)))
    assert losses.shape == Y.shape
