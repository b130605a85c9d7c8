"""``Normalize`` by itself, and ``blend`` with it."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import reference
from batchmix import CutMix, MixError, Mixup, Normalize, ResizeMix, SmoothMix, blend, kernel

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def exact(x: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(part, dtype=torch.float64).view(3, *[1] * (x.dim() - 2)) for part in (MEAN, STD)
    )
    return (x.double() / 255 - mean) / std


def assert_within_one_ulp(got: Tensor, wanted: Tensor) -> None:
    limits = torch.finfo(got.dtype)
    ulp = wanted.abs().clamp(min=limits.tiny).log2().floor().exp2() * limits.eps
    assert ((got.double() - wanted).abs() <= ulp + 2.0**-33).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(5, 3, 8, 6), (1, 3, 4, 4), (2, 3, 7), (2, 3, 2, 4, 5), (2, 3, 0, 4)], ids=str
)
def test_images_are_normalised(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, normalize = images(*shape), Normalize(MEAN, STD, dtype=dtype)
    before = x.clone()
    got = normalize(x)
    assert (got.shape, got.dtype) == (x.shape, dtype)
    assert_within_one_ulp(got, exact(x))
    assert torch.equal(x, before)
    buffer = torch.full_like(got, 7)
    assert normalize(x, out=buffer) is buffer
    assert torch.equal(buffer, got)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_is_kept(memory_format: torch.memory_format) -> None:
    x = images(4, 3, 8, 6).contiguous(memory_format=memory_format)
    normalize = Normalize(MEAN, STD)
    for made in (normalize(x), blend(x, Mixup(seed=0).plan(x), normalize=normalize)):
        assert made.is_contiguous(memory_format=memory_format)
    with kernel("torch"):
        assert normalize(x).is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("name", ["auto", "torch"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", [Mixup, CutMix, SmoothMix])
def test_normalised_and_mixed_at_once_is_normalised_then_mixed(
    method: Any, dtype: torch.dtype, name: Any
) -> None:
    x, other, normalize = (
        images(6, 3, 12, 10),
        images(6, 3, 12, 10, seed=1),
        Normalize(MEAN, STD, dtype=dtype),
    )
    plan = method(seed=2).plan(x)
    with kernel(name):
        mixed, between = blend(x, plan, normalize=normalize), blend(x, plan, other=other, normalize=normalize)
        buffer = torch.full_like(mixed, 7)
        assert blend(x, plan, out=buffer, normalize=normalize) is buffer
    for got, second in ((mixed, None), (between, exact(other))):
        assert_within_one_ulp(got, reference.blend(exact(x), plan.partner, plan.lam, plan.mask, second))
    assert torch.equal(buffer, mixed)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_partner_that_is_resized_is_normalised_too(dtype: torch.dtype) -> None:
    x, normalize = images(6, 3, 12, 10), Normalize(MEAN, STD, dtype=dtype)
    plan = ResizeMix(seed=0).plan(x)
    wanted = reference.blend(exact(x), plan.partner, plan.lam, plan.mask, window=plan.window)
    got = blend(x, plan, normalize=normalize)
    assert got.dtype == dtype
    room = 8 * torch.finfo(torch.float32).eps * 3  # in float32, of values up to 3
    assert ((got.double() - wanted).abs() <= room + wanted.abs() * torch.finfo(dtype).eps).all()
    buffer = torch.zeros_like(got)
    assert blend(x, plan, out=buffer, normalize=normalize) is buffer
    assert torch.equal(buffer, got)


def test_it_is_a_value() -> None:
    normalize = Normalize([0.5], torch.tensor([0.25]), dtype=torch.bfloat16)
    assert normalize == Normalize((0.5,), (0.25,), dtype=torch.bfloat16)
    assert normalize != Normalize((0.5,), (0.25,))
    assert hash(normalize) == hash(copy.deepcopy(normalize))
    assert pickle.loads(pickle.dumps(normalize)) == normalize
    assert eval(repr(normalize), {"Normalize": Normalize, "torch": torch}) == normalize
    with pytest.raises(AttributeError):
        normalize.mean = (0.1,)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("mean", "std", "options", "line"),
    [
        (0.5, 0.5, {}, "mean takes a finite number for each channel, such as (0.5, 0.5, 0.5), got 0.5"),
        ((), (), {}, "mean takes a finite number for each channel"),
        ("ab", "cd", {}, "mean takes a finite number for each channel"),
        ((0.5, float("nan")), (1.0, 1.0), {}, "mean takes a finite number for each channel"),
        ((123.7, 116.3), (58.0, 57.0), {}, "mean takes means of images in [0, 1], got (123.7, 116.3)"),
        ((0.5,), (0.0,), {}, "std takes standard deviations above 0, got (0.0,)"),
        ((0.5,), (True,), {}, "std takes a finite number for each channel"),
        ((0.5,), (0.5, 0.5), {}, "std takes as many numbers as mean: 1, got 2"),
        (
            (0.5,),
            (0.5,),
            {"dtype": torch.float64},
            "dtype takes torch.float32, torch.bfloat16 or torch.float16",
        ),
    ],
)
def test_wrong_constants_are_one_line(mean: Any, std: Any, options: dict[str, Any], line: str) -> None:
    with pytest.raises(MixError) as caught:
        Normalize(mean, std, **options)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("x", "options", "line"),
    [
        (
            torch.zeros(2, 3, 4, 4),
            {},
            "x takes uint8 images (B, 3, H, W) where they are normalised, got float32",
        ),
        (images(2, 4, 4, 3), {}, "x takes uint8 images (B, 3, H, W)"),
        (images(2, 3), {}, "x takes uint8 images (B, 3, H, W)"),
        ([1, 2], {}, "x takes uint8 images (B, 3, H, W)"),
        (images(2, 8, 3, 4, 4), {}, "x takes uint8 videos (B, 3, T, H, W) where they are normalised"),
        (images(2, 3, 4, 4), {"out": "a"}, "out takes what x becomes, bfloat16 tensor"),
        (images(2, 3, 4, 4), {"out": torch.zeros(2, 3, 4, 4)}, "out takes what x becomes, bfloat16 tensor"),
        (images(2, 3, 4, 4), {"out": torch.zeros(2, 3, 4, dtype=torch.bfloat16)}, "out takes what x becomes"),
    ],
)
def test_wrong_images_are_one_line(x: Any, options: dict[str, Any], line: str) -> None:
    with pytest.raises(MixError) as caught:
        Normalize(MEAN, STD, dtype=torch.bfloat16)(x, **options)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_blend_takes_normalize_for_uint8_images_alone() -> None:
    x = images(4, 3, 8, 8)
    plan = Mixup(seed=0).plan(x)
    with pytest.raises(MixError, match=r"^x takes floating point samples"):
        blend(x, plan)
    with pytest.raises(MixError, match=r"^x takes uint8 images \(B, 3, H, W\)"):
        blend(x.float(), plan, normalize=Normalize(MEAN, STD))
    with pytest.raises(MixError, match=r"^normalize takes a Normalize, got"):
        blend(x, plan, normalize=(MEAN, STD))  # type: ignore[arg-type]
    with pytest.raises(MixError, match=r"^other takes what x is, uint8"):
        blend(x, plan, other=x.float(), normalize=Normalize(MEAN, STD))
    with pytest.raises(MixError, match=r"^out takes what x becomes, float32"):
        blend(x, plan, out=x, normalize=Normalize(MEAN, STD))
