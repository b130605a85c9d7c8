"""``normalize`` of every mixer: uint8 images in, normalised and mixed floats out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import batchmix as bm
from batchmix.methods import discover
from batchmix.mixer import FOR_IMAGES

NORMALIZE = bm.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), dtype=torch.bfloat16)
METHODS = {
    name: method for name, method in discover().items() if method.whole_plan and method.takes in FOR_IMAGES
}
OTHERS = {name: method for name, method in discover().items() if name not in METHODS}
X = torch.randint(256, (8, 3, 12, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Any:
    return METHODS[request.param]


def targets(method: Any, rows: int = 8) -> Tensor:
    return torch.arange(rows).double() if method is bm.CMixup else torch.arange(rows) % 5


def exact(x: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(part, dtype=torch.float64).view(3, 1, 1) for part in (NORMALIZE.mean, NORMALIZE.std)
    )
    return (x.double() / 255 - mean) / std


def assert_close(got: Tensor, wanted: Tensor) -> None:
    """One unit in the last place; a value next to 0, which a resized partner can be, in float32."""
    eps = torch.finfo(got.dtype).eps
    assert ((got.double() - wanted).abs() <= wanted.abs() * eps + 1e-6).all()


def test_there_are_methods_of_both_kinds() -> None:
    assert {"mixup", "cutmix", "saliencymix", "kmixup"} <= set(METHODS)
    assert {"energymixup", "tokencutmix", "tabularcutmix"} <= set(OTHERS)


def test_a_batch_comes_out_normalised_and_mixed(method: Any) -> None:
    y, before = targets(method), X.clone()
    plan = method(seed=3, normalize=NORMALIZE).plan(X, y)
    x, target = method(seed=3, normalize=NORMALIZE)(X, y)
    assert x.dtype == torch.bfloat16
    assert_close(x, bm.blend(exact(X), plan))
    assert torch.equal(target.lam, plan.lam)
    assert torch.equal(target.b, y[plan.partner])
    assert (plan.lam < 1).any()
    assert torch.equal(X, before)
    replayed, _ = method(seed=9, normalize=NORMALIZE)(X, y, plan=plan)
    assert torch.equal(replayed, x)


def test_the_draws_are_those_of_images_normalised_before(method: Any) -> None:
    """Also of methods that look at pixels: they are given the normalised images."""
    wide = bm.Normalize(NORMALIZE.mean, NORMALIZE.std)
    one = method(seed=3, normalize=wide).plan(X, targets(method))
    two = method(seed=3).plan(wide(X), targets(method))
    assert torch.equal(one.partner, two.partner)
    assert torch.equal(one.lam, two.lam)
    assert (one.mask is None) == (two.mask is None)
    assert one.mask is None or torch.equal(one.mask, two.mask)


def test_a_method_that_says_so_does_not_read_pixels(method: Any) -> None:
    if method.reads_pixels:
        return
    y, noise = targets(method), torch.rand(8, 3, 12, 10, generator=torch.Generator().manual_seed(5))
    one, two = (method(seed=3).plan(x, y) for x in (noise, torch.full_like(noise, float("nan"))))
    assert torch.equal(one.lam, two.lam)
    assert torch.equal(one.partner, two.partner)
    assert one.mask is None or torch.equal(one.mask, two.mask)


def test_methods_that_read_pixels_are_known() -> None:
    assert {name for name, found in METHODS.items() if found.reads_pixels} == {
        "attentivecutmix",
        "kmixup",
        "saliencymix",
    }


@pytest.mark.parametrize("options", [{"p": 0.0}, {"p_sample": 0.0}, {"schedule": lambda step: 0.0}])
def test_a_batch_that_is_not_mixed_is_normalised_all_the_same(method: Any, options: dict[str, Any]) -> None:
    mixer, y = method(seed=0, normalize=NORMALIZE, **options), targets(method)
    x, target = mixer(X, y)
    assert torch.equal(x, NORMALIZE(X))
    assert (target.lam == 1).all()
    part = mixer.mix({"image": X, "label": torch.arange(8)})
    assert torch.equal(part["image"], NORMALIZE(X))


def test_alpha_zero_normalises() -> None:
    x, _ = bm.Mixup(0.0, normalize=NORMALIZE)(X, targets(bm.Mixup))
    assert torch.equal(x, NORMALIZE(X))


def test_samples_that_are_not_mixed_are_normalised_among_those_that_are() -> None:
    x, y = bm.Mixup(0.4, p_sample=0.5, seed=1, normalize=NORMALIZE)(X, targets(bm.Mixup))
    alone = y.lam == 1
    assert 0 < alone.sum() < 8
    assert torch.equal(x[alone], NORMALIZE(X)[alone])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_is_kept(method: Any, memory_format: torch.memory_format) -> None:
    images = X.contiguous(memory_format=memory_format)
    for p in (1.0, 0.0):
        x, _ = method(seed=0, p=p, normalize=NORMALIZE)(images, targets(method))
        assert x.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("p", [1.0, 0.0])
def test_two_batches_are_mixed_between(p: float) -> None:
    second = X.flip(0)
    for method in (bm.Mixup, bm.CutMix, bm.KMixup):
        y = targets(method)
        x, target = method(seed=4, p=p, normalize=NORMALIZE).between((X, y), (second, y))
        wide = bm.Normalize(NORMALIZE.mean, NORMALIZE.std)
        expected, wanted = method(seed=4, p=p).between((wide(X), y), (wide(second), y))
        assert x.dtype == torch.bfloat16
        assert_close(x, expected.double())
        assert torch.equal(target.b, wanted.b)
    with pytest.raises(bm.MixError, match=r"^x takes uint8 images \(B, 3, H, W\)"):
        bm.Mixup(normalize=NORMALIZE).between((X.float(), y), (second.float(), y))


@pytest.mark.parametrize("per", ["batch", "sample"])
def test_a_choice_normalises_for_its_methods(per: Any) -> None:
    methods = {bm.Mixup(0.4): 0.3, bm.SaliencyMix(): 0.3, bm.CutMix(): 0.3}
    mixer, y = bm.Choice(methods, per=per, seed=0, normalize=NORMALIZE), targets(bm.Mixup)
    for step in range(8):
        plan = mixer.plan(X, y, step=step)
        x, _ = mixer(X, y, step=step)
        assert_close(x, bm.blend(exact(X), plan))
    assert "normalize" not in repr(bm.Mixup(0.4))


def test_a_choice_takes_normalize_itself() -> None:
    with pytest.raises(
        bm.MixError, match=r"^methods takes ones without normalize, which the choice has for all"
    ):
        bm.Choice({bm.Mixup(normalize=NORMALIZE): 1.0})
    with pytest.raises(bm.MixError, match=r"^normalize takes a method for images, got SpecMix"):
        bm.Choice({bm.SpecMix(): 1.0}, normalize=NORMALIZE)


def test_a_loader_collates_normalises_and_mixes() -> None:
    data = [(image, label) for label, image in enumerate(X)]
    collate = bm.MixCollate(bm.Mixup(0.4, seed=0, normalize=NORMALIZE))
    for enabled in (True, False):
        collate.enabled, collate.step = enabled, 0
        batches = list(DataLoader(data, batch_size=4, collate_fn=collate))
        for step, (x, y) in enumerate(batches):
            images = X[4 * step : 4 * step + 4]
            plan = bm.MixPlan.identity(4) if not enabled else bm.Mixup(0.4, seed=0).plan(images, step=step)
            assert_close(x, bm.blend(exact(images), plan))
            assert torch.equal(y.lam, plan.lam)


def test_floats_beside_the_images_are_mixed_as_they_are() -> None:
    x = {"image": X, "depth": torch.rand(8, 1, 12, 10), "age": torch.rand(8, 1)}
    plan = bm.CutMix(seed=0).plan(X)
    mixed, _ = bm.CutMix(seed=0, normalize=NORMALIZE)(x, targets(bm.CutMix))
    assert_close(mixed["image"], bm.blend(exact(X), plan))
    assert torch.equal(mixed["depth"], bm.blend(x["depth"], plan))
    assert torch.equal(mixed["age"], bm.blend(x["age"], plan.without_mask()))


def test_in_one_batch_uint8_is_an_image_where_it_can_be_nothing_else() -> None:
    mixer, y = bm.Mixup(seed=0, normalize=NORMALIZE), torch.arange(8)
    assert mixer.mix({"image": X, "label": y})["image"].dtype == torch.bfloat16
    grey = bm.Mixup(seed=0, normalize=((0.5,), (0.5,)))
    batch = {"image": X[:, :1], "label": y}
    with pytest.raises(bm.MixError, match=r"^image takes a kind"):
        grey.mix(batch)  # it could be a mask
    assert grey.mix(batch, kinds={"image": "input"})["image"].dtype == torch.float32
    masks = {"image": X, "mask": X[:, 0], "label": y}
    mixed = bm.CutMix(seed=0, normalize=NORMALIZE).mix(masks, kinds={"mask": "segmentation"})
    assert mixed["mask"].dtype == torch.uint8


@pytest.mark.parametrize(
    ("x", "line"),
    [
        (
            X.float(),
            "x takes uint8 images (B, 3, H, W) where they are normalised, got float32 tensor (8, 3, 12, 10)",
        ),
        (
            X[:, :1],
            "x takes uint8 images (B, 3, H, W) where they are normalised, got uint8 tensor (8, 1, 12, 10)",
        ),
        ({"a": X, "b": X[:, :2]}, "x.b takes uint8 images (B, 3, H, W) where they are normalised, got uint8"),
        ({"a": X, "b": X[:, 0, 0, 0]}, "x.b takes floating point samples"),
    ],
)
@pytest.mark.parametrize("p", [1.0, 0.0])
def test_what_cannot_be_normalised_is_one_line(x: Any, line: str, p: float) -> None:
    with pytest.raises(bm.MixError) as caught:
        bm.Mixup(p=p, normalize=NORMALIZE)(x, torch.arange(8))
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_wider_whole_numbers_are_told_what_to_become() -> None:
    """As ``datasets`` gives images that were lists."""
    mixup = bm.Mixup(normalize=NORMALIZE)
    with pytest.raises(
        bm.MixError, match=r"^image takes uint8 images, such as image\.to\(torch\.uint8\), or a"
    ):
        mixup.mix({"image": X.long(), "label": torch.arange(8)})


def test_without_normalize_uint8_is_refused_as_ever() -> None:
    with pytest.raises(bm.MixError, match=r"^x takes floating point samples, such as x.float\(\) / 255"):
        bm.Mixup()(X, torch.arange(8))


@pytest.mark.parametrize("name", OTHERS)
def test_methods_of_other_samples_refuse_it(name: str) -> None:
    with pytest.raises(bm.MixError, match=r"^normalize takes a method for images, got "):
        OTHERS[name](normalize=NORMALIZE)


def test_a_method_that_does_more_than_a_plan_refuses_it() -> None:
    class More(bm.Mixer):
        whole_plan = False

    with pytest.raises(bm.MixError, match=r"^normalize takes a method that a plan says all about, got More$"):
        More(normalize=NORMALIZE)


@pytest.mark.parametrize("wrong", [3, (0.5,), ((0.5,), (0.5,), torch.float32), "imagenet"])
def test_normalize_is_a_value_or_a_pair(wrong: Any) -> None:
    with pytest.raises(
        bm.MixError, match=r"^normalize takes a Normalize, a pair \(mean, std\), or None, got"
    ):
        bm.Mixup(normalize=wrong)
    assert bm.Mixup(normalize=((0.5,), (0.25,))).normalize == bm.Normalize((0.5,), (0.25,))


def test_regmixup_normalises_both_halves() -> None:
    regmixup = bm.RegMixup(bm.Mixup(10.0, seed=0, normalize=NORMALIZE))
    x, target = regmixup(X, targets(bm.Mixup))
    mixed, _ = bm.Mixup(10.0, seed=0, normalize=NORMALIZE)(X, targets(bm.Mixup))
    assert torch.equal(x, torch.cat([NORMALIZE(X), mixed]))
    assert len(target) == 16


def test_manifold_mixup_refuses_a_mixer_that_normalises() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(360, 5))
    with pytest.raises(
        bm.MixError, match=r"^mixer takes one without normalize, since the model is given its own"
    ):
        bm.ManifoldMixup(model, ["0"], mixer=bm.Mixup(normalize=NORMALIZE))
