"""Bugs of other mixup libraries in losses and targets, one test each: none of them is ours."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batchmix import MixedTarget, MixError, MixPlan, Mixup, MixUpLoss, expected_accuracy, mixed_loss

LAM = torch.tensor([0.75, 0.5, 1.0, 0.25])
A, B = torch.tensor([0, 1, 2, 3]), torch.tensor([3, 2, 1, 0])


def logits(*shape: int) -> Tensor:
    return torch.randn(shape or (4, 5), generator=torch.Generator().manual_seed(0))


class Smoothed(nn.CrossEntropyLoss):
    """A user's own loss module."""


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("base", [nn.CrossEntropyLoss(), Smoothed(label_smoothing=0.1)])
def test_braindecode_1121_three_samples_are_not_a_mixed_triple(base: nn.Module, size: int) -> None:
    # braindecode#1121: a target of length 3 was read as (a, b, lam).
    y = torch.arange(size)
    assert torch.equal(MixUpLoss(base)(logits(size, 5), y), base(logits(size, 5), y))


def test_braindecode_1121_a_tuple_of_three_is_the_losss_own() -> None:
    # braindecode#1121: any structure of three elements was unpacked.
    triple = (torch.tensor([0]), torch.tensor([1]), torch.tensor([0.5]))
    seen: list[object] = []
    MixUpLoss(lambda _, target: seen.append(target) or torch.zeros(()))(None, triple)
    assert seen == [triple]
    assert seen[0] is triple


@pytest.mark.parametrize("base", [F.cross_entropy, Smoothed(), nn.CrossEntropyLoss()])
def test_fastai_2286_a_lam_per_sample_meets_every_reduction(base: object) -> None:
    # fastai#2286: lam (B,) did not broadcast against a reduced loss.
    target = MixedTarget(A, B, LAM)
    one, two = (F.cross_entropy(logits(), y, reduction="none") for y in (A, B))
    each = LAM * one + (1 - LAM) * two
    for reduction, expected in (("none", each), ("mean", each.mean()), ("sum", each.sum())):
        if isinstance(base, nn.Module):
            base.reduction = reduction
            loss = mixed_loss(base, logits(), target)
        else:
            loss = base(logits(), target, reduction=reduction)
        torch.testing.assert_close(loss, expected)


def test_fastai_v1_a_multi_label_validation_batch_is_not_a_mixed_one() -> None:
    # fastai v1 took every target of two dimensions for (y, y[perm], lam) columns.
    base, y = nn.BCEWithLogitsLoss(), torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.5]])
    assert torch.equal(MixUpLoss(base)(logits(2, 3), y), base(logits(2, 3), y))


WEIGHT = torch.tensor([1.0, 2, 4, 8, 16])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.CrossEntropyLoss, {"weight": WEIGHT}),
        (nn.CrossEntropyLoss, {"ignore_index": 2}),
        (nn.CrossEntropyLoss, {"label_smoothing": 0.1}),
        (nn.CrossEntropyLoss, {"weight": WEIGHT, "ignore_index": 2, "label_smoothing": 0.1}),
        (Smoothed, {"weight": WEIGHT}),
        (Smoothed, {"ignore_index": 2}),
    ],
)
def test_fastai_the_mean_divides_by_what_the_plain_loss_divides_by(
    options: dict[str, object], kind: type[nn.Module]
) -> None:
    # fastai averages the unreduced loss: weighted and ignored entries were divided by B.
    base = kind(**options)
    assert torch.equal(MixUpLoss(base)(logits(), MixedTarget(A, B, 1.0)), base(logits(), A))


def test_fastai_3486_the_loss_is_itself_again_after_an_interrupt() -> None:
    # fastai#3486: the swapped loss stayed swapped after lr_find, and the learner did not pickle.
    class Interrupted(nn.Module):
        reduction = "mean"

        def forward(self, output: Tensor, y: Tensor) -> Tensor:
            raise KeyboardInterrupt

    base = Interrupted()
    wrapped = MixUpLoss(base)
    with pytest.raises(KeyboardInterrupt):
        wrapped(logits(), MixedTarget(A, B, LAM))
    assert wrapped.loss_fn is base
    assert base.reduction == "mean"
    plain = MixUpLoss(nn.CrossEntropyLoss())
    assert torch.equal(pickle.loads(pickle.dumps(plain))(logits(), A), plain(logits(), A))


def test_fastai_v2_a_batch_of_one_is_a_batch() -> None:
    # fastai v2 raised IndexError on the last, single sample.
    x, target = Mixup(seed=0)(torch.rand(1, 3, 4, 4), torch.tensor([2]))
    assert torch.equal(
        F.cross_entropy(logits(1, 5), target), F.cross_entropy(logits(1, 5), torch.tensor([2]))
    )
    assert x.shape == (1, 3, 4, 4)


def test_fastai_v2_lam_weighs_every_pixel_of_a_segmentation() -> None:
    # fastai v2: lam (B,) failed against the flattened loss of a segmentation.
    a, b = torch.randint(5, (2, 4, 6, 8), generator=torch.Generator().manual_seed(1))
    scores, target = logits(4, 5, 6, 8), MixedTarget(a, b, LAM)
    one, two = (F.cross_entropy(scores, y, reduction="none").mean((1, 2)) for y in (a, b))
    expected = (LAM * one + (1 - LAM) * two).mean()
    torch.testing.assert_close(F.cross_entropy(scores, target), expected)
    flat = F.cross_entropy(scores.movedim(1, -1).reshape(-1, 5), target.view(-1))
    torch.testing.assert_close(flat, expected)


def test_composer_875_micro_batches_of_a_mixed_batch_keep_their_partners() -> None:
    # composer#875: targets were split without the permutation that belonged to them.
    target = MixedTarget(A, B, LAM)
    whole = F.cross_entropy(logits(), target, reduction="none")
    parts = [F.cross_entropy(logits()[i : i + 2], target[i : i + 2], reduction="none") for i in (0, 2)]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_videomae_131_a_label_beyond_the_classes_is_a_value_error() -> None:
    # VideoMAE#131: a device assert that named nothing.
    with pytest.raises(ValueError, match="num_classes takes more than every label"):
        MixedTarget(A, B, LAM).dense(3)
    assert issubclass(MixError, ValueError)


def test_timm_soft_labels_keep_their_shape() -> None:
    # timm one-hots soft labels (B, K) to (B*K, K) without a word.
    soft = logits().softmax(1)
    target = MixedTarget(soft, soft.flip(0), LAM)
    assert target.dense(5).shape == (4, 5)
    torch.testing.assert_close(target.dense(5).sum(1), torch.ones(4))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16])
def test_timm_lam_is_not_cast_to_the_dtype_of_what_it_mixes(dtype: torch.dtype) -> None:
    # timm casts lam to the images' dtype: with uint8 every target became the partner's.
    target = MixedTarget(A.to(dtype), B.to(dtype), LAM)
    assert torch.equal(target.lam, LAM)
    assert target.lam.dtype == torch.float32


def test_timm_1489_a_mask_of_one_channel_keeps_its_places() -> None:
    # timm#1489: long masks (B, 1, H, W) were flattened.
    y = torch.randint(5, (4, 1, 6, 8), generator=torch.Generator().manual_seed(1))
    target = MixedTarget.from_plan(y, MixPlan(torch.tensor([1, 2, 3, 0]), LAM))
    assert target.shape == (4, 1, 6, 8)
    scores = logits(4, 5, 6, 8)
    loss = F.cross_entropy(scores, target.map(lambda part: part.squeeze(1)), reduction="none")
    assert loss.shape == (4, 6, 8)
    assert target.dense(5).shape == (4, 1, 6, 8, 5)


def test_keras_integer_labels_are_not_blended() -> None:
    # Keras blended class ids, and gave (B, B) for integer labels.
    _, (a, b, lam) = Mixup(1.0, seed=0)(torch.rand(4, 3), A)
    assert a.dtype == b.dtype == torch.int64
    assert a.shape == b.shape == lam.shape == (4,)


def test_keras_masks_keep_their_axes() -> None:
    # Keras: take without an axis gave masks of shape (B, H, W, B).
    y = torch.arange(4 * 6 * 8).view(4, 6, 8)
    _, target = Mixup(1.0, partner="roll", seed=0)(torch.rand(4, 3, 6, 8), y)
    assert torch.equal(target.b, y.roll(1, 0))


def test_ffcv_a_pair_of_one_class_has_all_its_weight() -> None:
    # ffcv wrote the second weight over the first where both labels were the same.
    target = MixedTarget(torch.tensor([2]), torch.tensor([2]), 0.25)
    assert target.dense(4).tolist() == [[0.0, 0.0, 1.0, 0.0]]
    assert float(expected_accuracy(F.one_hot(torch.tensor([2]), 4).float(), target)) == 1.0


def test_fastestimator_image_and_label_have_the_same_weight() -> None:
    # FastEstimator: the image used the larger weight, the label the raw one.
    y = torch.arange(16)
    x, (a, b, lam) = Mixup(1.0, seed=0)(y.double().unsqueeze(1), y)
    torch.testing.assert_close(x.squeeze(1), lam.double() * a + (1 - lam.double()) * b)
