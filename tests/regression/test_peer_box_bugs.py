"""Bugs of other CutMix implementations, one test each: none of them is ours."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from batchmix import Choice, CutMix, MixedTarget, MixError, MixPlan, Mixup, blend
from batchmix.core.boxes import box_masks

ROLL = torch.tensor([3, 0, 1, 2])
Y = torch.arange(4)


def noise(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def pasting(*boxes: tuple[int, int, int, int], size: tuple[int, int]) -> MixPlan:
    """Each sample gets the box (top, bottom, left, right) of the one before."""
    mask, lam = box_masks(torch.tensor(boxes), size)
    return MixPlan(torch.arange(len(boxes)).roll(1), lam, mask)


def share_that_stays(plan: MixPlan, size: tuple[int, int]) -> Tensor:
    """Counted on images that are constants, each of another."""
    x = torch.arange(1.0, len(plan) + 1).view(-1, 1, 1, 1).expand(len(plan), 1, *size)
    return (blend(x, plan) == x).double().mean((1, 2, 3))


# Lambda, boxes, probability


@pytest.mark.parametrize("size", [(1, 1), (6, 8), (8, 6), (5, 1), (32, 32)])
def test_kornia_3077_lam_is_the_share_of_pixels_that_stay(size: tuple[int, int]) -> None:
    # kornia#3077, #4439: lam was the share that was cut, or that of a box of another size.
    for seed in range(20):
        plan = CutMix(1.0, partner="roll", seed=seed).plan(torch.zeros(8, 1, *size))
        torch.testing.assert_close(plan.lam.double(), share_that_stays(plan, size), rtol=0, atol=1e-7)


def test_clovaai_1_lam_is_counted_after_the_box_is_clipped() -> None:
    # clovaai#1, timm#8: labels kept the lam of a box that stuck out of the image.
    plan = pasting((4, 6, 6, 8), (0, 3, 0, 4), (0, 6, 0, 8), (2, 2, 0, 8), size=(6, 8))
    assert plan.lam.tolist() == pytest.approx([1 - 4 / 48, 1 - 12 / 48, 0.0, 1.0])
    assert share_that_stays(plan, (6, 8)).tolist() == pytest.approx(plan.lam.tolist())
    drawn = CutMix(1.0, partner="roll", seed=0).plan(torch.zeros(500, 1, 6, 8))
    at_an_edge = ~drawn.mask[:, 0, 0].all(1)
    assert int(at_an_edge.sum()) > 50
    left = share_that_stays(drawn, (6, 8))
    torch.testing.assert_close(drawn.lam.double(), left, rtol=0, atol=1e-7)


def test_timm_8_a_box_of_no_area_and_one_of_all_are_exact() -> None:
    x = noise(4, 3, 6, 8)
    nothing, everything = (pasting(*[box] * 4, size=(6, 8)) for box in ((3, 3, 0, 8), (0, 6, 0, 8)))
    assert torch.equal(blend(x, nothing), x)
    assert nothing.lam.tolist() == [1.0] * 4
    assert torch.equal(blend(x, everything), x[ROLL])
    assert everything.lam.tolist() == [0.0] * 4


@pytest.mark.parametrize("size", [(6, 8), (8, 6), (3, 40)])
def test_kornia_4438_height_is_height_and_width_is_width(size: tuple[int, int]) -> None:
    # kornia#4438, #4468, tensorflow/models#11271: the width was taken from the height, or the two swapped.
    masks = CutMix(1.0, partner="roll", seed=0).plan(torch.zeros(600, 3, *size)).mask
    assert masks.shape == (600, 1, *size)
    cut = ~masks[:, 0]
    assert cut.any(2).any(0).all()  # every row is cut somewhere, and every column
    assert cut.any(1).any(0).all()
    whole = ~(cut[:, 0].any(1) | cut[:, -1].any(1) | cut[:, :, 0].any(1) | cut[:, :, -1].any(1))
    high, wide = cut[whole].any(2).sum(1), cut[whole].any(1).sum(1)
    # Both are the same share of their side, rounded down: the two ranges of shares overlap.
    assert (high / size[0] < (wide + 1) / size[1]).all()
    assert (wide / size[1] < (high + 1) / size[0]).all()
    assert len(high) > 20


def test_timm_a_box_of_a_video_is_of_height_and_width() -> None:
    # timm sliced dimensions 2 and 3 of (B, C, T, H, W): time and height.
    x = Y.double().view(4, 1, 1, 1, 1).expand(4, 2, 3, 6, 8).contiguous()
    mixed, (a, b, lam) = CutMix(1.0, partner="roll", seed=1)(x, Y)
    assert torch.equal(mixed[:, :, :1].expand_as(mixed), mixed)  # the same in every frame
    torch.testing.assert_close(mixed.flatten(1).mean(1), lam * a + (1 - lam.double()) * b, rtol=0, atol=1e-6)
    assert (lam < 1).any()


def test_kornia_4712_boxes_of_a_batch_are_drawn_apart() -> None:
    # kornia#4712: the boxes of a batch were correlated.
    cut = ~CutMix(minmax=(0.25, 0.25), partner="roll", seed=0).plan(torch.zeros(2000, 1, 16, 24)).mask[:, 0]
    top, left = (cut.any(axis).int().argmax(1).double() for axis in (2, 1))
    for one, two in ((top[:-1], top[1:]), (left[:-1], left[1:]), (top, left)):
        assert stats.pearsonr(one, two).pvalue > 1e-3


@pytest.mark.parametrize("method", [CutMix, Mixup])
def test_kornia_4649_p_of_a_half_is_a_half(method: type) -> None:
    # kornia#4649: p was applied twice.
    mixer = method(1e3, p=0.5, partner="roll", seed=0)
    mixed = sum(bool((mixer.plan(torch.zeros(2, 1, 8, 8)).lam < 1).any()) for _ in range(1000))
    assert stats.binomtest(mixed, 1000, 0.5).pvalue > 1e-3


def test_vision_8440_mixup_and_cutmix_have_alphas_of_their_own() -> None:
    # vision#8440: one alpha for both.
    mixer = Choice({Mixup(1e6, partner="roll"): 0.5, CutMix(1e-8, fold=True, partner="roll"): 0.5}, seed=0)
    for _ in range(20):
        plan = mixer.plan(torch.zeros(4, 1, 32, 32))
        wanted = 0.5 if plan.mask is None else 1.0
        torch.testing.assert_close(plan.lam, torch.full((4,), wanted), rtol=0, atol=0.01)


def test_keras_cv_24_the_area_of_a_box_inside_follows_beta() -> None:
    # keras-cv#24: lam was drawn from another distribution than Beta(alpha, alpha).
    lam = CutMix(1e5, partner="roll", seed=0).plan(torch.zeros(4000, 1, 64, 64)).lam
    # A box of half of the area, clipped: its sides are s = 45 of 64, and its middle is uniform.
    covered = [sum(1 for at in range(64) if m - 22 <= at < m + 23) / 64 for m in range(64)]
    expected = 1 - (sum(covered) / 64) ** 2
    assert float(lam.mean()) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("alpha", [1e-8, 1, 1e3])
def test_numpy_24266_extreme_and_whole_alphas_cut_boxes(alpha: float) -> None:
    # numpy#24266, vision#7772: nan for a tiny alpha, an error for an integer one.
    lam = CutMix(alpha, seed=0).plan(torch.zeros(500, 1, 8, 8)).lam
    assert lam.isfinite().all()
    assert ((lam >= 0) & (lam <= 1)).all()
    assert (lam < 1).any()


def test_keras_a_box_ends_at_whole_pixels() -> None:
    # Keras draws the ends of a box as fractions, and gives labels the area of those.
    plan = CutMix(1.0, partner="roll", seed=0).plan(torch.zeros(200, 1, 6, 9))
    pixels = plan.lam.double() * 54
    torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=1e-4)


# Pairing and mutation


@pytest.mark.parametrize("per", ["sample", "pair", "batch"])
def test_vmt_1_pixels_and_labels_come_from_the_same_partner(per: str) -> None:
    # VMT#1, DESED_task#93, tsai#791: x and y were shuffled by two permutations.
    y = torch.arange(8)
    x = y.float().view(8, 1, 1, 1).expand(8, 1, 6, 8)
    for seed in range(10):
        mixed, (a, b, lam) = CutMix(1.0, per=per, seed=seed)(x, y)
        for image, one, two, own in zip(mixed, a.tolist(), b.tolist(), lam.tolist(), strict=True):
            assert set(image.unique().tolist()) == {*([one] if own > 0 else []), *([two] if own < 1 else [])}


def test_timm_50_a_paste_in_place_reads_what_was_there_before() -> None:
    # timm#50: rows were pasted from partners that had been pasted into already.
    x = noise(4, 3, 6, 8)
    plan = pasting(*[(1, 5, 2, 7)] * 4, size=(6, 8))
    expected = blend(x, plan)
    blend(x, plan, out=x)
    assert torch.equal(x, expected)


def test_fastai_v2_and_timm_the_datasets_images_stay_as_they_are() -> None:
    # fastai v2's CutMix writes into the batch, timm's pair collate into the arrays of the dataset.
    x = noise(4, 3, 6, 8)
    before = x.clone()
    mixed, _ = CutMix(1.0, per="pair", seed=1)(x, Y)
    assert torch.equal(x, before)
    assert mixed.data_ptr() != x.data_ptr()


def test_fastestimator_image_and_label_have_the_same_share() -> None:
    # FastEstimator folded the image's lam and not the label's.
    x = Y.double().view(4, 1, 1, 1).expand(4, 1, 16, 16)
    for seed in range(10):
        mixed, (a, b, lam) = CutMix(1.0, fold=True, seed=seed)(x, Y)
        torch.testing.assert_close(mixed.mean((1, 2, 3)), lam * a + (1 - lam.double()) * b, rtol=0, atol=1e-6)


# Types and shapes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_kornia_4657_4363_half_precision_keeps_labels_and_its_dtype(dtype: torch.dtype) -> None:
    # kornia#4657: label 257 became 256 beside bfloat16 images; kornia#4363: half in, float out.
    y = torch.tensor([257, 999, 2049, 4097])
    mixed, (a, b, lam) = CutMix(1.0, partner="roll", seed=0)(noise(4, 3, 6, 8).to(dtype), y)
    assert mixed.dtype == dtype
    assert a.tolist() == [257, 999, 2049, 4097]
    assert b.tolist() == [4097, 257, 999, 2049]
    assert lam.dtype == torch.float32


def test_timm_integer_images_do_not_make_lam_an_integer() -> None:
    # timm cast lam to the images' dtype: with uint8 all of the label was the partner's.
    with pytest.raises(MixError, match=r"^x takes floating point samples, such as x.float"):
        CutMix(1.0, seed=0)(torch.zeros(4, 3, 6, 8, dtype=torch.uint8), Y)


@pytest.mark.parametrize("shape", [(4, 1, 6, 8), (4, 6, 8)])
def test_timm_1489_kornia_4493_keras_a_mask_of_class_ids_is_cut_with_the_image(
    shape: tuple[int, ...],
) -> None:
    # timm#1489 flattened it, kornia#4493 left it as it was, Keras took (B, H, W, B) and blended the ids.
    y = torch.randint(5, shape, generator=torch.Generator().manual_seed(1))
    x = y.view(4, 1, 6, 8).float()
    mixed, ids = CutMix(1.0, partner="roll", seed=0)(x, y)
    assert (ids.shape, ids.dtype) == (shape, torch.int64)
    assert torch.equal(ids.view(4, 1, 6, 8).float(), mixed)
    assert not torch.equal(ids, y)


def detections() -> list[dict[str, Tensor]]:
    boxes = [(0.0, 0.0, 4.0, 4.0), (2.0, 2.0, 8.0, 6.0), (1.0, 1.0, 3.0, 5.0), (4.0, 0.0, 8.0, 3.0)]
    return [{"boxes": torch.tensor([box]), "labels": torch.tensor([i + 1])} for i, box in enumerate(boxes)]


def test_yolo_105_boxes_keep_their_places_under_mixup() -> None:
    # MultimediaTechLab/YOLO#105: the coordinates of boxes were multiplied by lam with the images.
    before = detections()
    _, mixed = Mixup(1.0, partner="roll", seed=0)(noise(4, 3, 6, 8), detections())
    for i, objects in enumerate(mixed):
        both = torch.cat([before[i]["boxes"], before[i - 1]["boxes"]])
        assert torch.equal(objects["boxes"], both)
        torch.testing.assert_close(objects["weights"].sum(), torch.tensor(1.0))


def test_keras_labels_of_boxes_go_with_their_boxes() -> None:
    # Keras joined the labels of boxes along another axis than the boxes, or blended them.
    before = detections()
    for mixer in (Mixup(1.0, partner="roll", seed=0), CutMix(1.0, partner="roll", seed=0)):
        for i, objects in enumerate(mixer(noise(4, 3, 6, 8), detections())[1]):
            assert objects["labels"].dtype == torch.int64
            assert len(objects["labels"]) == len(objects["boxes"])
            assert set(objects["labels"].tolist()) <= {
                int(before[i]["labels"]),
                int(before[i - 1]["labels"]),
            }


@pytest.mark.parametrize("key", ["mask", "boxes", "keypoints", "bbox_xyxy"])
@pytest.mark.parametrize("mixer", [Mixup(1.0, seed=0), CutMix(1.0, seed=0)])
def test_kornia_4493_no_key_of_a_batch_stays_unmixed_in_silence(mixer: Mixup | CutMix, key: str) -> None:
    # kornia#4493: masks, boxes and key points went through unmixed beside mixed images.
    shape = {"mask": (4, 1, 6, 8), "keypoints": (4, 5, 3)}.get(key, (4, 5, 4))
    with pytest.raises(MixError, match=rf"^y\.{key} takes .* kinds=\{{'y\.{key}': '"):
        mixer(noise(4, 3, 6, 8), {"label": Y, key: noise(*shape)})


def test_monai_labels_are_not_all_of_the_partner() -> None:
    # MONAI's labels became the partner's whatever was cut.
    _, target = CutMix(1.0, fold=True, partner="roll", seed=0)(noise(4, 3, 32, 32), Y)
    dense = target.dense(4)
    torch.testing.assert_close(dense[torch.arange(4), Y], target.lam)
    assert (target.lam >= 0.5).all()


def test_monai_and_timm_a_short_and_an_odd_batch_are_batches() -> None:
    # MONAI raised on a shorter last batch, timm on an odd one, fastai v2 on one sample.
    cutmix = CutMix(1.0, per="pair", seed=0)
    for size in (4, 3, 1):
        mixed, target = cutmix(noise(size, 3, 6, 8), torch.arange(size))
        assert len(mixed) == len(target) == size


def test_fastxtend_9_a_box_at_another_resolution_is_an_error() -> None:
    # fastxtend#9: the images were resized between the draw and its use.
    plan = CutMix(1.0, seed=0).plan(noise(4, 3, 6, 8))
    with pytest.raises(MixError, match=r"^x takes the size of the plan's mask, .*\(4, 1, 6, 8\)"):
        blend(noise(4, 3, 12, 16), plan)


def test_ffcv_partners_of_one_class_sum_to_one() -> None:
    # ffcv scattered the second weight over the first: same-class pairs summed to 1 - lam.
    _, target = CutMix(1.0, partner="roll", seed=0)(noise(4, 3, 6, 8), torch.tensor([2, 2, 2, 2]))
    assert torch.equal(target.dense(3), F.one_hot(torch.tensor([2] * 4), 3).float())


def test_catalyst_alpha_zero_is_no_mixing() -> None:
    # Catalyst let alpha=0 pass its check, and NumPy raised.
    x = noise(4, 3, 6, 8)
    mixed, target = CutMix(0, seed=0)(x, Y)
    assert mixed is x
    assert isinstance(target, MixedTarget)
