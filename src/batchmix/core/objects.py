"""Boxes and key points of a mixed image: those of both images, as far as they can be seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from batchmix.core.box_forms import (
    BoxForm,
    Entries,
    check_units,
    form_of,
    from_pixels,
    to_pixels,
    with_floats,
)
from batchmix.core.plan import MixPlan, check_is_plan, describe
from batchmix.core.resizing import resize_into
from batchmix.core.sampling import check_choice, check_flag, check_probability
from batchmix.errors import MixError
from batchmix.kernels.layout import widest_on

Objects = Mapping[str, Any]
OF_IMAGE = ("image_id", "size", "orig_size")
"""Entries of an image that may happen to be as long as it has objects."""

OF_OBJECT = ("labels", "class_labels", "masks", "area", "iscrowd")
"""Entries that would no longer belong to the boxes, if they stayed as they are."""


def mix_objects(
    targets: Sequence[Objects],
    plan: MixPlan,
    *,
    min_visible: float = 0.1,
    form: BoxForm | None = None,
    normalized: bool = False,
    weighted: bool = True,
) -> list[dict[str, Any]]:
    """Join the objects of every image with its partner's.

    Where images are blended, all objects of both stay, with the weight of their image. Where they are pasted,
    a box is clipped to the rectangle around what is left of it, and dropped where less than ``min_visible``
    of its area is; a key point that is covered is marked as not visible (x, y, v). An object is dropped too
    of whose mask nothing can be seen or, where there are no boxes, none of its points. An image that is not
    mixed keeps all it has, in either case.

    Args:
        targets: For each image of the batch a dict, as torchvision's detection models take it: ``"boxes"``
            (N, 4), of the form below, or ``"keypoints"`` (N, K, 3), x, y and visibility, or both;
            whatever other tensor has one entry an object in every image, such as ``"labels"`` (N,), goes with
            them, ``"masks"`` (N, H, W) are pasted, and ``"area"`` (N,) shrinks with its box. All else
            (``"image_id"``) stays the image's.
        plan: The plan that mixed the images.
        min_visible: Share of a box's area, in [0, 1].
        form: How boxes are written, in and out: ``"xyxy"`` (left, top, right, bottom), ``"xywh"`` (left, top,
            width, height) or ``"cxcywh"`` (middle, width, height; Ultralytics' "xywh"). If left out:
            the ``format`` of torchvision's ``BoundingBoxes``, ``"xyxy"`` for other tensors.
        normalized: Whether boxes and key points are shares of the width and height of the images as they were
            mixed, (H, W) with their padding, and not pixels: ``form="cxcywh", normalized=True`` is that of
            YOLO's files and of transformers' detectors. Where images are blended, neither this nor the form
            matters.
        weighted: Whether objects get ``"weights"``; without, all of both images count in full.

    Returns:
        New dicts, with ``"weights"`` (N,) float32, ``lam`` or ``1 - lam`` where images are blended, 1 where
        they are pasted. Boxes are of the form that they had; those of torchvision become plain tensors, and
        whole numbers float32 where they had to be converted. The number of objects is asked of the device.

    Raises:
        MixError: If a dict has neither boxes nor key points, or no tensor of labels, masks, areas or crowds
            where another has one; if boxes to be clipped are not of the form above, or key points not in its
            unit, boxes of torchvision not of one format, masks not of one size, or entries not of one shape;
            or if the plan pastes no images, or blends each position by a weight of its own.

    Example:
        >>> one = {"boxes": torch.tensor([[0.0, 0.0, 4.0, 4.0]]), "labels": torch.tensor([3])}
        >>> two = {"boxes": torch.tensor([[2.0, 2.0, 6.0, 6.0]]), "labels": torch.tensor([5])}
        >>> plan = MixPlan(torch.tensor([1, 0]), torch.tensor([0.75, 1.0]))
        >>> first, second = mix_objects([one, two], plan)
        >>> first["labels"].tolist(), first["weights"].tolist(), second["labels"].tolist()
        ([3, 5], [0.75, 0.25], [5])

    Beside a mixer, for boxes that it would take for pixels:
        >>> import batchmix as bm
        >>> mixer, x = bm.CutMix(1.0, seed=0), torch.rand(2, 3, 8, 8)
        >>> objects = [{"boxes": torch.tensor([[0.5, 0.5, 0.4, 0.2]]), "labels": torch.tensor([3])}] * 2
        >>> plan = mixer.plan(x)
        >>> x, y = mixer(x, objects, plan=plan, kinds={"y": "pass"})
        >>> y = mix_objects(y, plan, form="cxcywh", normalized=True)
    """
    check_probability(min_visible, "min_visible")
    if form is not None:
        check_choice("form", form, get_args(BoxForm))
    check_flag("normalized", normalized)
    check_flag("weighted", weighted)
    check_is_plan(plan)
    if not isinstance(targets, Sequence):
        raise MixError.of("targets", targets, "a list of dicts, one an image")
    if len(targets) != len(plan):
        raise MixError(f"targets takes one dict an image: {len(plan)}, got {len(targets)}")
    for place, objects in enumerate(targets):
        _check_objects(f"targets[{place}]", objects)
    if plan.mask is not None and plan.mask.dtype != torch.bool:
        raise MixError(
            "plan takes one that pastes or blends whole images for boxes (a Choice of both takes "
            "per='batch'), got one with a soft mask"
        )
    if plan.mask is not None and plan.mask.dim() != 4:
        raise MixError(
            f"plan takes one of images (B, C, H, W) for boxes, got one whose mask is {describe(plan.mask)}"
        )
    entries = _entries(targets)
    written = form_of(entries, form) if "boxes" in targets[0] else "xyxy"
    pixels, scale = entries, None
    if plan.mask is not None:
        check_units(entries, written, normalized)
        scale = (plan.mask.shape[-1], plan.mask.shape[-2]) if normalized else None
        plan = plan.to(_ones(entries[0]).device)  # objects may have stayed on the CPU
    converts = plan.mask is not None and (written != "xyxy" or normalized)
    if converts:
        entries = [with_floats(image) for image in entries]
        pixels = [to_pixels(image, written, scale) for image in entries]
    if "masks" in entries[0]:
        _check_masks(entries, None if plan.mask is None else tuple(plan.mask.shape[-2:]))
    mixed: list[dict[str, Any]] = []
    rows = zip(plan.partner.tolist(), plan.lam.tolist(), _unmixed(plan), strict=True)
    for place, (partner, lam, stays) in enumerate(rows):
        if plan.mask is None or stays:
            parts = [entries[place], entries[partner]]
            weights = [1.0, 0.0] if stays else [lam, 1 - lam]
            parts = [part if weight else _none_of(part) for part, weight in zip(parts, weights, strict=True)]
        else:
            row = place if len(plan.mask) > 1 else 0
            own, others = plan.mask[row, 0], pixels[partner]
            if plan.window is not None:
                others = _resized(others, plan.window[place], tuple(own.shape))
            parts = [_visible(pixels[place], own, min_visible), _visible(others, ~own, min_visible)]
            weights = [1.0, 1.0]
        if weighted:
            weighed = zip(parts, weights, strict=True)
            parts = [part | {"weights": _ones(part) * weight} for part, weight in weighed]
        joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        if converts and not stays:
            joined = from_pixels(joined, written, scale, like=entries[place])
        mixed.append({**targets[place], **joined})
    return mixed


def _unmixed(plan: MixPlan) -> list[bool]:
    """Who stays as it is, whatever the weight: its own partner, not resized, or whose mask is all its own."""
    stays = torch.zeros_like(plan.partner, dtype=torch.bool)
    if plan.window is None:
        stays = plan.partner == torch.arange(len(plan), device=plan.device)
    if plan.mask is not None:
        stays = stays | plan.mask.flatten(1).all(1)
    unmixed: list[bool] = stays.tolist()
    return unmixed


def _none_of(entries: Entries) -> Entries:
    """No object, as where the weight of an image is 0."""
    return {name: entry[:0] for name, entry in entries.items()}


def _visible(entries: Entries, mask: Tensor, min_visible: float) -> Entries:
    """The objects that can be seen where ``mask`` (H, W) is true."""
    entries = dict(entries)
    keep = torch.ones(len(_ones(entries)), dtype=torch.bool, device=mask.device)
    if "masks" in entries:
        entries["masks"] = torch.where(mask, entries["masks"], torch.zeros_like(entries["masks"]))
    if "keypoints" in entries:
        entries["keypoints"], keep = _see_points(entries["keypoints"], mask)
    if "boxes" in entries:
        entries["boxes"], share = _see_boxes(entries["boxes"], mask)
        keep = (share > 0) & (share >= min_visible - 1e-6)  # a whole box is one of 1, but for rounding
        if "area" in entries:
            entries["area"] = entries["area"] * share.to(torch.float32)
    if "masks" in entries:
        keep = keep & (entries["masks"] != 0).flatten(1).any(1)
    return {name: entry[keep] for name, entry in entries.items()}


def _resized(entries: Entries, window: Tensor, size: tuple[int, ...]) -> Entries:
    """The objects of an image of this size, (H, W), that is made to fit a window of itself."""
    (height, width), (top, bottom, left, right) = size, window.tolist()
    across, down = (right - left) / width, (bottom - top) / height
    entries = dict(entries)
    for name in {"boxes", "keypoints"} & set(entries):  # whole numbers would take half of a window for none
        if not entries[name].is_floating_point():
            entries[name] = entries[name].float()
    if "area" in entries:
        entries["area"] = entries["area"] * (across * down)
    if "boxes" in entries:
        scale = entries["boxes"].new_tensor([across, down, across, down])
        entries["boxes"] = entries["boxes"] * scale + entries["boxes"].new_tensor([left, top, left, top])
    if "keypoints" in entries:
        scale = entries["keypoints"].new_tensor([across, down, 1])
        entries["keypoints"] = entries["keypoints"] * scale + entries["keypoints"].new_tensor([left, top, 0])
    if "masks" in entries and len(entries["masks"]):
        windows = window.expand(len(entries["masks"]), 4)
        entries["masks"] = resize_into(entries["masks"].unsqueeze(1), windows, nearest=True).squeeze(1)
    return entries


def _see_boxes(boxes: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4) cut down to what is true in ``mask`` (H, W), and the share of each that is.

    A pixel belongs to a box as far as the box covers it.
    """
    height, width = mask.shape
    wide = widest_on(boxes.device)
    left, top, right, bottom = boxes.to(wide).unbind(1)
    rows = _cover(top, bottom, height)  # (N, H): how much of each row the box covers
    columns = _cover(left, right, width)
    seen = mask.to(wide)
    area = torch.einsum("nh,hw,nw->n", rows, seen, columns)
    share = area / ((bottom - top) * (right - left)).clamp(min=1e-12)
    by_row = torch.einsum("nh,hw,nw->nh", rows, seen, columns) > 0
    by_column = torch.einsum("nh,hw,nw->nw", rows, seen, columns) > 0
    ends = [_ends(by_column, left, right), _ends(by_row, top, bottom)]
    clipped = torch.stack([ends[0][0], ends[1][0], ends[0][1], ends[1][1]], 1)
    return clipped.to(boxes.dtype), share


def _cover(start: Tensor, end: Tensor, size: int) -> Tensor:
    """How much of each of ``size`` pixels lies between start and end: (N, size)."""
    place = torch.arange(size, dtype=start.dtype, device=start.device)
    return (torch.minimum(end[:, None], place + 1) - torch.maximum(start[:, None], place)).clamp(min=0)


def _ends(seen: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """First and last pixel of a row that can be seen, no further out than the box was."""
    size = seen.shape[1]
    first = seen.int().argmax(1)
    last = size - seen.flip(1).int().argmax(1)
    return torch.maximum(start, first.to(start.dtype)), torch.minimum(end, last.to(end.dtype))


def _see_points(points: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Key points (N, K, 3) with those outside of ``mask`` (H, W) marked, and which objects are left."""
    height, width = mask.shape
    x, y = points[..., 0].floor().long(), points[..., 1].floor().long()
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    shown = inside & mask[y.clamp(0, height - 1), x.clamp(0, width - 1)] & (points[..., 2] > 0)
    marked = points.clone()
    marked[..., 2] = torch.where(shown, points[..., 2], torch.zeros_like(points[..., 2]))
    return marked, shown.any(1)


def _entries(targets: Sequence[Objects]) -> list[Entries]:
    """Of every image what has one entry an object, by the names that do so in all images."""

    def is_entry(objects: Objects, name: str) -> bool:
        value, count = objects.get(name), len(objects["boxes" if "boxes" in objects else "keypoints"])
        return isinstance(value, Tensor) and value.dim() > 0 and len(value) == count

    for key in ("boxes", "keypoints"):
        if len({key in objects for objects in targets}) > 1:
            raise MixError(f"targets takes {key!r} in every image or in none, got it in some")
    for name in OF_OBJECT:
        odd = [place for place, objects in enumerate(targets) if not is_entry(objects, name)]
        if odd and any(name in objects for objects in targets):
            raise MixError(
                f"targets[{odd[0]}][{name!r}] takes a tensor with an entry for each object, in all images or "
                f"in none, got {describe(targets[odd[0]].get(name))}"
            )
    names = [name for name in targets[0] if name not in OF_IMAGE and all(is_entry(t, name) for t in targets)]
    for name in set(names) - {"masks"}:  # of which the size of the images is asked
        like = targets[0][name].shape[1:]
        for place, objects in enumerate(targets):
            if objects[name].shape[1:] != like:
                wanted = ", ".join(("N", *map(str, like)))
                got = describe(objects[name])
                raise MixError(f"targets[{place}][{name!r}] takes ({wanted}) as targets[0] has, got {got}")
    return [{name: objects[name] for name in names} for objects in targets]


def _ones(entries: Entries) -> Tensor:
    first = entries["boxes"] if "boxes" in entries else entries["keypoints"]
    return torch.ones(len(first), dtype=torch.float32, device=first.device)


def _check_objects(name: str, objects: Any) -> None:
    if not isinstance(objects, Mapping) or not {"boxes", "keypoints"} & set(objects):
        raise MixError(
            f"{name} takes a dict with 'boxes' or 'keypoints', of no rows where there are none, "
            f"got {describe(objects)}"
        )
    for key, dims, last in (("boxes", 2, 4), ("keypoints", 3, 3)):
        value = objects.get(key)
        if value is not None and (
            not isinstance(value, Tensor) or value.dim() != dims or value.shape[-1] != last
        ):
            shape = "(N, 4)" if key == "boxes" else "(N, K, 3)"
            raise MixError(f"{name}[{key!r}] takes a tensor {shape}, got {describe(value)}")


def _check_masks(entries: Sequence[Entries], size: tuple[int, ...] | None) -> None:
    """Masks as large as what is pasted, or, where images are blended, as those of the other images."""
    like = size or entries[0]["masks"].shape[1:]
    for place, image in enumerate(entries):
        if image["masks"].shape[1:] != like:
            wanted = ", ".join(("N", *map(str, like)))
            raise MixError(
                f"targets[{place}]['masks'] takes ({wanted}), the size of all images, "
                f"got {describe(image['masks'])}"
            )
