"""Boxes and key points under a paste and under a blend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from made_up_objects import H, W, blended, boxes, images, of_torchvision, paste, with_masks
from torch import Tensor

from batchmix import CutMix, MixError, MixPlan, Mixup, ResizeMix, TabularCutMix
from batchmix.core.objects import mix_objects


def test_under_a_blend_all_boxes_stay_with_the_weight_of_their_image() -> None:
    targets = images(boxes((0, 0, 4, 4), (1, 1, 2, 2)), boxes((3, 3, 8, 6)))
    first, second = mix_objects(targets, blended(0.75, 1.0))
    assert first["labels"].tolist() == [0, 1, 2]
    assert first["weights"].tolist() == [0.75, 0.75, 0.25]
    assert torch.equal(first["boxes"], torch.cat([targets[0]["boxes"], targets[1]["boxes"]]))
    assert second["labels"].tolist() == [2]  # a partner of weight 0 brings nothing
    assert [first["image_id"], second["image_id"]] == [0, 1]
    assert "weights" not in targets[0]


@pytest.mark.parametrize(
    ("box", "own", "partners"),
    [
        ((0, 0, 8, 6), (0, 0, 4, 6), (4, 0, 8, 6)),  # the right half is cut
        ((0, 0, 4, 6), (0, 0, 4, 6), None),  # wholly in the own half
        ((4, 1, 8, 3), None, (4, 1, 8, 3)),  # wholly in the partner's
        ((2, 1, 6, 3), (2, 1, 4, 3), (4, 1, 6, 3)),  # half and half: both are clipped
        ((3.5, 1, 4.05, 3), (3.5, 1, 4, 3), None),  # 9% of it: dropped
    ],
)
def test_under_a_paste_boxes_are_clipped_and_dropped_by_what_is_seen(box, own, partners) -> None:
    plan = paste(0, H, 4, W)
    empty = boxes()
    for targets, wanted in ((images(boxes(box), empty), own), (images(empty, boxes(box)), partners)):
        mixed = mix_objects(targets, plan)[0]
        expected = boxes() if wanted is None else boxes(wanted)
        torch.testing.assert_close(mixed["boxes"], expected)
        assert len(mixed["labels"]) == len(expected) == len(mixed["weights"])
        assert (mixed["weights"] == 1).all()


def test_a_hole_in_the_middle_leaves_the_box_as_it_is() -> None:
    mixed = mix_objects(images(boxes((0, 0, 8, 6)), boxes()), paste(2, 4, 3, 5))[0]
    assert torch.equal(mixed["boxes"], boxes((0, 0, 8, 6)))


@pytest.mark.parametrize(("min_visible", "stays"), [(0.0, True), (0.5, True), (0.6, False), (1.0, False)])
def test_the_share_that_has_to_be_seen_is_an_argument(min_visible: float, stays: bool) -> None:
    targets = images(boxes((2, 1, 6, 3)), boxes())
    mixed = mix_objects(targets, paste(0, H, 4, W), min_visible=min_visible)[0]
    assert len(mixed["boxes"]) == stays


def test_the_area_of_an_object_shrinks_with_its_box() -> None:
    targets = [
        {"boxes": boxes((2, 1, 6, 3)), "area": torch.tensor([6.0])},
        {"boxes": boxes(), "area": torch.zeros(0)},
    ]
    mixed = mix_objects(targets, paste(0, H, 4, W))
    assert [target["area"].tolist() for target in mixed] == [[3.0], [3.0]]


def test_height_is_not_width() -> None:
    mixed = mix_objects(images(boxes((0, 0, 8, 6)), boxes((0, 0, 8, 6))), paste(4, H, 0, W))[0]
    assert torch.equal(mixed["boxes"], boxes((0, 0, 8, 4), (0, 4, 8, 6)))


def test_instance_masks_are_pasted_and_key_points_that_are_covered_are_marked() -> None:
    def one(x: float) -> dict[str, Tensor]:
        return {
            "boxes": boxes((0, 0, 8, 6)),
            "masks": torch.ones(1, H, W, dtype=torch.uint8),
            "keypoints": torch.tensor([[[x, 2.0, 2.0], [1.0, 1.0, 1.0]]]),
        }

    first, _ = mix_objects([one(6.0), one(7.0)], paste(0, H, 4, W))
    assert first["masks"][0, :, :4].all()
    assert not first["masks"][0, :, 4:].any()
    assert first["masks"][1, :, 4:].all()
    assert first["keypoints"][:, :, 2].tolist() == [[0.0, 1.0], [2.0, 0.0]]


def test_an_object_of_which_no_point_is_seen_is_dropped() -> None:
    points = [{"keypoints": torch.tensor([[[x, 2.0, 1.0]]])} for x in (6.0, 7.0)]
    first, second = mix_objects(points, paste(0, H, 4, W))
    assert first["keypoints"][:, 0, 0].tolist() == [7.0]
    assert second["keypoints"][:, 0, 0].tolist() == [6.0]


def test_an_image_that_is_not_mixed_keeps_its_objects_as_they_are() -> None:
    kept = {
        "boxes": boxes((-2, 0, W + 3, 4), (2, 2, 2, 5)),  # one reaches outside, one is of no width
        "keypoints": torch.zeros(2, 1, 3),  # not labelled
    }
    drawn, identity = paste(0, H, 4, W).only(torch.tensor([False, True])), MixPlan.identity(2)
    for plan in (drawn, identity):
        untouched = mix_objects([kept, kept], plan)[0]
        assert torch.equal(untouched["boxes"], kept["boxes"])
        assert torch.equal(untouched["keypoints"], kept["keypoints"])
        assert untouched["weights"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("plan", ["paste", "blend"])
def test_an_image_that_is_its_own_partner_keeps_its_objects_as_they_are(plan: str) -> None:
    """As one weight or one box for the batch has it: whatever the weight, the image is the same."""
    targets = images(boxes((0, 0, 4, 4)), boxes((3, 3, 8, 6)), boxes((1, 1, 7, 5)))
    for place, objects in enumerate(targets):
        objects["keypoints"] = torch.tensor([[[2.0, 2, 2], [6, 4, 2]]]) + place
    mask = None if plan == "blend" else paste(0, 6, 4, 8).mask[:1]
    mixed = mix_objects(targets, MixPlan(torch.tensor([0, 2, 1]), torch.full((3,), 0.5), mask))
    for name in ("boxes", "labels", "keypoints"):
        assert torch.equal(mixed[0][name], targets[0][name])
    assert mixed[0]["weights"].tolist() == [1]
    assert len(mixed[1]["boxes"]) == 2


def test_the_area_is_made_small_with_its_image() -> None:
    x, mixer = torch.rand(2, 3, H, W), ResizeMix((0.5, 0.5), partner="roll", seed=0)
    targets = [{**o, "area": torch.tensor([48.0])} for o in images(boxes((0, 0, W, H)), boxes((0, 0, W, H)))]
    for mixed in mix_objects(targets, mixer.plan(x)):
        assert mixed["area"].tolist() == [36, 12]  # of three quarters, and of a quarter


def test_an_object_of_which_nothing_but_its_box_is_seen_is_dropped() -> None:
    corner = torch.zeros(1, H, W, dtype=torch.uint8)
    corner[0, 0], corner[0, :, 0] = 1, 1  # an L, whose box is the whole image
    one = {"boxes": boxes((0, 0, W, H)), "labels": torch.tensor([1]), "masks": corner}
    none = {"boxes": boxes(), "labels": torch.zeros(0, dtype=torch.int64), "masks": corner[:0]}
    hidden = mix_objects([none, one], paste(3, 6, 4, 8))[0]  # of which the L shows nothing
    shown = mix_objects([none, one], paste(0, 3, 4, 8))[0]
    assert [len(part["boxes"]) for part in (hidden, shown)] == [0, 1]


def test_each_image_is_made_small_to_its_own_window() -> None:
    targets = images(boxes((0, 0, 8, 6)), boxes((0, 0, 8, 6)))
    mask = torch.zeros(1, 1, H, W, dtype=torch.bool)  # one for both
    windows = torch.tensor([[0, 6, 0, 8], [0, 3, 0, 4]])
    mixed = mix_objects(targets, MixPlan(torch.tensor([1, 0]), torch.zeros(2), mask, windows))
    assert [part["boxes"].tolist() for part in mixed] == [[[0, 0, 8, 6]], [[0, 0, 4, 3]]]


def test_whole_numbers_are_made_small_as_floats_are() -> None:
    x, mixer = torch.rand(2, 3, H, W), ResizeMix((0.5, 0.5), partner="roll", seed=0)
    targets = images(boxes((0, 0, 4, 4)), boxes((3, 3, 8, 6)))
    for objects in targets:
        objects["keypoints"] = torch.tensor([[[2.0, 2, 2], [6, 4, 2]]])
    plan = mixer.plan(x)
    whole = [{**o, "boxes": o["boxes"].long(), "keypoints": o["keypoints"].long()} for o in targets]
    for got, wanted in zip(mix_objects(whole, plan), mix_objects(targets, plan), strict=True):
        assert len(got["boxes"]) == len(wanted["boxes"]) == 2
        assert torch.equal(got["keypoints"], wanted["keypoints"])


def test_a_partner_that_is_made_small_takes_its_objects_with_it() -> None:
    plan = ResizeMix(partner="roll", seed=2).plan(torch.rand(2, 3, H, W))
    top, bottom, left, right = plan.window[0].tolist()
    assert plan.partner.tolist() == [1, 0]
    masks = torch.zeros(1, H, W, dtype=torch.uint8)
    masks[:, : H // 2] = 1  # the upper half
    whole = {
        "boxes": boxes((0, 0, W, H)),
        "keypoints": torch.tensor([[[W / 2, H / 2, 2.0]]]),
        "masks": masks,
    }
    empty = {"boxes": boxes(), "keypoints": torch.zeros(0, 1, 3), "masks": masks[:0]}
    mixed = mix_objects([empty, whole], plan)[0]
    torch.testing.assert_close(mixed["boxes"], boxes((left, top, right, bottom)))
    torch.testing.assert_close(
        mixed["keypoints"][0, 0, :2], torch.tensor([(left + right) / 2, (top + bottom) / 2])
    )
    place = mixed["masks"][0].nonzero()
    assert place.min(0).values.tolist() == [top, left]
    assert int(place[:, 1].max()) == right - 1
    assert top <= int(place[:, 0].max()) < bottom


@pytest.mark.parametrize("mixer", [Mixup(1.0, seed=1), CutMix(1.0, seed=1), Mixup(p=0.0, seed=1)])
def test_a_detection_batch_is_known_by_its_boxes_and_passes_through_a_mixer(mixer: Any) -> None:
    x = torch.rand(2, 3, H, W, generator=torch.Generator().manual_seed(0))
    plan = type(mixer)(1.0, seed=1).plan(x) if mixer.p else MixPlan.identity(2)
    targets = images(boxes((0, 0, 4, 4)), boxes((3, 3, 8, 6)))
    _, mixed = mixer(x, targets)
    for got, wanted in zip(mixed, mix_objects(targets, plan), strict=True):
        assert torch.equal(got["boxes"], wanted["boxes"])
        assert torch.equal(got["weights"], wanted["weights"])


@pytest.mark.parametrize(
    ("argument", "targets", "plan"),
    [
        ("targets takes one dict", images(boxes()), blended(0.5, 0.5)),
        ("targets[1] takes a dict", [*images(boxes()), {"labels": 1}], blended(0.5, 0.5)),
        ("targets[0]['boxes'] takes", images(torch.rand(3), boxes()), blended(0.5, 0.5)),
        ("targets takes 'boxes'", [*images(boxes()), {"keypoints": torch.rand(1, 1, 3)}], blended(0.5, 0.5)),
        ("plan takes a MixPlan", images(boxes(), boxes()), CutMix(seed=0)),
        (
            "targets[0]['labels'] takes a tensor with an entry for each object",
            [{"boxes": boxes((0, 0, 4, 4)), "labels": [1]}, {"boxes": boxes(), "labels": []}],
            blended(0.5, 0.5),
        ),
        (
            "targets[1]['masks'] takes a tensor with an entry for each object",
            [{"boxes": boxes((0, 0, 4, 4)), "masks": torch.ones(1, H, W)}, {"boxes": boxes()}],
            paste(0, 6, 4, 8),
        ),
        (
            "targets takes boxes of left, top, right, bottom in pixels",
            images(boxes((0, 0, 4, 4)), boxes((5, 3, 2, 2))),  # centre and size
            paste(0, 6, 4, 8),
        ),
        (
            "targets takes boxes of left, top, right, bottom in pixels",
            images(boxes((0.1, 0.2, 0.4, 0.4)), boxes((0, 0, 1, 1))),  # shares of the image
            paste(0, 6, 4, 8),
        ),
        (
            "targets[1]['boxes'] takes the format XYXY, as targets[0] has, got XYWH: torchvision's",
            images(of_torchvision("XYXY"), of_torchvision("XYWH")),
            paste(0, 6, 4, 8),
        ),
        (
            "targets[0]['class_labels'] takes a tensor with an entry for each object",
            [{"boxes": boxes((0, 0, 4, 4)), "class_labels": 3}] * 2,
            blended(0.5, 0.5),
        ),
        (
            f"targets[1]['masks'] takes (N, {H}, {W}), the size of all images, got float32 tensor (1, 3, 4)",
            [*with_masks((H, W)), *with_masks((3, 4))],
            paste(0, 6, 4, 8),
        ),
        (
            "targets[1]['masks'] takes (N, 3, 4), the size of all images, got",
            [*with_masks((3, 4)), *with_masks((H, W))],
            blended(0.5, 0.5),
        ),
        (
            "plan takes",
            images(boxes(), boxes()),
            MixPlan(torch.tensor([1, 0]), torch.ones(2), torch.ones(2, 1, H, W)),
        ),
    ],
)
def test_what_cannot_be_joined_is_named(argument: str, targets: list, plan: MixPlan) -> None:
    with pytest.raises(MixError) as caught:
        mix_objects(targets, plan)
    assert str(caught.value).startswith(argument)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [0, 1])
def test_an_image_without_annotations_is_named_and_takes_boxes_of_no_rows(place: int) -> None:
    x = torch.rand(2, 3, H, W, generator=torch.Generator().manual_seed(0))
    targets = images(boxes((0, 0, 4, 4)), boxes((0, 0, 4, 4)))
    targets[place] = {"image_id": 7}
    mixer = CutMix(1.0, partner="roll", seed=1)
    with pytest.raises(
        MixError, match=rf"^y: targets\[{place}\] takes a dict with 'boxes' .*, of no rows where"
    ):
        mixer(x, targets)
    targets[place] |= {"boxes": boxes(), "labels": torch.zeros(0, dtype=torch.int64)}
    assert [len(part["boxes"]) == len(part["labels"]) for part in mixer(x, targets)[1]] == [True, True]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("path", "make", "got"),
    [
        ("y", lambda b: [{"bboxes": b, "labels": b[:, 0].long()}] * 2, "'bboxes'"),
        ("y.gt", lambda b: {"gt": ({"GT_BBOX": b},) * 2}, "'GT_BBOX'"),
        ("y.boxes", lambda b: {"boxes": [b, b], "labels": [b[:, 0].long()] * 2}, "a list of boxes alone"),
    ],
)
def test_boxes_by_another_name_are_told_theirs(path: str, make: Any, got: str, count: int) -> None:
    """As many boxes as images would be taken for a target of each."""
    y = make(torch.rand(count, 4))
    with pytest.raises(
        MixError, match=rf"^{path} takes boxes as a list of dicts, .* that have 'boxes'.*, got {got}$"
    ):
        CutMix(seed=0)(torch.rand(2, 3, H, W), y)
    assert CutMix(seed=0)(torch.rand(2, 3, H, W), y, kinds={"y": "pass"})[1] is y


def test_objects_without_weights_count_in_full() -> None:
    targets = images(boxes((0, 0, 4, 4)), boxes((3, 3, 8, 6)))
    for plan in (blended(0.75, 0.5), paste(0, 6, 4, 8), MixPlan.identity(2)):
        wanted = mix_objects(targets, plan)
        for got, other in zip(mix_objects(targets, plan, weighted=False), wanted, strict=True):
            assert got.keys() == other.keys() - {"weights"}
            assert torch.equal(got["boxes"], other["boxes"])
    own = [{**one, "weights": torch.tensor([0.5])} for one in targets]  # which stay the objects' own
    assert mix_objects(own, blended(0.75, 0.5), weighted=False)[0]["weights"].tolist() == [0.5, 0.5]


def test_a_mixer_that_hands_boxes_on_goes_with_the_plan_that_it_replays() -> None:
    """As DETR's labels have it: shares of the image, around a middle."""
    x, mixer = torch.rand(2, 3, H, W), CutMix(1.0, seed=1)
    labels = [
        {"class_labels": torch.tensor([i]), "boxes": torch.tensor([[0.5, 0.5, 0.5, 1.0]])} for i in range(2)
    ]
    plan = mixer.plan(x)
    _, y = mixer({"pixel_values": x}, {"labels": labels}, plan=plan, kinds={"y.labels": "pass"})
    assert y["labels"] is labels
    for got in mix_objects(labels, plan, form="cxcywh", normalized=True):
        assert len(got["boxes"]) == len(got["class_labels"]) == len(got["weights"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda targets, plan: (None, plan), r"targets takes a list of dicts, one an image, got None"),
        (
            lambda targets, plan: (targets, TabularCutMix(seed=0).plan(torch.rand(2, 5))),
            r"plan takes one of images \(B, C, H, W\) for boxes, got one whose mask is bool tensor \(2, 5\)",
        ),
        (
            lambda targets, plan: ([t | {"ids": torch.rand(1, 2 + i)} for i, t in enumerate(targets)], plan),
            r"targets\[1\]\['ids'\] takes \(N, 2\) as targets\[0\] has, got float32 tensor \(1, 3\)",
        ),
    ],
)
def test_what_cannot_be_joined_is_named_in_one_line(change: Any, message: str) -> None:
    targets, plan = change(images(boxes((1, 1, 4, 4)), boxes((0, 0, 2, 2))), blended(0.75, 0.5))
    with pytest.raises(MixError, match=f"^{message}$"):
        mix_objects(targets, plan)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "yolo"}, r"^form takes one of 'xyxy', 'xywh', 'cxcywh', got 'yolo'$"),
        ({"normalized": 1}, r"^normalized takes True or False, got 1$"),
        ({"weighted": None}, r"^weighted takes True or False, got None$"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MixError, match=message):
        mix_objects(images(boxes(), boxes()), blended(0.5, 0.5), **options)


def test_a_box_that_is_seen_whole_stays_whatever_has_to_be_seen() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 500, 2, generator=generator, dtype=torch.float64) * torch.tensor([3.9, 5.9])
    whole = {"boxes": torch.cat([corners.amin(0), corners.amax(0)], 1)}
    first = mix_objects([whole, {"boxes": boxes().double()}], paste(0, H, 4, W), min_visible=1.0)[0]
    assert len(first["boxes"]) == 500
