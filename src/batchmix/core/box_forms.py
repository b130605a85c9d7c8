"""How boxes and key points are written, and the way to pixels and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from batchmix.core.sampling import check_choice
from batchmix.errors import MixError
from batchmix.kernels.layout import widest_on

Entries = dict[str, Tensor]

BoxForm = Literal["xyxy", "xywh", "cxcywh"]
"""How the four numbers of a box are written, by the names that torchvision gives them:

- ``"xyxy"``: left, top, right, bottom;
- ``"xywh"``: left, top, width, height, as COCO has it; what Ultralytics calls so is ``"cxcywh"`` here;
- ``"cxcywh"``: x and y of the middle, width, height.
"""

_WRITTEN: dict[BoxForm, str] = {
    "xyxy": "left, top, right, bottom",
    "xywh": "left, top, width, height",
    "cxcywh": "middle, width, height",
}


def form_of(entries: Sequence[Entries], given: BoxForm | None) -> BoxForm:
    """How all boxes are written: as given, or as those of torchvision say, which they do not once joined."""
    said = {}
    for place, image in enumerate(entries):
        own = getattr(getattr(image["boxes"], "format", None), "name", None)
        if len(image["boxes"]):  # none are of any form
            said[place] = str(own or given or "xyxy").lower()
    form: Any = given or next(iter(said.values()), "xyxy")
    for place, own in said.items():
        if own != form:
            wanted = "form says" if given else f"targets[{next(iter(said))}] has"
            raise MixError(
                f"targets[{place}]['boxes'] takes the format {form.upper()}, as {wanted}, got {own.upper()}: "
                f"torchvision's v2.ConvertBoundingBoxFormat({form.upper()!r}) converts them"
            )
    check_choice("form", form, get_args(BoxForm))
    found: BoxForm = form
    return found


def to_pixels(entries: Entries, form: BoxForm, scale: tuple[int, int] | None) -> Entries:
    """The objects with boxes (N, 4) as left, top, right, bottom, and key points too, in pixels.

    ``scale`` is the width and height of the images where boxes and key points are shares of them.
    """
    entries = dict(entries)
    if "boxes" in entries:
        wide = entries["boxes"].to(widest_on(entries["boxes"].device))
        first, second = wide[:, :2], wide[:, 2:]
        if form == "cxcywh":
            first = first - second / 2
        if form != "xyxy":
            second = first + second
        corners = torch.cat([first, second], 1)
        entries["boxes"] = corners if scale is None else corners * corners.new_tensor([*scale, *scale])
    if "keypoints" in entries and scale is not None:
        wide = entries["keypoints"].to(widest_on(entries["keypoints"].device))
        entries["keypoints"] = wide * wide.new_tensor([*scale, 1])
    return entries


def from_pixels(entries: Entries, form: BoxForm, scale: tuple[int, int] | None, *, like: Entries) -> Entries:
    """The way back, with the dtypes of ``like``."""
    entries = dict(entries)
    if "boxes" in entries:
        boxes = entries["boxes"]
        if scale is not None:
            boxes = boxes / boxes.new_tensor([*scale, *scale])
        if form != "xyxy":
            first, second = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
            boxes = torch.cat([first + second / 2 if form == "cxcywh" else first, second], 1)
        entries["boxes"] = boxes.to(like["boxes"].dtype)
    if "keypoints" in entries and scale is not None:
        points = entries["keypoints"]
        entries["keypoints"] = (points / points.new_tensor([*scale, 1])).to(like["keypoints"].dtype)
    return entries


def with_floats(entries: Entries) -> Entries:
    """The middle of a box, and what is left of a small one, is no whole number."""
    boxes = entries.get("boxes")
    return entries if boxes is None or boxes.is_floating_point() else entries | {"boxes": boxes.float()}


def check_units(entries: Sequence[Entries], form: BoxForm, normalized: bool) -> None:
    """Boxes that are written in another way, and key points, would be cut in the wrong places."""
    if "boxes" in entries[0]:
        _check_boxes(torch.cat([image["boxes"] for image in entries]), form, normalized)
    if "keypoints" in entries[0]:
        points = torch.cat([image["keypoints"].flatten(0, 1) for image in entries])
        _check_points(points[points[:, 2] > 0, :2], normalized)


def _check_points(points: Tensor, normalized: bool) -> None:
    """Key points (N, 2) that can be seen."""
    end = points.max().item() if len(points) else None
    if end is None or (end <= 2 if normalized else end > 1):  # one may lie outside, but not so far
        return
    shares, numbers = "shares of the image", f"numbers up to {end:g}"
    unit, got = (shares, numbers) if normalized else ("pixels", shares)
    raise MixError(
        f"targets takes key points in {unit} where images are pasted, or normalized of bm.mix_objects that "
        f"says what they are, got {got}"
    )


def _check_boxes(boxes: Tensor, form: BoxForm, normalized: bool) -> None:
    """Boxes (N, 4)."""
    if not len(boxes):
        return
    sides = boxes[:, 2:] - boxes[:, :2] if form == "xyxy" else boxes[:, 2:]
    side, end = torch.stack([sides.min(), boxes.max()]).tolist()  # one question to the device for both
    got = ""
    if side < 0:
        first = "right or bottom comes first" if form == "xyxy" else "width or height is negative"
        got = f"some whose {first}"
    elif not normalized and end <= 1:
        got = "shares of the image"
    elif normalized and end > 2:  # a box may reach outside, but not so far
        got = f"numbers up to {end:g}"
    if got:
        unit = "shares of the image" if normalized else "pixels"
        raise MixError(
            f"targets takes boxes of {_WRITTEN[form]} in {unit} where images are pasted, or form and "
            f"normalized of bm.mix_objects that say what they are, got {got}"
        )
