"""One plan applied to every leaf of a batch, each by its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from batchmix.core.batches import Kind, Leaf
from batchmix.core.blending import blend
from batchmix.core.normalizing import Normalize
from batchmix.core.objects import mix_objects
from batchmix.core.plan import MixPlan, as_rows, describe
from batchmix.core.resizing import resize_into
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError


def apply_plan(leaf: Leaf, plan: MixPlan, normalize: Normalize | None = None) -> Any:
    """The leaf of a mixed batch: mixed samples, a MixedTarget, or what its kind asks for.

    Args:
        leaf: Of the batch.
        plan: The draw.
        normalize: For inputs that are uint8; others are mixed as they are.

    Raises:
        MixError: If the plan cannot be applied to a leaf of this kind and shape; the leaf is named.
    """
    try:
        if leaf.kind == "input":
            return _input(leaf.value, plan, normalize)
        return _BY_KIND[leaf.kind](leaf.value, plan)
    except MixError as error:
        if not leaf.path or leaf.path == "x":
            raise
        raise MixError(f"{leaf.path}: {error}") from None


def count_in_use(leaves: list[Leaf], plan: MixPlan) -> MixPlan:
    """The plan whose ``lam`` counts the positions in use alone, where an attention mask says which they are.

    Padding that is pasted, or pasted over, is no part of what is seen: ``lam`` becomes the sample's own share
    of the positions that are in use afterwards. It stays what it is, to the bit, for a sample without padding
    whose partner has none either, for one of nothing but padding, and where nothing is pasted.

    Args:
        leaves: Of the batch; the first attention mask of as many positions as the plan's mask is taken.
        plan: The draw.
    """
    for leaf in leaves:
        stays = _pasted_places(leaf.value, plan) if leaf.kind == "attention_mask" else None
        if stays is not None:
            own, partners = leaf.value != 0, _of_partners(leaf.value, plan) != 0
            kept = (own & stays).flatten(1).sum(1, dtype=torch.float32)
            pasted = (partners & ~stays).flatten(1).sum(1, dtype=torch.float32)
            padded = ~(own & partners).flatten(1).all(1) & (kept + pasted > 0)
            lam = torch.where(padded, kept / (kept + pasted), plan.lam)
            return MixPlan(plan.partner, lam, plan.mask, plan.window)
    return plan


def unmixed(
    leaves: list[Leaf], identity: MixPlan, normalize: Normalize | None = None, *, pastes: bool = False
) -> dict[str, Any]:
    """A batch that is not mixed: the inputs themselves, and targets that are all their own label.

    Args:
        leaves: Of the batch.
        identity: The plan of a batch that is not mixed.
        normalize: For inputs that are uint8.
        pastes: Mixed batches of the same run have pasted class ids of positions, so these stay ids here.
    """

    def part(leaf: Leaf) -> Any:
        if leaf.kind == "input":
            return _as_input(leaf, normalize)
        return leaf.value if leaf.kind == "segmentation" and pastes else apply_plan(leaf, identity)

    return {leaf.path: part(leaf) for leaf in leaves}


def check_images(leaves: list[Leaf], normalize: Normalize | None) -> None:
    """Raise a MixError if images are to be normalised and there are none, or they are of another kind."""
    if normalize is None:
        return
    inputs = [leaf for leaf in leaves if leaf.kind == "input" and isinstance(leaf.value, Tensor)]
    images = [leaf for leaf in inputs if leaf.value.dtype == torch.uint8]
    for leaf in images or inputs[:1]:
        normalize.check(leaf.path, leaf.value)


def _as_input(leaf: Leaf, normalize: Normalize | None) -> Any:
    """The samples that are not mixed, normalised if they are uint8."""
    if normalize is None or not isinstance(leaf.value, Tensor) or leaf.value.dtype != torch.uint8:
        return leaf.value
    return normalize(leaf.value)


def _input(x: Any, plan: MixPlan, normalize: Normalize | None) -> Tensor:
    if plan.mask is not None and isinstance(x, Tensor) and x.dim() < plan.mask.dim():
        # A map without channels, of the images' own positions:
        if x.dim() > 1 and x.shape[1:] == plan.mask.shape[2:]:
            return blend(x.unsqueeze(1), plan).squeeze(1)
        # Features without positions, beside images: they follow the labels.
        plan = plan.without_mask()
    as_floats = normalize is not None and isinstance(x, Tensor) and x.dtype == torch.uint8
    return blend(x, plan, normalize=normalize if as_floats else None)


def _target(y: Any, plan: MixPlan) -> MixedTarget:
    return MixedTarget.from_plan(y, plan)


def _segmentation(y: Any, plan: MixPlan) -> Tensor | MixedTarget:
    """Class ids are never blended: pasted with the pixels, or both kept with their weights."""
    if plan.mask is None:
        return MixedTarget.from_plan(y, plan)
    if plan.mask.dim() < 3:
        raise MixError(
            "class ids of positions take a method for images or series, whose samples have positions, got "
            f"one of columns, and {describe(y)}"
        )
    if plan.mask.dtype != torch.bool:
        raise MixError(
            "class ids of positions take a method that pastes or mixes whole samples (a Choice of both takes "
            f"per='batch'), got one that blends each position by a weight of its own, and {describe(y)}"
        )
    size = plan.mask.shape[2:]
    if y.dim() <= len(size) or y.shape[y.dim() - len(size) :] != size:
        raise MixError(f"the size of the inputs is what positions take, {tuple(size)}, got {describe(y)}")
    own = plan.mask.reshape(len(plan.mask), *[1] * (y.dim() - 1 - len(size)), *size)
    return torch.where(own, y, _of_partners(y, plan))


def _of_partners(values: Tensor, plan: MixPlan) -> Tensor:
    """What each position has of the partner, resized into the plan's window as the images are."""
    partners = values[plan.partner]
    return partners if plan.window is None else resize_into(partners, plan.window, nearest=True)


def _attention_mask(mask: Any, plan: MixPlan) -> Tensor:
    """A position that is pasted is in use where its sample uses it, one that is blended where either does.

    What has no weight, the sample itself or its partner, does not count.
    """
    if not isinstance(mask, Tensor):
        raise MixError(f"attention_mask takes a tensor (B, L), got {describe(mask)}")
    stays = _pasted_places(mask, plan)
    if stays is not None:
        return torch.where(stays, mask, _of_partners(mask, plan))
    lam, partners = as_rows(plan.lam, mask.dim()), mask[plan.partner]
    of_partner = (lam == 0) | ((lam < 1) & (partners != 0))
    return torch.where(of_partner, partners, mask)


def _pasted_places(mask: Any, plan: MixPlan) -> Tensor | None:
    """Which positions of an attention mask stay the sample's own; None where none of it is pasted."""
    if not isinstance(mask, Tensor) or plan.mask is None:
        return None
    fits = plan.mask.dtype == torch.bool and plan.mask.shape[1:] == (1, *mask.shape[1:])
    return plan.mask[:, 0] if fits else None


def _pass(value: Any, plan: MixPlan) -> Any:
    return value


_BY_KIND: dict[Kind, Callable[[Any, MixPlan], Any]] = {  # all but inputs
    "class": _target,
    "soft": _target,
    "multilabel": _target,
    "regression": _target,
    "segmentation": _segmentation,
    "boxes": mix_objects,
    "keypoints": mix_objects,
    "attention_mask": _attention_mask,
    "pass": _pass,
}
