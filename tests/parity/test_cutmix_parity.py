"""The installed peers draw and mix; their draws, replayed through a plan made by hand, give their batches.

Each peer is seeded, its draw is made again in the order that it makes it, and the plan is ours. Formulas of
peers that are not installed are in test_replayed_draws.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import keras
import numpy as np
import pytest
import timm.data
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from batchmix import MixedTarget, MixPlan, blend
from batchmix.core.boxes import box_masks

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
    warnings.filterwarnings("ignore", "The 'mode.chained_assignment' option")
    import kornia.augmentation as kornia
    from fastai.callback.all import CutMix, MixUp
    from fastai.callback.core import Callback
    from fastai.data.all import DataLoaders
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat
    from fastai.optimizer import SGD

B, K, H, W = 6, 5, 6, 9
CLOSE = {"rtol": 1e-6, "atol": 1e-6}
FLIPPED = torch.arange(B).flip(0)  # timm's partners
ROLLED = torch.arange(B).roll(1)  # torchvision's


@pytest.fixture(autouse=True)
def own_global_rng() -> Iterator[None]:
    """The peers draw from the global generators: they are put back."""
    numpy_state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        yield
    np.random.set_state(numpy_state)  # noqa: NPY002


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(B, 3, H, W, generator=generator), torch.randint(K, (B,), generator=generator)


def rows(*boxes: tuple[int, int, int, int]) -> Tensor:
    """Boxes (top, bottom, left, right)."""
    return torch.tensor(boxes, dtype=torch.int64)


def pasted(partner: Tensor, boxes: Tensor) -> tuple[Tensor, MixedTarget]:
    x, y = batch()
    mask, lam = box_masks(boxes, (H, W))
    plan = MixPlan(partner, lam.expand(B).contiguous(), mask)
    return blend(x, plan), MixedTarget.from_plan(y, plan)


def blended(partner: Tensor, lam: Tensor) -> tuple[Tensor, MixedTarget]:
    x, y = batch()
    plan = MixPlan(partner, lam)
    return blend(x, plan), MixedTarget.from_plan(y, plan)


# timm


def timm_box(rng: np.random.RandomState, lam: float, minmax: tuple[float, float] | None) -> list[int]:
    """A box as timm draws it: its middle's row, then its column; or its sides, then its corner."""
    if minmax is not None:
        sides = [rng.randint(int(side * minmax[0]), int(side * minmax[1])) for side in (H, W)]
        starts = [rng.randint(0, side - cut + 1) for side, cut in zip((H, W), sides, strict=True)]
        return [starts[0], starts[0] + sides[0], starts[1], starts[1] + sides[1]]
    ends = []
    for side in (H, W):
        cut, middle = int(side * np.sqrt(1 - lam)), rng.randint(0, side)
        ends += [max(middle - cut // 2, 0), min(middle + (cut + 1) // 2, side)]
    return ends


def timm_plan(
    seed: int, mode: str, mixup: float, cutmix: float, minmax: tuple[float, float] | None
) -> MixPlan:
    """timm's draw: who pastes, how much, and the boxes in the order of the samples."""
    rng = np.random.RandomState(seed)
    size = {"batch": None, "pair": B // 2, "elem": B}[mode]
    if mode == "batch":
        rng.rand()  # against prob
    both = mixup > 0 and cutmix > 0
    pastes = rng.rand(*[] if size is None else [size]) < 0.5 if both else np.full(size or (), cutmix > 0)
    if mode == "batch":
        drawn = rng.beta(*[cutmix if pastes else mixup] * 2)
    else:
        betas = [rng.beta(alpha, alpha, size) for alpha in (cutmix, mixup) if alpha > 0]
        drawn = np.where(pastes, betas[0], betas[-1]).astype(np.float32)
        rng.rand(size)  # against prob
    boxes = [
        timm_box(rng, lam, minmax) if paste and lam != 1 else [0, 0, 0, 0]
        for lam, paste in zip(np.atleast_1d(drawn), np.atleast_1d(pastes), strict=True)
    ]
    mask, share = box_masks(torch.tensor(boxes), (H, W))
    pasting = torch.tensor(np.atleast_1d(pastes))
    lam = torch.where(pasting, share, torch.tensor(np.atleast_1d(drawn), dtype=torch.float32))
    mask = torch.where(pasting.view(-1, 1, 1, 1), mask.float(), lam.view(-1, 1, 1, 1))
    if mode == "pair":  # the second half of the batch has the draws of its partners
        lam, mask = torch.cat([lam, lam.flip(0)]), torch.cat([mask, mask.flip(0)])
    return MixPlan(FLIPPED, lam.expand(B).contiguous(), mask.bool() if pasting.all() else mask)


def smoothed(target: MixedTarget, smoothing: float) -> Tensor:
    return target.dense(K) * (1 - smoothing) + smoothing / K


TIMM = [
    {"mixup_alpha": 0.8, "cutmix_alpha": 0.0},
    {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
    {"mixup_alpha": 0.8, "cutmix_alpha": 1.0},
    {"mixup_alpha": 0.0, "cutmix_minmax": (0.3, 0.9)},
]


@pytest.mark.parametrize("options", TIMM, ids=str)
@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_timm_mixup(mode: str, options: dict[str, object]) -> None:
    x, y = batch()
    for seed in range(4):
        peer = timm.data.Mixup(**options, mode=mode, label_smoothing=0.1, num_classes=K)
        np.random.seed(seed)  # noqa: NPY002
        theirs, their_target = peer(x.clone(), y)
        plan = timm_plan(seed, mode, peer.mixup_alpha, peer.cutmix_alpha, peer.cutmix_minmax)
        torch.testing.assert_close(blend(x, plan), theirs, **CLOSE)
        assert plan.mask.dtype != torch.bool or torch.equal(blend(x, plan), theirs)
        ours = MixedTarget.from_plan(y, plan)
        torch.testing.assert_close(smoothed(ours, 0.1), their_target.float(), **CLOSE)


@pytest.mark.parametrize("options", TIMM, ids=str)
@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_timm_fast_collate_mixup(mode: str, options: dict[str, object]) -> None:
    x, y = batch()
    x = (x * 255).round().to(torch.uint8)
    for seed in range(4):
        peer = timm.data.FastCollateMixup(**options, mode=mode, label_smoothing=0.1, num_classes=K)
        np.random.seed(seed)  # noqa: NPY002
        # Copies: in pair mode it pastes into the arrays of the dataset.
        theirs, their_target = peer(
            [(image.numpy().copy(), int(label)) for image, label in zip(x, y, strict=True)]
        )
        plan = timm_plan(seed, mode, peer.mixup_alpha, peer.cutmix_alpha, peer.cutmix_minmax)
        assert torch.equal(blend(x.float(), plan).round().to(torch.uint8), theirs)  # half to even, both
        torch.testing.assert_close(
            smoothed(MixedTarget.from_plan(y, plan), 0.1), their_target.float(), **CLOSE
        )


# torchvision


def test_torchvision_mixup() -> None:
    x, y = batch()
    for seed in range(4):
        torch.manual_seed(seed)
        theirs, their_target = v2.MixUp(alpha=0.4, num_classes=K)(x, y)
        torch.manual_seed(seed)
        lam = torch.distributions.Beta(torch.tensor([0.4]), torch.tensor([0.4])).sample(())
        ours, target = blended(ROLLED, lam.expand(B).contiguous())
        torch.testing.assert_close(ours, theirs, **CLOSE)
        torch.testing.assert_close(target.dense(K), their_target, **CLOSE)


def test_torchvision_cutmix() -> None:
    x, y = batch()
    for seed in range(8):
        torch.manual_seed(seed)
        theirs, their_target = v2.CutMix(alpha=1.0, num_classes=K)(x, y)
        torch.manual_seed(seed)
        lam = float(torch.distributions.Beta(torch.tensor([1.0]), torch.tensor([1.0])).sample(()))
        column, row = int(torch.randint(W, (1,))), int(torch.randint(H, (1,)))
        high, wide = (int(0.5 * (1 - lam) ** 0.5 * side) for side in (H, W))
        box = (max(row - high, 0), min(row + high, H), max(column - wide, 0), min(column + wide, W))
        ours, target = pasted(ROLLED, rows(box))
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(target.dense(K), their_target, **CLOSE)


# kornia


def test_kornia_mixup() -> None:
    x, y = batch()
    for seed in range(4):
        torch.manual_seed(seed)
        peer = kornia.RandomMixUpV2(p=1.0, data_keys=["input", "class"])
        theirs, columns = peer(x, y)
        ours, (a, b, lam) = blended(peer._params["mixup_pairs"], 1 - peer._params["mixup_lambdas"])
        torch.testing.assert_close(ours, theirs, **CLOSE)
        torch.testing.assert_close(torch.stack([a, b, 1 - lam], 1).float(), columns, **CLOSE)


def test_kornia_cutmix() -> None:
    # kornia#3077: its column of lam was the partner's share; use_correct_lambda makes it the sample's own.
    x, y = batch()
    for seed in range(4):
        torch.manual_seed(seed)
        peer = kornia.RandomCutMixV2(p=1.0, data_keys=["input", "class"], use_correct_lambda=True)
        theirs, columns = peer(x, y)
        corners = peer._params["crop_src"][0].long()  # (left, top), ..., (right, bottom), of the box itself
        (left, top), (right, bottom) = corners[:, 0].T, corners[:, 2].T
        ours, (a, b, lam) = pasted(
            peer._params["mix_pairs"][0], torch.stack([top, bottom + 1, left, right + 1], 1)
        )
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(torch.stack([a, b, lam], 1).float(), columns[0], **CLOSE)


# Keras


def test_keras_mixup() -> None:
    x, y = batch()
    one_hot = F.one_hot(y, K).float()
    for seed in range(4):
        peer = keras.layers.MixUp(alpha=0.4, seed=seed, data_format="channels_first")
        draw = peer.get_random_transformation({"images": x}, training=True)
        ours, target = blended(draw["permutation_order"].long(), draw["mix_weight"])
        torch.testing.assert_close(ours, peer.transform_images(x, draw, training=True), **CLOSE)
        torch.testing.assert_close(
            target.dense(K), peer.transform_labels(one_hot, draw, training=True), **CLOSE
        )


def test_keras_cutmix_weighs_a_box_that_ends_between_pixels() -> None:
    # Keras leaves the ends of a box as fractions: its labels have the area of the fractions, its images that
    # of the whole pixels inside. The images are ours; of the labels only ours have the pixels' weight.
    x, y = batch()
    one_hot, differs = F.one_hot(y, K).float(), []
    for seed in range(4):
        peer = keras.layers.CutMix(factor=1.0, seed=seed, data_format="channels_first")
        draw = peer.get_random_transformation({"images": x}, training=True)
        own = ~draw["batch_masks"][:, :1]
        boxes = torch.stack([bounds_of(~own[i, 0]) for i in range(B)])
        partner = draw["permutation_order"].long()
        theirs = peer.transform_images(x, draw, training=True)
        ours, target = pasted(partner, boxes)
        assert torch.equal(ours, theirs)
        torch.testing.assert_close(target.lam, own.float().mean((1, 2, 3)))
        their_labels = peer.transform_labels(one_hot, draw, training=True)
        own_share = draw["mix_weight"].view(B, 1)
        torch.testing.assert_close(
            their_labels, own_share * one_hot + (1 - own_share) * one_hot[partner], **CLOSE
        )
        differs.append((draw["mix_weight"].view(B) - target.lam).abs().max())
    assert max(differs) > 0.02


def bounds_of(inside: Tensor) -> Tensor:
    """The rectangle that is true in a mask (H, W): its top, bottom, left, right."""
    places = inside.nonzero()
    if not len(places):
        return torch.zeros(4, dtype=torch.int64)
    (top, left), (bottom, right) = places.min(0).values, places.max(0).values + 1
    return torch.stack([top, bottom, left, right])


# fastai


class Watch(Callback):
    """Keeps the generator's state from before the mixing, and what became of the batch."""

    order = -100
    run_valid = False

    def before_batch(self) -> None:
        self.rng_state = torch.get_rng_state()

    def after_pred(self) -> None:
        self.mixed, self.output = self.learn.x.clone(), self.learn.pred.detach().clone()

    def after_loss(self) -> None:
        self.mixed_loss = self.learn.loss_grad.detach().clone()


def fastai_step(callback: Callback, seed: int) -> Watch:
    """One training step of a real Learner."""
    torch.manual_seed(seed)
    data = DataLoader(TensorDataset(*batch()), batch_size=B)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * H * W, K))
    watch = Watch()
    learner = Learner(
        DataLoaders(data, data, device=torch.device("cpu")),
        model,
        loss_func=CrossEntropyLossFlat(),
        opt_func=SGD,
        cbs=[callback, watch],
    )
    with learner.no_logging(), learner.no_bar():
        learner.fit(1)
    torch.set_rng_state(watch.rng_state)
    return watch


def test_fastai_mixup() -> None:
    for seed in range(2):
        watch = fastai_step(MixUp(0.4), seed)
        lam = torch.distributions.Beta(torch.tensor(0.4), torch.tensor(0.4)).sample((B,))
        ours, target = blended(torch.randperm(B), torch.maximum(lam, 1 - lam))
        assert torch.equal(ours, watch.mixed)
        torch.testing.assert_close(F.cross_entropy(watch.output, target), watch.mixed_loss, **CLOSE)


def test_fastai_cutmix() -> None:
    for seed in range(4):
        watch = fastai_step(CutMix(1.0), seed)
        lam = torch.distributions.Beta(torch.tensor(1.0), torch.tensor(1.0)).sample((1,))
        partner = torch.randperm(B)
        column, row = int(torch.randint(0, W, (1,))), int(torch.randint(0, H, (1,)))
        wide, high = (int(torch.round(side * torch.sqrt(1.0 - lam))) // 2 for side in (W, H))
        box = (max(row - high, 0), min(row + high, H), max(column - wide, 0), min(column + wide, W))
        ours, target = pasted(partner, rows(box))
        assert torch.equal(ours, watch.mixed)
        torch.testing.assert_close(F.cross_entropy(watch.output, target), watch.mixed_loss, **CLOSE)


# Formulas of the authors' code, which Composer and OpenMixup follow; neither is installed


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.9, 1.0])
def test_clovaai_composer_and_openmixup_cut_the_first_side_first(lam: float) -> None:
    x, y = batch()
    rng = np.random.RandomState(3)
    for _ in range(6):
        ends = []
        for side in (H, W):  # called W and H there
            cut, middle = int(side * np.sqrt(1 - lam)), rng.randint(side)
            ends += [int(np.clip(middle - cut // 2, 0, side)), int(np.clip(middle + cut // 2, 0, side))]
        top, bottom, left, right = ends
        partner = torch.tensor(rng.permutation(B))
        theirs = x.clone()
        theirs[:, :, top:bottom, left:right] = x[partner][:, :, top:bottom, left:right]
        their_lam = 1 - (bottom - top) * (right - left) / (H * W)
        ours, target = pasted(partner, rows((top, bottom, left, right)))
        assert torch.equal(ours, theirs)
        assert target.lam.tolist() == pytest.approx([their_lam] * B)
        assert torch.equal(target.b, y[partner])
