"""SnapMix: what is pasted, and what each label weighs."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from batchmix import MixError, off_after
from batchmix.snapmix import SnapMix

X = torch.rand(8, 3, 12, 20, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])

pytestmark = pytest.mark.usefixtures("unmoved_global_rng")


def brightness(x: Tensor, y: Tensor) -> Tensor:
    return x.mean(1)


def stretched(crop: Tensor, height: int, width: int) -> Tensor:
    """A crop (C, h, w) resized by torch's own bilinear interpolation."""
    return F.interpolate(crop[None], (height, width), mode="bilinear", align_corners=False)[0]


def expected(x: Tensor, y: Tensor, maps: Tensor, drawn: tuple[Tensor, Tensor, Tensor]) -> list[tuple]:
    """Sample by sample: image, weight of the own label, weight of the partner's."""
    rows = []
    for i, j in enumerate(drawn[0].tolist()):
        top, bottom, left, right = drawn[1][i].tolist()
        up, down, west, east = drawn[2][i].tolist()
        if i == j or (bottom - top) * (right - left) == 0 or (down - up) * (east - west) == 0:
            rows.append((x[i], 1.0, 0.0))
            continue
        image = x[i].clone()
        image[:, top:bottom, left:right] = stretched(x[j, :, up:down, west:east], bottom - top, right - left)
        mine, theirs = (maps[k].double() - maps[k].min() for k in (i, j))
        weight = 1 - mine[top:bottom, left:right].sum() / mine.sum()
        rows.append((image, float(weight), float(theirs[up:down, west:east].sum() / theirs.sum())))
    return rows


@pytest.mark.parametrize("count", [1, 2, 7, 8])
@pytest.mark.parametrize("alpha", [0.3, 1.0, 5.0])
def test_images_and_weights_are_those_of_the_definition(count: int, alpha: float) -> None:
    x, y = X[:count].double(), Y[:count]
    for seed in range(10):
        snapmix = SnapMix(brightness, alpha, seed=seed)
        drawn = copy.deepcopy(snapmix).draws.next(x, y, None)
        mixed, target, factor = snapmix(x, y)
        assert torch.equal(target.a, y)
        assert torch.equal(target.b, y[drawn[0]])
        for i, (image, mine, theirs) in enumerate(expected(x, y, brightness(x, y).float(), drawn)):
            torch.testing.assert_close(mixed[i], image, rtol=1e-5, atol=1e-5)
            assert math.isclose(float(target.lam[i] * factor[i]), mine, abs_tol=1e-5)
            assert math.isclose(float((1 - target.lam[i]) * factor[i]), theirs, abs_tol=1e-5)


def test_factor_times_the_mixed_loss_is_the_published_loss() -> None:
    snapmix = SnapMix(brightness, seed=0)
    drawn = copy.deepcopy(snapmix).draws.next(X, Y, None)
    _, target, factor = snapmix(X, Y)
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    loss = (factor * F.cross_entropy(logits, target, reduction="none")).mean()
    weights = [(mine, theirs) for _, mine, theirs in expected(X, Y, brightness(X, Y), drawn)]
    mine, theirs = torch.tensor(weights).T
    both = [F.cross_entropy(logits, labels, reduction="none") for labels in (Y, Y[drawn[0]])]
    torch.testing.assert_close(loss, (mine * both[0] + theirs * both[1]).mean())
    assert ((factor - 1).abs() > 0.05).any()


def test_each_pixel_of_the_partner_comes_from_its_own_box() -> None:
    """A partner that is black but for its box, which is white: the paste is white all over."""
    snapmix = SnapMix(brightness, 5.0, partner="roll", seed=2)
    x = torch.zeros(8, 1, 16, 16)
    partner, boxes, sources = copy.deepcopy(snapmix).draws.next(x, Y, None)
    for i, j in enumerate(partner.tolist()):
        top, bottom, left, right = sources[i].tolist()
        x[j, :, top:bottom, left:right] = 1.0
    mixed, _, _ = snapmix(x, Y)
    for i in range(8):
        top, bottom, left, right = boxes[i].tolist()
        torch.testing.assert_close(
            mixed[i, 0, top:bottom, left:right], torch.ones(bottom - top, right - left)
        )


def test_maps_of_one_value_weigh_by_pixels_and_low_resolutions_are_enlarged() -> None:
    _, target, factor = SnapMix(lambda x, y: torch.ones(len(x), 3, 5), 1.0, seed=0)(X, Y)
    drawn = SnapMix(brightness, 1.0, seed=0).draws.next(X, Y, None)
    areas = [(box[:, 1] - box[:, 0]) * (box[:, 3] - box[:, 2]) / 240 for box in drawn[1:]]
    mixed = (areas[0] > 0) & (areas[1] > 0) & (drawn[0] != torch.arange(8))
    wanted = torch.where(mixed, 1 - areas[0] + areas[1], 1.0)
    torch.testing.assert_close(factor, wanted)
    torch.testing.assert_close(target.lam * factor, torch.where(mixed, 1 - areas[0], 1.0))


def test_where_both_parts_mean_nothing_the_loss_counts_nothing_and_stays_finite() -> None:
    def one_corner(x: Tensor, y: Tensor) -> Tensor:
        maps = torch.zeros(len(x), 12, 20)
        maps[:, 6, 10] = 1.0
        return maps

    for seed in range(40):
        _, target, factor = SnapMix(one_corner, 1.0, seed=seed)(X, Y)
        assert target.lam.isfinite().all()
        assert ((target.lam >= 0) & (target.lam <= 1)).all()
        assert set(factor.tolist()) <= {0.0, 1.0, 2.0}


def test_the_cam_of_the_card_is_asked_once_without_a_graph() -> None:
    with torch.random.fork_rng():
        body, head = torch.nn.Conv2d(3, 5, 3, stride=2), torch.nn.Linear(5, 4)

    def cam(x: Tensor, y: Tensor) -> Tensor:
        return torch.einsum("bchw,bc->bhw", body(x).relu(), head.weight[y])

    x = X.clone().requires_grad_()
    mixed, target, factor = SnapMix(cam, seed=0)(x, Y)
    assert not target.lam.requires_grad
    assert not factor.requires_grad
    mixed.sum().backward()  # the pixels keep theirs
    assert x.grad is not None
    assert body.weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_of_the_images_stays_and_so_do_they(dtype: torch.dtype) -> None:
    x = X.to(dtype)
    before = x.clone()
    mixed, target, factor = SnapMix(brightness, seed=0)(x, Y)
    assert mixed.dtype == dtype
    assert (target.lam.dtype, factor.dtype) == (torch.float32, torch.float32)
    assert torch.equal(x, before)
    close, _, _ = SnapMix(brightness, seed=0)(X.double(), Y)
    torch.testing.assert_close(mixed.double(), close, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_the_default_dtype_changes_nothing(p: float) -> None:
    x, target, factor = SnapMix(brightness, p=p, seed=0)(X, Y)
    torch.set_default_dtype(torch.float64)
    try:
        same, its_target, its_factor = SnapMix(brightness, p=p, seed=0)(X, Y)
    finally:
        torch.set_default_dtype(torch.float32)
    for one, two in zip((x, *target, factor), (same, *its_target, its_factor), strict=True):
        assert one.dtype == two.dtype
        assert torch.equal(one, two)


def test_batches_that_are_not_mixed_are_handed_back_and_no_cam_is_asked() -> None:
    def never(x: Tensor, y: Tensor) -> Tensor:
        raise AssertionError("asked")

    for snapmix in (SnapMix(never, p=0.0, seed=0), SnapMix(never, 0.0, seed=0)):
        x, target, factor = snapmix(X, Y)
        assert x is X
        assert torch.equal(target.lam, torch.ones(8))
        assert torch.equal(factor, torch.ones(8))
        assert snapmix.step == 1


def test_draws_resume_and_follow_a_schedule() -> None:
    unbroken = SnapMix(brightness, seed=1)
    wanted = [unbroken(X, Y).x for _ in range(4)]
    first = SnapMix(brightness, seed=1)
    for _ in range(2):
        first(X, Y)
    second = SnapMix(brightness, seed=9)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(X, Y).x, wanted[2])
    assert torch.equal(pickle.loads(pickle.dumps(second))(X, Y).x, wanted[3])
    assert torch.equal(second(X, Y, step=0).x, wanted[0])
    ended = SnapMix(brightness, schedule=off_after(1), seed=1)
    assert torch.equal(ended(X, Y).x, wanted[0])
    assert ended(X, Y).x is X


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SnapMix("cam"), "cam takes a callable"),
        (lambda: SnapMix(brightness, -1), "alpha takes "),
        (lambda: SnapMix(brightness, p=2), "p takes "),
        (
            lambda: SnapMix(brightness, schedule={"p_sample": off_after(1)}),
            "schedule takes a callable of the step, or one for each of p, alpha, got ",
        ),
        (lambda: SnapMix(brightness, partner="any"), "partner takes "),
        (lambda: SnapMix(brightness, seed=0)(X[:, :, 0], Y), "x takes "),
        (lambda: SnapMix(brightness, seed=0)(X, Y[:7]), "y takes "),
        (lambda: SnapMix(brightness, seed=0)(X, torch.zeros(8)), r"y takes class ids \(B,\), got float32"),
        (
            lambda: SnapMix(brightness, seed=0)(X, Y[:, None]),
            r"y takes class ids \(B,\), got int64 tensor \(8, 1",
        ),
        (lambda: SnapMix(lambda x, y: x, seed=0)(X, Y), "cam takes a callable that returns maps"),
    ],
)
def test_a_wrong_call_is_named_in_one_line(call: object, message: str) -> None:
    with pytest.raises(MixError, match=rf"^{message}[^\n]*$"):
        call()
