"""Boxes and key points as they may be written: corners, middles, sides; pixels or shares of the image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from made_up_objects import H, W, blended, boxes, images, of_torchvision, paste
from torch import Tensor
from torchvision.ops import box_convert

from batchmix import MixError, ResizeMix
from batchmix.core.objects import mix_objects


@pytest.mark.parametrize("form", ["XYXY", "XYWH", "CXCYWH"])
def test_boxes_that_say_their_form_are_taken_where_it_does_not_matter(form: str) -> None:
    targets = images(of_torchvision(form), of_torchvision(form))
    assert [len(part["boxes"]) for part in mix_objects(targets, blended(0.75, 0.5))] == [2, 2]
    plain = images(of_torchvision(form).as_subclass(Tensor), of_torchvision(form).as_subclass(Tensor))
    plan = paste(0, 6, 3, 8)
    wanted = mix_objects(plain, plan, form=form.lower())
    for given in (None, form.lower()):
        for got, other in zip(mix_objects(targets, plan, form=given), wanted, strict=True):
            assert got["boxes"].tolist() == other["boxes"].tolist()
    if form != "XYXY":
        with pytest.raises(
            MixError, match=rf"^targets\[0\]\['boxes'\] takes the format XYXY, as form says, got {form}: "
        ):
            mix_objects(targets, plan, form="xyxy")


def test_boxes_of_two_formats_are_not_joined() -> None:
    for plan in (blended(0.75, 0.5), paste(0, 6, 3, 8)):
        for other in (of_torchvision("CXCYWH"), boxes((2, 1, 4, 3))):
            with pytest.raises(MixError, match=r"^targets\[1\].* takes the format XYWH, as targets\[0\] has"):
                mix_objects(images(of_torchvision("XYWH"), other), plan)
        joined = mix_objects(images(of_torchvision("XYWH"), boxes()), plan)  # of no rows: of any form
        assert len(joined) == 2


def written(pixels: Tensor, form: str, normalized: bool) -> Tensor:
    """The oracle's way to write boxes, from left, top, right, bottom in pixels."""
    out = box_convert(pixels.double(), "xyxy", form)
    return (out / torch.tensor([W, H, W, H]) if normalized else out).float()


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("form", ["xyxy", "xywh", "cxcywh"])
@pytest.mark.parametrize("resized", [False, True])
def test_boxes_of_every_form_are_cut_as_corners_in_pixels_are(
    form: str, normalized: bool, resized: bool
) -> None:
    corners = [
        boxes((0, 0, 8, 6), (2, 1, 6, 3), (6.5, 2, 7, 5)),
        boxes((1.5, 0.25, 4.75, 5.5), (-1, 2, 5, 7)),
    ]
    plan = paste(1, 5, 3, 8)
    if resized:
        plan = ResizeMix((0.5, 0.5), partner="roll", seed=0).plan(torch.rand(2, 3, H, W))
    more = [{"area": torch.arange(1.0, len(each) + 1)} for each in corners]
    plain = [{**one, **rest} for one, rest in zip(images(*corners), more, strict=True)]
    other = [{**one, "boxes": written(one["boxes"], form, normalized)} for one in plain]
    mixed = mix_objects(other, plan, form=form, normalized=normalized)
    for got, wanted in zip(mixed, mix_objects(plain, plan), strict=True):
        assert got["boxes"].dtype == torch.float32
        torch.testing.assert_close(got["boxes"], written(wanted["boxes"], form, normalized))
        assert len(got["boxes"]) > 1
        for name in ("labels", "weights"):
            assert torch.equal(got[name], wanted[name])
        torch.testing.assert_close(got["area"], wanted["area"])


@pytest.mark.parametrize("form", ["xywh", "cxcywh"])
def test_images_that_are_not_mixed_keep_boxes_of_every_form_to_the_bit(form: str) -> None:
    one = torch.rand(5, 4, generator=torch.Generator().manual_seed(0))
    plan = paste(1, 5, 3, 8).only(torch.tensor([False, True]))
    mixed = mix_objects(images(one, one), plan, form=form, normalized=True)
    assert torch.equal(mixed[0]["boxes"], one)


def test_whole_numbers_around_a_middle_become_floats() -> None:
    whole = torch.tensor([[4, 3, 3, 3]])
    mixed = mix_objects(images(whole, whole), paste(0, 6, 4, 8), form="cxcywh")
    assert mixed[0]["boxes"].tolist() == [[3.25, 3, 1.5, 3], [4.75, 3, 1.5, 3]]


def test_boxes_of_any_form_are_joined_where_images_are_blended() -> None:
    targets = images(boxes((0.5, 0.5, 0.2, 0.4)), boxes((0.3, 0.3, 0.1, 0.1)))
    joined = mix_objects(targets, blended(0.75, 0.5))
    assert [part["boxes"].tolist() for part in joined] == [
        [*targets[0]["boxes"].tolist(), *targets[1]["boxes"].tolist()],
        [*targets[1]["boxes"].tolist(), *targets[0]["boxes"].tolist()],
    ]


@pytest.mark.parametrize(
    ("options", "rows", "message"),
    [
        (
            {"form": "xywh"},
            (1.0, 1, -2, 2),
            r"left, top, width, height in pixels .*, got some whose width or",
        ),
        (
            {"form": "cxcywh"},
            (0.5, 0.5, 0.2, 0.2),
            r"middle, width, height in pixels .*, got shares of the im",
        ),
        (
            {"normalized": True},
            (1.0, 1, 4, 5),
            r"left, top, right, bottom in shares .*, got numbers up to 5$",
        ),
    ],
)
def test_boxes_that_are_not_of_the_form_given_are_refused(
    options: dict[str, Any], rows: tuple[float, ...], message: str
) -> None:
    with pytest.raises(MixError, match=f"^targets takes boxes of {message}"):
        mix_objects(images(boxes(rows), boxes(rows)), paste(0, 6, 4, 8), **options)


def test_key_points_that_are_shares_are_cut_where_their_pixels_are() -> None:
    """A file of YOLO's poses has both as shares."""
    plan, size = paste(0, H, 4, W), torch.tensor([W, H, 1.0])
    pixels = [
        {"boxes": boxes((0, 0, 8, 6)), "keypoints": torch.tensor([[[x, 2.0, 2.0], [1.0, 1.0, 1.0]]])}
        for x in (6.0, 7.0)
    ]
    shares = [{"boxes": o["boxes"] / size[[0, 1, 0, 1]], "keypoints": o["keypoints"] / size} for o in pixels]
    for got, wanted in zip(
        mix_objects(shares, plan, normalized=True), mix_objects(pixels, plan), strict=True
    ):
        torch.testing.assert_close(got["keypoints"] * size, wanted["keypoints"])
        assert got["keypoints"].dtype == torch.float32


def test_key_points_of_another_unit_are_refused() -> None:
    points = torch.tensor([[[0.9, 0.2, 2.0], [5.0, 5.0, 0.0]]])  # the last cannot be seen
    with pytest.raises(
        MixError, match=r"^targets takes key points in pixels [^\n]*, got shares of the image$"
    ):
        mix_objects([{"keypoints": points}] * 2, paste(0, H, 4, W))
    points = torch.tensor([[[6.0, 2.0, 2.0]]])
    with pytest.raises(MixError, match=r"^targets takes key points in shares [^\n]*, got numbers up to 6$"):
        mix_objects([{"keypoints": points}] * 2, paste(0, H, 4, W), normalized=True)
