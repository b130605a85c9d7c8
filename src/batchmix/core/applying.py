"""One plan applied to every leaf of a batch, each by its kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from batchmix.core.batches import Kind, Leaf, lead_of
from batchmix.core.blending import blend
from batchmix.core.objects import mix_objects
from batchmix.core.plan import MixPlan, describe
from batchmix.core.resizing import resize_into
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError


def apply_plan(leaf: Leaf, plan: MixPlan) -> Any:
    """The leaf of a mixed batch: mixed samples, a MixedTarget, or what its kind asks for.

    Raises:
        MixError: If the plan cannot be applied to a leaf of this kind and shape; the leaf is named.
    """
    try:
        return _BY_KIND[leaf.kind](leaf.value, plan)
    except MixError as error:
        if not leaf.path or leaf.path == "x":
            raise
        raise MixError(f"{leaf.path}: {error}") from None


def unmixed(leaves: list[Leaf]) -> dict[str, Any]:
    """A batch that is not mixed: the inputs themselves, and targets that are all their own label."""
    lead = lead_of(leaves)
    identity = MixPlan.identity(len(lead), lead.device)
    return {leaf.path: leaf.value if leaf.kind == "input" else apply_plan(leaf, identity) for leaf in leaves}


def _input(x: Any, plan: MixPlan) -> Tensor:
    if plan.mask is not None and isinstance(x, Tensor) and x.dim() < plan.mask.dim():
        # Features without positions, beside images: they follow the labels.
        return blend(x, plan.without_mask())
    return blend(x, plan)


def _target(y: Any, plan: MixPlan) -> MixedTarget:
    return MixedTarget.from_plan(y, plan)


def _segmentation(y: Any, plan: MixPlan) -> Tensor | MixedTarget:
    """Class ids are never blended: pasted with the pixels, or both kept with their weights."""
    if plan.mask is None:
        return MixedTarget.from_plan(y, plan)
    if plan.mask.dtype != torch.bool:
        raise MixError(
            "class ids of positions take a method that pastes (or mixes whole samples), got one that blends "
            f"each position by a weight of its own, and {describe(y)}"
        )
    size = plan.mask.shape[2:]
    if y.dim() <= len(size) or y.shape[y.dim() - len(size) :] != size:
        raise MixError(f"the size of the inputs is what positions take, {tuple(size)}, got {describe(y)}")
    own = plan.mask.reshape(len(plan.mask), *[1] * (y.dim() - 1 - len(size)), *size)
    partners = y[plan.partner]
    if plan.window is not None:
        partners = resize_into(partners, plan.window, nearest=True)
    return torch.where(own, y, partners)


def _attention_mask(mask: Any, plan: MixPlan) -> Tensor:
    """A position is in use where either of the two uses it; a partner without weight does not count."""
    if not isinstance(mask, Tensor):
        raise MixError(f"attention_mask takes a tensor (B, L), got {describe(mask)}")
    own, partners = mask, mask[plan.partner]
    used = (plan.lam < 1).view(-1, *[1] * (mask.dim() - 1)) & (partners != 0)
    return torch.where(used, partners, own)


def _pass(value: Any, plan: MixPlan) -> Any:
    return value


_BY_KIND: dict[Kind, Callable[[Any, MixPlan], Any]] = {
    "input": _input,
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
