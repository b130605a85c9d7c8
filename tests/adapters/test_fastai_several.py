"""The fastai adapter with several inputs or targets, regression, and models that mix inside."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fastai.learner import Learner
from fastai.losses import L1LossFlat, MSELossFlat
from fastai_learners import MixesInside, X, Y, batches, learner, one_line, plain_losses, weights
from plain_loop import CLASSES, make_model
from torch import Tensor, nn
from torch.nn import functional as F

import batchmix as bm


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
