from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from batchmix import MixError, sample_lam, sample_partner
from batchmix.methods.saliencymix import SaliencyMix

X = torch.rand(8, 3, 12, 20, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8)

pytestmark = pytest.mark.usefixtures("unmoved_global_rng")


def brightness(x: Tensor) -> Tensor:
    return x.mean(1)


def expected_mask(x: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    """Sample by sample: a box of the drawn size around the brightest pixel of the partner."""
    height, width = x.shape[2:]
    mask = torch.ones(len(x), 1, height, width, dtype=torch.bool)
    for i, j in enumerate(partner.tolist()):
        pixels = [(float(x[j, :, r, c].mean()), -r, -c) for r in range(height) for c in range(width)]
        _, row, column = max(pixels)
        if i == j:
            continue
        share = math.sqrt(1 - float(lam[i]))
        tall, wide = math.floor(height * share), math.floor(width * share)
        top, left = -row - tall // 2, -column - wide // 2
        mask[i, 0, max(0, top) : max(0, top + tall), max(0, left) : max(0, left + wide)] = False
    return mask


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_the_box_is_around_the_partners_most_salient_pixel(count: int) -> None:
    mixer = SaliencyMix(saliency=brightness)
    for seed in range(20):
        plan = mixer.sample(X[:count], generator=torch.Generator().manual_seed(seed), alpha=1.0)
        generator = torch.Generator().manual_seed(seed)
        partner = sample_partner(count, generator=generator)
        lam = sample_lam(1.0, count, fold=False, generator=generator)
        assert torch.equal(plan.partner, partner)
        assert torch.equal(plan.mask, expected_mask(X[:count], partner, lam))
        torch.testing.assert_close(plan.lam, plan.mask.float().mean((1, 2, 3)))


def test_the_salient_part_of_the_partner_is_seen_where_it_was() -> None:
    x = torch.zeros(4, 1, 16, 16)
    places = [(2, 3), (5, 12), (13, 13), (9, 1)]
    for image, (row, column) in zip(x, places, strict=True):
        image[0, row, column] = 1.0
    mixer = SaliencyMix(saliency=brightness, partner="roll", seed=0)
    for _ in range(20):
        mixed, target = mixer(x, torch.arange(4))
        for i, j in enumerate(target.b.tolist()):
            row, column = places[j]
            pasted = target.lam[i] < 1
            assert bool(mixed[i, 0, row, column] == 1) == bool(pasted)


def test_the_built_in_saliency_finds_the_object() -> None:
    x = 0.05 * torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    x[:, :, 20:26, 4:10] += 1
    plan = SaliencyMix(1e3, partner="roll", seed=0).plan(x)  # about half of each image
    assert not plan.mask[:, 0, 21:25, 5:9].any()


def test_maps_of_a_lower_resolution_are_enlarged() -> None:
    x = torch.zeros(2, 1, 16, 16)
    x[:, :, 8:12, 4:8] = 1

    def coarse(x: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(x, 4).squeeze(1)

    plan = SaliencyMix(1e3, saliency=coarse, partner="roll", seed=0).plan(x)
    assert not plan.mask[:, 0, 9:11, 5:7].any()


def test_the_saliency_is_asked_once_for_each_mixed_batch_and_never_for_others() -> None:
    calls = []

    def counted(x: Tensor) -> Tensor:
        calls.append(len(x))
        return x.mean(1)

    SaliencyMix(saliency=counted, p=0.0, seed=0)(X, Y)
    SaliencyMix(0.0, saliency=counted, seed=0)(X, Y)
    assert calls == []
    SaliencyMix(saliency=counted, seed=0)(X, Y)
    assert calls == [8]


def test_gradients_flow_through_the_pixels_and_not_through_the_saliency() -> None:
    x = X.clone().requires_grad_()
    mixed, _ = SaliencyMix(seed=0)(x, Y)
    mixed.sum().backward()
    shown = torch.zeros_like(X)
    plan = SaliencyMix(seed=0).plan(X)
    for i, j in enumerate(plan.partner.tolist()):
        shown[i] += plan.mask[i]
        shown[j] += ~plan.mask[i]
    torch.testing.assert_close(x.grad, shown)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1}, "alpha takes "),
        ({"saliency": "grad"}, "saliency takes a callable"),
        ({"saliency": None}, "saliency takes a callable"),
        ({"partner": "random"}, "partner takes "),
        ({"p": 2}, "p takes "),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(MixError, match=rf"^{message}[^\n]*, got [^\n]*$"):
        SaliencyMix(**options)


def test_samples_that_are_no_images_are_named() -> None:
    with pytest.raises(MixError, match=r"^x takes .*images \(B, C, H, W\).*got float32 tensor \(8, 3\)$"):
        SaliencyMix(seed=0)(torch.zeros(8, 3), Y)


def test_two_batches_are_refused_in_one_line() -> None:
    with pytest.raises(MixError, match=r"^between takes [^\n]*got SaliencyMix$"):
        SaliencyMix(seed=0).between((X, Y), (X, Y))
