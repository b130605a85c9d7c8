"""The adapter's Mixup and FastCollateMixup take timm's arguments and give timm's targets."""

from __future__ import annotations

import inspect
import pickle

import numpy as np
import PIL.Image
import pytest
import timm.data
import torch
from timm.data.loader import PrefetchLoader
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor
from torch.utils.data import DataLoader

import batchmix as bm
from batchmix.adapters.timm import FastCollateMixup, Mixup

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # on a machine of one core
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded"),  # by autograd, asleep meanwhile
]

needs_fork = pytest.mark.skipif(
    "fork" not in torch.multiprocessing.get_all_start_methods(), reason="starts its workers by fork"
)


def batch(size: int = 6) -> tuple[Tensor, Tensor]:
    """Image i is full of i, so that what became of it can be read from it."""
    y = torch.arange(size)
    return y.float().view(-1, 1, 1, 1).expand(size, 3, 8, 8).contiguous(), y


def test_the_arguments_are_timms() -> None:
    theirs = inspect.signature(timm.data.Mixup).parameters
    ours = inspect.signature(Mixup).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    assert [p.default for p in theirs.values()] == [ours[name].default for name in theirs]


@pytest.mark.parametrize(
    ("mode", "per", "prob"),
    [("batch", "batch", "p"), ("pair", "pair", "p_sample"), ("elem", "sample", "p_sample")],
)
def test_the_guide_says_the_same_in_the_librarys_own_terms(mode, per, prob) -> None:
    """docs/coming-from.md, in the section on timm."""
    options = {"mixup_alpha": 0.2, "cutmix_alpha": 1.0, "prob": 0.7, "switch_prob": 0.3}
    theirs = Mixup(**options, mode=mode, label_smoothing=0.1, num_classes=10, seed=3)
    methods = {bm.Mixup(0.2, per=per, fold=False): 0.7, bm.CutMix(1.0, per=per): 0.3}
    mix = bm.Choice(methods, per="sample" if mode == "elem" else "batch", seed=3, **{prob: 0.7})
    logits = torch.linspace(-1, 1, 60).view(6, 10)
    for _ in range(8):
        (x, target), (own_x, own_y) = theirs(*batch()), mix(*batch())
        assert torch.equal(x, own_x)
        loss = torch.nn.functional.cross_entropy(logits, own_y, label_smoothing=0.1)
        torch.testing.assert_close(loss, SoftTargetCrossEntropy()(logits, target))


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize(
    "alphas",
    [
        {"mixup_alpha": 0.8},
        {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
        {"mixup_alpha": 0.8, "cutmix_alpha": 1.0},
        {"mixup_alpha": 0.8, "cutmix_minmax": (0.2, 0.8)},
    ],
)
@pytest.mark.parametrize("size", [1, 5, 6])
def test_targets_are_dense_smoothed_and_follow_the_pixels(mode, alphas, size, unmoved_global_rng) -> None:
    mixup_fn = Mixup(**alphas, mode=mode, label_smoothing=0.1, num_classes=10, seed=3)
    for _ in range(4):
        x, y = batch(size)
        before = x.clone()
        mixed, target = mixup_fn(x, y)
        assert torch.equal(x, before)
        assert (mixed.shape, mixed.dtype) == (x.shape, x.dtype)
        assert (target.shape, target.dtype) == ((size, 10), torch.float32)
        torch.testing.assert_close(target.sum(1), torch.ones(size))
        assert target.min().item() == pytest.approx(0.01)
        # The mean of an image is the mean of its labels, each by its weight, and smoothing keeps 9/10 of it.
        means = (target - 0.01) @ torch.arange(10.0) / 0.9
        torch.testing.assert_close(mixed.mean((1, 2, 3)), means, rtol=1e-4, atol=1e-4)
        kinds = {len(row.unique()) for row in mixed[:, 0].flatten(1)}
        assert kinds <= {1, 2}


def test_modes_draw_one_weight_for_the_batch_for_a_pair_or_for_each() -> None:
    x, y = batch(6)
    drawn = {
        mode: Mixup(mode=mode, num_classes=6, seed=0).mixer(x, y)[1] for mode in ("batch", "pair", "elem")
    }
    assert {mode: len(target.lam.unique()) for mode, target in drawn.items()} == {
        "batch": 1,
        "pair": 3,
        "elem": 6,
    }
    assert torch.equal(drawn["pair"].b[drawn["pair"].b], y)


def test_both_methods_are_drawn_by_switch_prob() -> None:
    def cuts(switch_prob: float) -> float:
        mixup_fn = Mixup(1.0, 1.0, switch_prob=switch_prob, num_classes=6, seed=0)
        plans = [mixup_fn.mixer.plan(batch()[0]) for _ in range(200)]
        return sum(plan.mask is not None for plan in plans) / 200

    assert cuts(0.0) == 0
    assert cuts(1.0) == 1
    assert cuts(0.25) == pytest.approx(0.25, abs=0.08)


def test_prob_is_that_of_a_batch_or_of_a_sample() -> None:
    x, y = batch(100)
    whole = [Mixup(1.0, prob=0.5, num_classes=100, seed=seed)(x, y)[0] for seed in range(100)]
    changed = torch.stack([(mixed != x).flatten(1).any(1).float().mean() for mixed in whole])
    assert set((changed > 0.5).tolist()) == {True, False}
    assert (changed > 0.5).float().mean().item() == pytest.approx(0.5, abs=0.15)
    assert not ((changed > 0) & (changed < 0.9)).any()
    single, _ = Mixup(1.0, prob=0.5, mode="elem", num_classes=100, seed=0)(x, y)
    assert (single != x).flatten(1).any(1).float().mean().item() == pytest.approx(0.5, abs=0.15)
    unmixed, target = Mixup(1.0, prob=0.0, label_smoothing=0.0, num_classes=100)(x, y)
    assert torch.equal(unmixed, x)
    assert torch.equal(target, torch.eye(100))


def test_switched_off_it_gives_timms_targets() -> None:
    x, y = batch()
    ours, theirs = (kind(1.0, 1.0, label_smoothing=0.1, num_classes=6) for kind in (Mixup, timm.data.Mixup))
    ours.mixup_enabled = theirs.mixup_enabled = False
    got, wanted = ours(x, y), theirs(x.clone(), y)
    assert torch.equal(got[0], wanted[0])
    torch.testing.assert_close(got[1], wanted[1])
    ours.mixup_enabled = True
    assert not torch.equal(ours(x, y)[0], x)


@pytest.mark.parametrize(
    "mixer", [bm.TokenCutMix(1.0), bm.TabularCutMix(), bm.EnergyMixup()], ids=lambda m: type(m).__name__
)
def test_methods_with_masks_of_their_own_can_be_switched_off(mixer: bm.Mixer) -> None:
    x, mixup_fn = torch.arange(36.0).view(4, 9) / 36, Mixup(mixer=mixer, num_classes=6, label_smoothing=0.0)
    mixup_fn.mixup_enabled = False
    mixed, target = mixup_fn(x, torch.arange(4))
    assert torch.equal(mixed, x)
    assert torch.equal(target, torch.eye(6)[:4])


def test_it_ends_at_its_off_epoch() -> None:
    x, y = batch()
    mixup_fn = Mixup(num_classes=6, mixup_off_epoch=2, seed=0)
    mixed = []
    for epoch in range(4):
        mixup_fn.set_epoch(epoch)
        mixed.append(not torch.equal(mixup_fn(x, y)[0], x))
    assert mixed == [True, True, False, False]
    never = Mixup(num_classes=6)
    never.set_epoch(1000)
    assert never.mixup_enabled


def test_timms_losses_take_the_targets() -> None:
    x, y = batch()
    _, target = Mixup(num_classes=10, label_smoothing=0.0, seed=0)(x, y)
    logits = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    plan_target = Mixup(num_classes=10, label_smoothing=0.0, seed=0).mixer(x, y)[1]
    torch.testing.assert_close(
        SoftTargetCrossEntropy()(logits, target), torch.nn.functional.cross_entropy(logits, plan_target)
    )
    assert BinaryCrossEntropy(smoothing=0.0)(logits, target).isfinite()


def test_multi_label_targets_are_smoothed_towards_a_half() -> None:
    x, _ = batch(4)
    y = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]])
    ours = Mixup(num_classes=3, label_smoothing=0.2, multi_label=True)
    ours.mixup_enabled = False
    theirs = timm.data.Mixup(num_classes=3, label_smoothing=0.2, multi_label=True)
    theirs.mixup_enabled = False
    torch.testing.assert_close(ours(x, y)[1], theirs(x.clone(), y)[1])
    ours.mixup_enabled = True
    _, target = ours(x, y)
    assert target.shape == (4, 3)
    assert 0.1 <= target.min() <= target.max() <= 0.9


def test_collated_targets_are_checked_as_those_of_a_batch_are() -> None:
    x, _ = batch(4)
    several = torch.tensor([[1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]])
    options = {"num_classes": 3, "multi_label": True, "seed": 0}
    _, target = FastCollateMixup(**options)(list(zip(x, several, strict=True)))
    assert torch.equal(target, Mixup(**options)(x, several)[1])
    with pytest.raises(bm.MixError, match=r"^target takes \(B,\) class ids where multi_label=False, got "):
        FastCollateMixup(num_classes=3)(list(zip(x, several.float(), strict=True)))


def test_videos_are_mixed_over_height_and_width() -> None:
    x, y = batch(4)
    video = x[:, :, None].expand(4, 3, 5, 8, 8)
    mixed, _ = Mixup(0.0, 1.0, num_classes=4, seed=1)(video, y)
    assert not torch.equal(mixed, video)
    assert torch.equal(mixed[:, :, 0], mixed[:, :, 4])


def test_state_is_saved_and_resumed() -> None:
    x, y = batch()
    first, second = Mixup(1.0, 1.0, num_classes=6, seed=1), Mixup(1.0, 1.0, num_classes=6, seed=2)
    first(x, y)
    second.load_state_dict(pickle.loads(pickle.dumps(first)).state_dict())
    assert torch.equal(first(x, y)[0], second(x, y)[0])


# In the loader's workers


class Bytes(torch.utils.data.Dataset):
    """What timm's datasets yield: uint8 arrays (C, H, W) and class ids."""

    def __len__(self) -> int:
        return 15

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.full((3, 4, 4), 10 * index, dtype=np.uint8), index


def passes(workers: int, *, persistent: bool = False) -> list[tuple[Tensor, Tensor]]:
    """Three epochs of three batches, the last without mixing."""
    collate = FastCollateMixup(mixup_alpha=1.0, num_classes=15, mixup_off_epoch=2, seed=0)
    loader = DataLoader(Bytes(), 5, num_workers=workers, persistent_workers=persistent, collate_fn=collate)
    rows = []
    for epoch in range(3):
        collate.set_epoch(epoch)
        rows += list(collate.epoch(loader))
    return rows


@needs_fork
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_the_off_epoch_reaches_persistent_workers(workers: int, persistent: bool) -> None:
    rows = passes(workers, persistent=persistent)
    assert [is_mixed(x) for x, _ in rows] == [True] * 6 + [False] * 3
    for got, wanted in zip(rows, passes(0), strict=True):
        assert torch.equal(got[0], wanted[0])
        assert torch.equal(got[1], wanted[1])


def is_mixed(x: Tensor) -> bool:
    """Whether some pixel is none of ``Bytes``'."""
    return bool((x % 10).any())


@needs_fork
def test_without_the_count_the_flag_reaches_persistent_workers_too() -> None:
    collate = FastCollateMixup(mixup_alpha=1.0, num_classes=15, seed=0)
    loader = DataLoader(Bytes(), 4, num_workers=2, persistent_workers=True, collate_fn=collate)
    changed = []
    for enabled in (True, False):
        collate.mixup_enabled = enabled
        changed.append(any(is_mixed(x) for x, _ in loader))
    assert changed == [True, False]


@needs_fork
def test_timms_prefetching_loader_scales_the_float_batches() -> None:
    def first(collate) -> tuple[Tensor, Tensor]:
        loader = DataLoader(Bytes(), 4, num_workers=1, collate_fn=collate)
        return next(iter(PrefetchLoader(loader, mean=(0.5,) * 3, std=(0.5,) * 3, device=torch.device("cpu"))))

    collate = FastCollateMixup(num_classes=15, label_smoothing=0.0)
    loader = PrefetchLoader(DataLoader(Bytes(), 4, collate_fn=collate), device=torch.device("cpu"))
    assert loader.mixup_enabled
    loader.mixup_enabled = False
    assert not collate.enabled
    theirs = timm.data.FastCollateMixup(num_classes=15, label_smoothing=0.0)
    theirs.mixup_enabled = False
    for got, wanted in zip(first(collate), first(theirs), strict=True):
        torch.testing.assert_close(got, wanted)


def test_a_mixer_that_normalises_gets_the_bytes() -> None:
    def mixer() -> bm.Mixup:
        return bm.Mixup(0.4, normalize=([0.5] * 3, [0.2] * 3), seed=1)

    samples = [Bytes()[index] for index in range(4)]
    images, labels = torch.stack([torch.as_tensor(image) for image, _ in samples]), torch.arange(4)
    wanted, _ = mixer()(images, labels)
    got, _ = FastCollateMixup(mixer=mixer(), num_classes=15)(samples)
    assert torch.equal(got, wanted)
    assert torch.equal(Mixup(mixer=mixer(), num_classes=15)(images, labels)[0], wanted)


def test_wrong_calls_say_what_they_take() -> None:
    x, y = batch()
    wrong = [
        (lambda: Mixup(-1), "mixup_alpha takes a finite number >= 0, got -1"),
        (lambda: Mixup(0), "mixup_alpha takes a number > 0 where cutmix_alpha is 0, got 0"),
        (lambda: Mixup(1, -1), "cutmix_alpha takes a finite number >= 0, got -1"),
        (lambda: Mixup(1, cutmix_minmax=(0.2,)), "minmax takes two shares of a side"),
        (lambda: Mixup(prob=2), "prob takes a probability in [0, 1], got 2"),
        (lambda: Mixup(switch_prob=-1), "switch_prob takes a probability in [0, 1], got -1"),
        (lambda: Mixup(mode="half"), "mode takes one of 'batch', 'pair', 'elem', got 'half'"),
        (lambda: Mixup(correct_lam=False), "correct_lam takes True"),
        (lambda: Mixup(label_smoothing=1.5), "label_smoothing takes a probability in [0, 1], got 1.5"),
        (lambda: Mixup(num_classes=0), "num_classes takes a whole number >= 1, got 0"),
        (lambda: Mixup(mixup_off_epoch=-1), "mixup_off_epoch takes a whole number >= 0, got -1"),
        (lambda: Mixup(mixer=1), "mixer takes a method such as bm.Mixup(0.4), got int 1"),
        (lambda: Mixup(0.2, mixer=bm.Mixup()), "mixer takes the place of mixup_alpha"),
        (
            lambda: Mixup(num_classes=5)(x, y),
            "num_classes takes more than every label, labels are 0 to 5, got 5",
        ),
        (lambda: Mixup()(x.byte(), y), "x takes floating point samples"),
        (
            lambda: Mixup()(x, y.float()),
            "target takes (B,) class ids, whole numbers, got float32 tensor (6,)",
        ),
        (lambda: Mixup()(x, torch.eye(6)), "target takes (B,) class ids where multi_label=False"),
        (
            lambda: Mixup(num_classes=6, multi_label=True)(x, y),
            "target takes (B, 6) targets where multi_label",
        ),
        (lambda: Mixup()(x, y[:5]), "y takes as many samples as x: 6, got 5"),
        (lambda: Mixup().set_epoch(-1), "epoch takes a whole number >= 0, got -1"),
    ]
    for call, message in wrong:
        with pytest.raises(bm.MixError) as caught:
            call()
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)


def test_images_that_are_no_arrays_yet_are_told_so() -> None:
    image = PIL.Image.new("RGB", (8, 6))
    with pytest.raises(bm.MixError, match=r"^samples takes images as arrays or tensors, .*, got PIL.Image$"):
        FastCollateMixup(num_classes=3)([(image, 0), (image, 1)])
    x, _ = FastCollateMixup(num_classes=3)([(np.array(image).transpose(2, 0, 1), 0)] * 2)
    assert x.shape == (2, 3, 6, 8)
