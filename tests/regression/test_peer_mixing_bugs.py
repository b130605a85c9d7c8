"""Bugs of other mixup libraries in drawing and pairing, one test each: none of them is ours."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from batchmix import MixedTarget, MixPlan, Mixup, blend, sample_lam

ROLL = torch.tensor([3, 0, 1, 2])


@pytest.mark.parametrize("per", ["sample", "pair", "batch"])
def test_vmt_1_samples_and_targets_share_one_permutation(per: str) -> None:
    # VMT#1, DESED_task#93, tsai#791: x and y were shuffled by two permutations.
    y = torch.arange(1.0, 33.0, dtype=torch.float64).unsqueeze(1)  # a target that is its own sample
    for seed in range(5):
        x, target = Mixup(1.0, per=per, fold=False, seed=seed)(y, y)
        torch.testing.assert_close(x, target.dense(1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_timm_50_in_place_mixing_reads_what_was_there_before(dtype: torch.dtype) -> None:
    # timm#50: rows were mixed with partners that had been mixed already.
    x = torch.arange(12.0).view(4, 3).to(dtype)
    before = x.clone()
    blend(x, MixPlan(ROLL, torch.zeros(4)), out=x)
    assert torch.equal(x, before[ROLL])
    x = before.clone()
    blend(x, MixPlan(ROLL, torch.ones(4)), out=x)
    assert torch.equal(x, before)


def test_timm_collate_leaves_the_datasets_arrays_alone() -> None:
    # timm's collate mixed inside the dataset's own memory.
    data = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    before = data.clone()
    x, _ = Mixup(1.0, partner="roll", seed=0)(data, torch.arange(4))
    assert torch.equal(data, before)
    assert x.data_ptr() != data.data_ptr()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_keras_cv_24_lam_has_the_variance_of_beta(alpha: float) -> None:
    # keras-cv#24: lam was drawn from another distribution; the variance of Beta is 1/(4(2a+1)).
    lam = sample_lam(alpha, 20_000, fold=False, generator=torch.Generator().manual_seed(0)).double()
    assert float(lam.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


@pytest.mark.parametrize("alpha", [0, 1e-8, 1e3])
def test_numpy_24266_extreme_alphas_give_weights(alpha: float) -> None:
    # numpy#24266: beta draws were nan for a tiny alpha.
    lam = sample_lam(alpha, 1000, generator=torch.Generator().manual_seed(0))
    assert lam.isfinite().all()
    assert ((lam >= 0.5) & (lam <= 1)).all()


def test_vision_7772_a_whole_number_is_an_alpha() -> None:
    # vision#7772: an integer alpha made an integer tensor, which Beta refused.
    x = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Mixup(1, seed=0)(x, x)[0], Mixup(1.0, seed=0)(x, x)[0])


def test_catalyst_alpha_zero_is_no_mixing() -> None:
    # Catalyst let alpha=0 pass, and NumPy raised.
    x = torch.rand(4, 3)
    assert Mixup(0, seed=0)(x, torch.arange(4))[0] is x


def test_kornia_4649_p_is_applied_once() -> None:
    # kornia#4649: p was applied twice, so that p=0.5 mixed a quarter of the batches.
    mixup, x = Mixup(1e3, p=0.5, partner="roll", seed=1), torch.rand(2, 3)
    mixed = sum(mixup(x, x)[0] is not x for _ in range(1000))
    assert stats.binomtest(mixed, 1000, 0.5).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kornia_4657_large_labels_beside_half_precision_images_stay_exact(dtype: torch.dtype) -> None:
    # kornia#4657: labels were packed beside lam in the images' dtype, and 257 became 256.
    y = torch.tensor([257, 999, 2049, 4097])
    _, (a, b, _) = Mixup(1.0, partner="roll", seed=0)(torch.rand(4, 3).to(dtype), y)
    assert a.tolist() == [257, 999, 2049, 4097]
    assert b.tolist() == [4097, 257, 999, 2049]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_kornia_4363_the_dtype_of_the_images_is_kept(dtype: torch.dtype) -> None:
    # kornia#4363: half in, float out.
    x, target = Mixup(1.0, seed=0)(torch.rand(4, 3).to(dtype), torch.rand(4, 2).to(dtype))
    assert x.dtype == dtype
    assert target.dense(2).dtype == dtype
    assert target.lam.dtype == torch.float32


def test_monai_the_last_short_batch_is_mixed_like_any_other() -> None:
    # MONAI took the batch size from the constructor, and raised on a shorter last batch.
    mixup = Mixup(1.0, seed=0)
    for size in (4, 4, 3, 1):
        x, target = mixup(torch.rand(size, 3), torch.arange(size))
        assert len(x) == len(target) == size


def test_fastxtend_9_a_plan_replays_at_another_resolution() -> None:
    # fastxtend#9: the resolution changed between the draw and its use.
    small = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
    plan = Mixup(1.0, seed=0).plan(small)
    torch.testing.assert_close(blend(large, plan)[..., ::2, ::2], blend(small, plan))


def test_clovaai_labels_of_no_draw_are_their_own() -> None:
    # A batch left unmixed must not keep the partner of the batch before.
    mixup, y = Mixup(1.0, p=0.0, seed=0), torch.arange(4)
    _, target = mixup(torch.rand(4, 3), y)
    assert isinstance(target, MixedTarget)
    assert torch.equal(target.dominant, y)
    assert torch.equal(target.dense(4), torch.eye(4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_timm_targets_beside_half_precision_images_are_float32(dtype: torch.dtype) -> None:
    # timm made float64 targets in half mode.
    _, target = Mixup(1.0, seed=0)(torch.rand(4, 3, 4, 4).to(dtype), torch.arange(4))
    assert target.lam.dtype == torch.float32
    assert target.dense(4).dtype == torch.float32


def test_composer_875_partners_come_from_the_same_micro_batch() -> None:
    # composer#875: micro-batches were split from a batch whose partners lay in another one.
    mixup, y = Mixup(1.0, seed=0), torch.arange(8)
    for part in y.split(4):
        x, target = mixup(part.double().view(4, 1), part)
        assert set(target.b.tolist()) <= set(part.tolist())
        torch.testing.assert_close(x, target.map(Tensor.double).unsqueeze(1).dense(1))
