"""The peers' published draws, replayed through our plan, give the peers' batches, targets and losses.

The formulas are written out from the peers' documentation; none of them has to be installed.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from batchmix import MixedTarget, MixPlan, blend, mixed_loss, sample_lam, sample_partner

B, K, ALPHA = 6, 5, 0.4
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture
def torch_rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.fixture
def numpy_rng() -> np.random.RandomState:
    return np.random.RandomState(3)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(B, 3, 4, 6, generator=generator)
    return x, torch.randint(K, (B,), generator=generator), torch.randn(B, K, generator=generator)


def rows(lam: Tensor) -> Tensor:
    return lam.view(-1, 1, 1, 1)


def replay(perm: Tensor, lam: Tensor) -> tuple[Tensor, MixedTarget]:
    x, y, _ = batch()
    plan = MixPlan(perm, lam)
    return blend(x, plan), MixedTarget.from_plan(y, plan)


def test_fastai_v1_lam_per_sample_folded_and_three_target_columns(
    numpy_rng: np.random.RandomState, torch_rng: torch.Generator
) -> None:
    x, y, logits = batch()
    lam = numpy_rng.beta(ALPHA, ALPHA, B)
    lam = torch.tensor(np.concatenate([lam[:, None], 1 - lam[:, None]], 1).max(1), dtype=torch.float32)
    perm = torch.randperm(B, generator=torch_rng)
    columns = torch.stack([y.float(), y[perm].float(), lam], 1)

    mixed, target = replay(perm, lam)
    torch.testing.assert_close(mixed, x * rows(lam) + x[perm] * rows(1 - lam), **CLOSE)
    torch.testing.assert_close(torch.stack([target.a.float(), target.b.float(), target.lam], 1), columns)
    one = F.cross_entropy(logits, columns[:, 0].long(), reduction="none")
    two = F.cross_entropy(logits, columns[:, 1].long(), reduction="none")
    each = one * columns[:, 2] + two * (1 - columns[:, 2])
    torch.testing.assert_close(F.cross_entropy(logits, target, reduction="none"), each, **CLOSE)
    torch.testing.assert_close(F.cross_entropy(logits, target), each.mean(), **CLOSE)


def test_fastai_v2_lerps_the_batch_and_the_losses(torch_rng: torch.Generator) -> None:
    x, y, logits = batch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        lam = torch.distributions.Beta(torch.tensor(ALPHA), torch.tensor(ALPHA)).sample((B,))
    lam = torch.maximum(lam, 1 - lam)
    perm = torch.randperm(B, generator=torch_rng)

    mixed, target = replay(perm, lam)
    assert torch.equal(mixed, torch.lerp(x[perm], x, rows(lam)))
    one, two = (F.cross_entropy(logits, labels, reduction="none") for labels in (y, y[perm]))
    torch.testing.assert_close(F.cross_entropy(logits, target), torch.lerp(two, one, lam).mean(), **CLOSE)


def test_mixup_cifar10_one_lam_a_batch(numpy_rng: np.random.RandomState, torch_rng: torch.Generator) -> None:
    x, y, logits = batch()
    lam = float(np.float32(numpy_rng.beta(1.0, 1.0)))
    perm = torch.randperm(B, generator=torch_rng)

    mixed, target = replay(perm, torch.full((B,), lam))
    torch.testing.assert_close(mixed, lam * x + (1 - lam) * x[perm], **CLOSE)
    expected = lam * F.cross_entropy(logits, y) + (1 - lam) * F.cross_entropy(logits, y[perm])
    torch.testing.assert_close(F.cross_entropy(logits, target), expected, **CLOSE)
    scalar_only = mixed_loss(lambda output, labels: F.cross_entropy(output, labels), logits, target)
    torch.testing.assert_close(scalar_only, expected, **CLOSE)


def timm_smoothed(y: Tensor, smoothing: float) -> Tensor:
    off = smoothing / K
    return torch.full((len(y), K), off).scatter_(1, y.unsqueeze(1), 1 - smoothing + off)


def timm_lam(mode: str, rng: np.random.RandomState) -> Tensor:
    if mode == "batch":
        drawn = np.full(B, rng.beta(ALPHA, ALPHA))
    elif mode == "elem":
        drawn = rng.beta(ALPHA, ALPHA, B)
    else:  # both members of a pair share one
        half = rng.beta(ALPHA, ALPHA, B // 2)
        drawn = np.concatenate([half, half[::-1]])
    return torch.tensor(drawn, dtype=torch.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mode", ["batch", "elem", "pair"])
def test_timm_mirrored_partners_and_smoothed_dense_targets(
    mode: str, smoothing: float, numpy_rng: np.random.RandomState
) -> None:
    x, y, logits = batch()
    lam, mirrored = timm_lam(mode, numpy_rng), torch.arange(B - 1, -1, -1)

    mixed, target = replay(mirrored, lam)
    torch.testing.assert_close(mixed, x * rows(lam) + x.flip(0) * rows(1 - lam), **CLOSE)
    column = lam.unsqueeze(1)
    dense = timm_smoothed(y, smoothing) * column + timm_smoothed(y.flip(0), smoothing) * (1 - column)
    ours = target.dense(K) * (1 - smoothing) + smoothing / K
    torch.testing.assert_close(ours, dense, **CLOSE)
    soft_loss = -(dense * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(F.cross_entropy(logits, target, label_smoothing=smoothing), soft_loss, **CLOSE)


def test_timm_pair_is_our_pair_on_mirrored_partners(torch_rng: torch.Generator) -> None:
    mirrored = torch.arange(B - 1, -1, -1)
    lam = sample_lam(ALPHA, B, per="pair", fold=False, partner=mirrored, generator=torch_rng)
    assert torch.equal(lam, lam.flip(0))
    assert len(lam.unique()) == B // 2


def test_torchvision_rolls_the_batch_and_its_one_hot_labels(numpy_rng: np.random.RandomState) -> None:
    x, y, _ = batch()
    lam = float(np.float32(numpy_rng.beta(1.0, 1.0)))
    one_hot = F.one_hot(y, K).float()

    mixed, target = replay(sample_partner(B, "roll"), torch.full((B,), lam))
    torch.testing.assert_close(mixed, x.roll(1, 0) * (1 - lam) + x * lam, **CLOSE)
    torch.testing.assert_close(target.dense(K), one_hot.roll(1, 0) * (1 - lam) + one_hot * lam, **CLOSE)


def test_composer_gives_the_partner_the_smaller_weight(
    numpy_rng: np.random.RandomState, torch_rng: torch.Generator
) -> None:
    x, y, logits = batch()
    drawn = numpy_rng.beta(0.2, 0.2)
    of_partner = float(np.float32(min(drawn, 1 - drawn)))
    perm = torch.randperm(B, generator=torch_rng)

    mixed, target = replay(perm, torch.full((B,), 1 - of_partner))
    torch.testing.assert_close(mixed, (1 - of_partner) * x + of_partner * x[perm], **CLOSE)
    expected = (1 - of_partner) * F.cross_entropy(logits, y) + of_partner * F.cross_entropy(logits, y[perm])
    torch.testing.assert_close(F.cross_entropy(logits, target), expected, **CLOSE)


def test_keras_mixes_one_hot_labels_by_the_own_weight(
    numpy_rng: np.random.RandomState, torch_rng: torch.Generator
) -> None:
    x, y, _ = batch()
    perm = torch.randperm(B, generator=torch_rng)
    lam = torch.tensor(numpy_rng.beta(0.2, 0.2, B), dtype=torch.float32)
    one_hot, column = F.one_hot(y, K).float(), lam.unsqueeze(1)

    mixed, target = replay(perm, lam)
    torch.testing.assert_close(mixed, rows(lam) * x + rows(1 - lam) * x[perm], **CLOSE)
    torch.testing.assert_close(target.dense(K), column * one_hot + (1 - column) * one_hot[perm], **CLOSE)
    soft = MixedTarget.from_plan(one_hot, MixPlan(perm, lam))
    torch.testing.assert_close(soft.dense(K), target.dense(K), **CLOSE)


def test_kornia_gives_the_partner_lam(torch_rng: torch.Generator) -> None:
    x, y, _ = batch()
    perm, of_partner = torch.randperm(B, generator=torch_rng), torch.rand(B, generator=torch_rng)

    mixed, target = replay(perm, 1 - of_partner)
    torch.testing.assert_close(mixed, x * rows(1 - of_partner) + x[perm] * rows(of_partner), **CLOSE)
    assert torch.equal(target.a, y)
    assert torch.equal(target.b, y[perm])
