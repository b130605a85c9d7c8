"""The adapter's MixUp and CutMix stand where torchvision's stand."""

from __future__ import annotations

import PIL.Image
import pytest
import torch
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

import batchmix as bm
from batchmix.adapters.torchvision import CutMix, MixUp

BOTH = pytest.mark.parametrize("transform", [MixUp, CutMix])


def batch(size: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(size, 3, 6, 8, generator=generator), torch.arange(size) % 4


@BOTH
def test_labels_become_what_torchs_losses_take(transform, unmoved_global_rng: None) -> None:
    x, y = batch()
    before = x.clone()
    mixed, target = transform(seed=1)(x, y)
    assert isinstance(target, bm.MixedTarget)
    assert torch.equal(target.a, y)
    assert not torch.equal(mixed, x)
    assert torch.equal(x, before)
    assert F.cross_entropy(torch.zeros(5, 4), target).item() == pytest.approx(1.3863, abs=1e-4)


@BOTH
def test_with_num_classes_shapes_and_dtypes_are_torchvisions(transform) -> None:
    x, y = batch()
    ours = transform(alpha=0.4, num_classes=4, seed=1)(x, y)
    theirs = getattr(v2, transform.__name__)(alpha=0.4, num_classes=4)(x, y)
    assert [(part.shape, part.dtype) for part in ours] == [(part.shape, part.dtype) for part in theirs]
    torch.testing.assert_close(ours[1].sum(1), torch.ones(5))


@BOTH
@pytest.mark.parametrize("num_classes", [None, 4])
def test_probabilities_as_labels_are_mixed_too(transform, num_classes: int | None) -> None:
    x, y = batch()
    hot = F.one_hot(y, 4)
    _, from_ids = transform(num_classes=4, seed=1)(x, y)
    for labels in (hot, hot.float()):
        _, target = transform(num_classes=num_classes, seed=1)(x, labels)
        dense = target if num_classes else target.dense(4)
        torch.testing.assert_close(dense, from_ids)


@BOTH
def test_the_batch_is_searched_as_torchvision_searches_it(transform) -> None:
    x, y = batch()
    mixed, target = transform(num_classes=4, seed=1)(x, y)
    nests = [
        ([x, y], lambda out: (out[0], out[1])),
        ({"image": x, "labels": y, "name": "a"}, lambda out: (out["image"], out["labels"])),
        ({"my_label": y, "image": x}, lambda out: (out["image"], out["my_label"])),
        ((x, {"labels": y, "extra": torch.ones(5)}), lambda out: (out[0], out[1]["labels"])),
        (
            {"extra": torch.ones(5), "image": tv_tensors.Image(x), "label": y},
            lambda out: (out["image"], out["label"]),
        ),
    ]
    for nest, find in nests:
        out = transform(num_classes=4, seed=1)(nest)
        assert type(out) is type(nest)
        assert torch.equal(find(out)[0], mixed)
        assert torch.equal(find(out)[1], target)
    out = transform(num_classes=4, labels_getter=lambda b: b["t"], seed=1)({"x": x, "t": y})
    assert torch.equal(out["t"], target)


@BOTH
def test_images_and_videos_keep_their_type(transform) -> None:
    x, y = batch()
    image, _ = transform(seed=1)(tv_tensors.Image(x), y)
    assert type(image) is tv_tensors.Image
    video, target = transform(seed=1)(tv_tensors.Video(x[:, None].repeat(1, 2, 1, 1, 1)), y)
    assert type(video) is tv_tensors.Video
    assert torch.equal(video[:, 0], video[:, 1])
    assert len(target) == 5


@BOTH
def test_bytes_are_normalised_and_mixed(transform) -> None:
    (x, y), normalize = batch(), bm.Normalize([0.5] * 3, [0.2] * 3)
    images = (x * 255).byte()
    wanted, _ = transform(seed=1)(normalize(images), y)
    for given in (images, tv_tensors.Image(images)):
        got, _ = transform(seed=1, normalize=normalize)(given, y)
        assert type(got) is type(given)
        torch.testing.assert_close(got.as_subclass(torch.Tensor), wanted)


def test_several_images_are_mixed_by_one_plan() -> None:
    x, y = batch()
    out = MixUp(seed=1)({"left": tv_tensors.Image(x), "right": tv_tensors.Image(x), "label": y})
    assert torch.equal(out["left"], out["right"])
    assert torch.equal(out["left"], MixUp(seed=1)(x, y)[0])


def test_it_composes_with_torchvisions_transforms() -> None:
    mixed, target = v2.Compose([v2.Normalize([0.5] * 3, [0.2] * 3), v2.RandomChoice([MixUp(), CutMix()])])(
        tv_tensors.Image(batch()[0]), batch()[1]
    )
    assert mixed.shape == (5, 3, 6, 8)
    assert isinstance(target, bm.MixedTarget)


def test_one_draw_for_the_batch_is_an_option() -> None:
    x, y = batch()
    mixed, target = MixUp(alpha=1.0, per="batch", fold=False, partner="roll", seed=3)(x, y)
    assert torch.equal(target.b, y.roll(1))
    assert len(target.lam.unique()) == 1
    lam = target.lam[0]
    torch.testing.assert_close(mixed, lam * x + (1 - lam) * x.roll(1, 0))


def test_state_goes_with_the_modules_state() -> None:
    x, y = batch()
    first = MixUp(seed=1)
    first(x, y)
    second = MixUp(seed=2)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x, y)[0], second(x, y)[0])
    assert first.mixer.state_dict() == {"seed": 1, "step": 2}


def test_it_shows_what_it_does() -> None:
    assert "alpha=0.4" in repr(MixUp(alpha=0.4, num_classes=10))


def test_wrong_calls_say_what_they_take() -> None:
    x, y = batch()
    boxes = tv_tensors.BoundingBoxes(torch.zeros(5, 4), format="XYXY", canvas_size=(6, 8))
    wrong = [
        (lambda: MixUp(-1), "alpha takes a finite number >= 0, got -1"),
        (lambda: MixUp(mixer=0.4), "mixer takes a method such as bm.Mixup(0.4), got float 0.4"),
        (
            lambda: MixUp(1.0, mixer=bm.Mixup()),
            "mixer takes all options itself, or None where alpha is given",
        ),
        (
            lambda: MixUp(mixer=bm.Mixup(), seed=1),
            "mixer takes all options itself, or None where seed is given",
        ),
        (lambda: MixUp(num_classes=0), "num_classes takes a whole number >= 1, or None, got 0"),
        (lambda: MixUp(labels_getter=3), "labels_getter takes 'default' or a callable of the batch, got 3"),
        (lambda: MixUp()(x), "labels takes (B,) class ids or (B, K) probabilities, got float32 tensor (5, 3"),
        (
            lambda: MixUp()({"image": x, "target": y}),
            "batch takes labels beside the images, second in a pair or under a key with 'label' in it, "
            "or labels_getter=... that finds them, got the keys 'image', 'target'",
        ),
        (lambda: MixUp()([x, [y, y]]), "batch takes labels beside the images"),
        (
            lambda: MixUp()(x, y.view(5, 1, 1)),
            "labels takes (B,) class ids or (B, K) probabilities, got int64",
        ),
        (lambda: MixUp()(x[0], y), "images takes a batch of 4 dimensions, got float32 tensor (3, 6, 8)"),
        (lambda: MixUp()((x * 255).byte(), y), "images takes floating point, such as from v2.ToDtype("),
        (
            lambda: MixUp(normalize=([0.5] * 3, [0.2] * 3))(x, y),
            "x.0 takes uint8 images (B, 3, H, W) where they are normalised, got float32 tensor",
        ),
        (lambda: MixUp()(*MixUp()(x, y)), "labels takes a batch that is not mixed yet, got a MixedTarget"),
        (
            lambda: MixUp(labels_getter=lambda b: b[1].int())(x, y),
            "labels_getter takes a callable that returns a tensor of the batch itself, got another int32 ten",
        ),
        (lambda: MixUp()(x, y[:4]), "y takes as many samples as x.0: 5, got 4"),
        (lambda: MixUp(num_classes=3)(x, y), "num_classes takes more than every label"),
        (
            lambda: MixUp()(tv_tensors.Image(x), {"label": y, "box": boxes}),
            "batch takes images or videos and",
        ),
        (
            lambda: CutMix()(tv_tensors.Image(x), tv_tensors.Mask(torch.zeros(5, 6, 8)), y),
            "batch takes images",
        ),
        (lambda: MixUp()(PIL.Image.new("RGB", (8, 6)), y), "batch takes tensors, such as from v2.ToImage()"),
        (lambda: MixUp()({"label": y, "name": "a"}), "batch takes images (B, C, H, W) beside the labels"),
    ]
    for call, message in wrong:
        with pytest.raises(bm.MixError) as caught:
            call()
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)
