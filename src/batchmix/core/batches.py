"""A batch of any structure: its leaves, and what each of them is."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Literal, NamedTuple, get_args

from torch import Tensor, strided, uint8

from batchmix.core.plan import describe, floats_for
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError

Kind = Literal[
    "input",
    "class",
    "soft",
    "multilabel",
    "regression",
    "segmentation",
    "boxes",
    "keypoints",
    "attention_mask",
    "pass",
]
"""What a leaf is, which says how it is mixed:

- ``"input"``: floating point samples, blended or pasted; uint8 images where they are normalised; beside
  images (B, C, H, W), maps (B, H, W) at the same places, and beside series (B, C, T) so (B, T);
  anything else of fewer dimensions has no places, and is blended by ``lam``;
- ``"class"``, ``"soft"``, ``"multilabel"``, ``"regression"``: a target of the sample, a MixedTarget of both;
- ``"segmentation"``: a class id or a value for each position: pasted where the inputs are pasted, a
  MixedTarget where they are blended;
- ``"boxes"``, ``"keypoints"``: one entry a sample, clipped and dropped or joined;
- ``"attention_mask"``: the positions in use: pasted with a series or an image of as many, whose labels are
  then weighed by those in use; else united. An input of that name is known by it, as is ``"pixel_mask"``;
- ``"pass"``: handed on as it is.
"""

KINDS: tuple[Kind, ...] = get_args(Kind)

Kinds = Mapping[str, Kind]
Role = Literal["input", "target", "unknown"]

IN_USE = ("attention_mask", "pixel_mask", "pixel_attention_mask")
"""What transformers' processors call the positions that are no padding."""

WHOLE: tuple[Kind, ...] = ("pass", "boxes", "keypoints")  # kinds of a whole subtree, not of its leaves


class Leaf(NamedTuple):
    """One part of a batch that is mixed by itself."""

    path: str  # as in an error message and as a key of kinds: "x.image", "y.0"
    value: Any
    kind: Kind


def leaves_of_pair(x: Any, y: Any, kinds: Kinds | None = None, *, channels: int = 0) -> list[Leaf]:
    """Every leaf of inputs ``x`` and targets ``y``, with its kind: that in ``kinds``, or one beyond doubt.

    Args:
        x: Inputs: a tensor (B, ...), or tensors in tuples, lists, dicts, dataclasses, nested.
        y: Targets, of any structure too.
        kinds: From paths, ``"x.image"`` or ``"y.0"``, to kinds; a path above several leaves holds for all.
        channels: Of uint8 images that will be normalised, and so are inputs; 0 where none will.

    Raises:
        MixError: If a leaf's kind is neither given nor beyond doubt, or ``kinds`` names no leaf.
    """
    finder = _Finder(kinds, channels)
    inputs = list(finder.walk(x, "x", "input"))
    finder.like = tuple(lead_of(inputs).shape[2:])
    return finder.finish([*inputs, *finder.walk(y, "y", "target")])


def leaves_of(batch: Any, kinds: Kinds | None = None, *, channels: int = 0) -> list[Leaf]:
    """The same for one nest that holds inputs and targets; its paths start at its own keys: ``"image"``."""
    finder = _Finder(kinds, channels)
    return finder.finish(list(finder.walk(batch, "", "unknown")))


def rebuild(batch: Any, mixed: Mapping[str, Any], *, root: str) -> Any:
    """The same structure, with the value of ``mixed`` at each of its paths."""
    if root in mixed:
        return mixed[root]
    parts = {name: rebuild(part, mixed, root=_join(root, name)) for name, part in _children(batch)}
    if type(batch) is dict:  # torch.compile traces no copy of one
        return {key: parts[str(key)] for key in batch}
    if isinstance(batch, MutableMapping):
        new = copy.copy(batch)  # keeps the type and what it carries
        if getattr(batch, "__dict__", None) is batch:  # its keys are its attributes
            new.__dict__ = new  # type: ignore[assignment]
        for key, value in batch.items():
            part = parts[str(key)]
            new[key] = part
            if part is not value and batch[key] is part:
                batch[key] = value
                raise MixError(
                    f"{root or 'batch'} takes a mapping whose copy can be changed by itself (see "
                    f"copy.copy), got {type(batch).__name__}, whose copy shares its entries"
                )
        return new
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*parts.values())
    if isinstance(batch, (tuple, list)):
        return type(batch)(parts.values())
    new = copy.copy(batch)  # what `replace` cannot give: fields that are no arguments
    for name, part in parts.items():
        object.__setattr__(new, name, part)  # a frozen one too
    return new


def check_lengths(leaves: list[Leaf]) -> Tensor:
    """A leaf of samples, whose length and device all others share.

    Raises:
        MixError: If a leaf has no samples, or their numbers or devices differ.
    """
    first: Leaf | None = None
    for leaf in leaves:
        if leaf.kind in WHOLE:
            continue
        if not isinstance(leaf.value, Tensor) or leaf.value.dim() == 0:
            raise MixError(f"{leaf.path} takes a tensor (B, ...), got {describe(leaf.value)}")
        if leaf.value.layout != strided:
            raise MixError(f"{leaf.path} takes a dense tensor, got one of layout {leaf.value.layout}")
        if not len(leaf.value):
            raise MixError(f"{leaf.path} takes at least one sample, got {describe(leaf.value)}")
        if first is None:
            first = leaf
        elif len(leaf.value) != len(first.value):
            counts = f"{len(first.value)}, got {len(leaf.value)}"
            raise MixError(f"{leaf.path} takes as many samples as {first.path}: {counts}")
        elif leaf.value.device != first.value.device:
            raise MixError(
                f"{leaf.path} takes the device of {first.path}: {first.value.device}, got {leaf.value.device}"
            )
    if first is None:
        raise MixError("batch takes at least one tensor of samples, got none")
    value: Tensor = first.value
    return value


def lead_of(leaves: list[Leaf]) -> Tensor:
    """The input that a plan is drawn for: the one of most dimensions, the first of equals."""
    inputs = inputs_of(leaves)
    lead = inputs[0]
    for value in inputs[1:]:  # a loop, since torch.compile takes no max(..., key=...)
        lead = value if value.dim() > lead.dim() else lead
    return lead


def inputs_of(leaves: list[Leaf]) -> list[Tensor]:
    """All inputs, at least one.

    Raises:
        MixError: If there is none, or one that is no tensor.
    """
    inputs = [leaf for leaf in leaves if leaf.kind == "input"]
    for leaf in inputs:
        if not isinstance(leaf.value, Tensor):
            raise MixError(_takes_tensor(leaf.path, leaf.value))
    if not inputs:
        raise MixError("batch takes at least one leaf of kind 'input', got none")
    return [leaf.value for leaf in inputs]


def target_of(leaves: list[Leaf]) -> Tensor | None:
    """The target that partners can be chosen by: the only one, or else None."""
    targets = [leaf.value for leaf in leaves if leaf.kind in ("class", "soft", "multilabel", "regression")]
    return targets[0] if len(targets) == 1 else None


class _Finder:
    """Walks a batch, and knows which of the user's kinds have found their place."""

    def __init__(self, kinds: Any, channels: int) -> None:
        self.kinds = _check_kinds(kinds)
        self.channels = channels
        self.seen: set[str] = set()
        self.like: tuple[int, ...] = ()  # height and width of the inputs: they make out a segmentation mask

    def walk(self, node: Any, path: str, role: Role, above: Kind | None = None) -> Iterator[Leaf]:
        named = "batch" if not path and isinstance(node, Tensor) else path  # as errors call a lone tensor
        self.seen.add(named)
        in_use = named.rpartition(".")[2] in IN_USE
        if above == "input" and in_use:
            above = None  # which its own name says better
        kind = self.kinds.get(named, above)
        if node is None:  # an absent leaf stays absent
            yield Leaf(path, node, "pass")
        elif kind in WHOLE:
            yield Leaf(path, node, kind)
        elif kind is None and is_detection(node):
            yield Leaf(path, node, "boxes")
        elif _is_nest(node):
            _check_keys(path, node)
            if kind is None:
                _check_boxes(path, node)
            for name, part in _children(node):
                yield from self.walk(part, _join(path, name), role, kind)
        elif kind is None and not in_use and self._is_image(node, role):
            yield Leaf(path, node, "input")
        else:
            yield Leaf(path, node, kind or _infer(path or "batch", node, role, self.like, self.channels))

    def _is_image(self, node: Any, role: Role) -> bool:
        """Whether this is an image to be normalised: uint8 among inputs; elsewhere it could be a mask."""
        if not self.channels or not isinstance(node, Tensor) or node.dtype != uint8:
            return False
        in_colour = node.dim() >= 4 and node.shape[1] == self.channels > 1
        return in_colour if role == "unknown" else role == "input" and node.dim() > 2

    def finish(self, leaves: list[Leaf]) -> list[Leaf]:
        lost = sorted(set(self.kinds) - self.seen)
        if lost:
            there = ", ".join(leaf.path for leaf in leaves)
            raise MixError(f"kinds takes paths that the batch has ({there}), got {lost[0]!r}")
        paths: set[str] = set()
        for leaf in leaves:
            if leaf.path in paths:
                raise MixError(f"batch takes one leaf a path, got two at {leaf.path!r}: rename a key")
            paths.add(leaf.path)
        if any(leaf.kind in ("boxes", "keypoints") for leaf in leaves):
            _check_stacked(leaves)
        return leaves


def _infer(path: str, value: Any, role: Role, like: tuple[int, ...], channels: int) -> Kind:
    if isinstance(value, MixedTarget):
        raise MixError(f"{path} takes a batch that is not mixed yet, got a MixedTarget")
    if not isinstance(value, Tensor) or value.dim() == 0:
        raise MixError(_takes_tensor(path, value))
    if value.is_nested:  # which has no shape
        raise MixError(f"{path} takes a dense tensor, such as {path}.to_padded_tensor(0.0), got a nested one")
    floating, name = value.is_floating_point(), path.rpartition(".")[2]
    if value.dim() > 2 and (_means_boxes(name) or name == "keypoints"):
        raise MixError(
            f"{path} takes a list of dicts, one for each image, that have 'boxes' or 'keypoints'"
            f"{_or_pass(path)}, got {describe(value)}"
        )
    # The pixels in use are told from a mask of classes by their place, among the inputs.
    if name == "attention_mask" or (name in IN_USE and role == "input"):
        if not floating:
            return "attention_mask"
        raise MixError(  # 0 and 1, or what is added to scores: only the first can be united
            f"{path} takes booleans or whole numbers, such as {path}.long(), "
            f"or kinds={{'{path}': 'attention_mask'}} where it is 0 and 1, 'pass' where it is added "
            f"to scores, got {describe(value)}"
        )
    if role == "input":
        if floating:
            return "input"
        raise MixError(f"{path} takes {floats_for(path, value)}{_or_pass(path)}, got {describe(value)}")
    if not floating and value.dim() == 1:
        return "class"
    mask = name.lower().endswith(("mask", "masks"))
    if role == "unknown" and floating and value.dim() >= 4 and not mask:
        return "input"
    if role == "target":
        dense = bool(like) and tuple(value.shape[-len(like) :]) == like and value.dim() > len(like)
        if dense and not floating and value.dim() > 2:
            return "segmentation"
        # In doubt: (B, T) of a series, its steps or T labels; positions of another size than the inputs'.
        if not dense and (value.dim() <= 2 or not like):
            return "soft" if floating else "class"
    names = ", ".join(KINDS)
    images = _images_for(path, value, channels) if role == "unknown" and not floating else ""
    example: Kind = "segmentation" if value.dim() > 2 else "soft" if floating else "multilabel"
    if role == "unknown" and floating and not mask:  # columns, series, embeddings
        example = "input" if value.dim() > 1 else "regression"
    elif role == "unknown" and value.dtype == uint8 and value.dim() >= 4 and value.shape[1] == channels:
        example = "input"  # grey images, or class ids
    elif floating and value.dim() == 3 and tuple(value.shape[-len(like) :]) != like:  # landmarks, forecasts
        example = "regression"
    raise MixError(
        f"{path} takes {images}a kind, as in kinds={{'{path}': '{example}'}} (one of {names}), "
        f"got {describe(value)}"
    )


def _takes_tensor(path: str, value: Any) -> str:
    such = f", such as torch.as_tensor({path})" if hasattr(value, "__array__") else ""
    return f"{path} takes a tensor (B, ...){such}{_or_pass(path)}, got {describe(value)}"


def _or_pass(path: str) -> str:
    """What leaves a leaf as it is, for an error message; a lone input or target is not to be left unmixed."""
    return "" if path in ("x", "y", "batch") else f", or kinds={{'{path}': 'pass'}}"


def _images_for(path: str, value: Tensor, channels: int) -> str:
    """What images of whole numbers have to be, for an error message; nothing if these may be a mask alone."""
    if value.dim() < 4:
        return ""
    if value.shape[1] == channels:
        return "" if value.dtype == uint8 else f"uint8 images, such as {path}.to(torch.uint8), or "
    if channels:
        return f"uint8 images (B, {channels}, H, W), or "
    return f"floating point images, such as {path}.float() / 255, or "


def _check_stacked(leaves: list[Leaf]) -> None:
    """Detection models take a list of images, whose channels would be taken for samples."""
    inputs = [leaf for leaf in leaves if leaf.kind == "input" and isinstance(leaf.value, Tensor)]
    if inputs and all(leaf.value.dim() < 4 for leaf in inputs):
        raise MixError(
            f"{inputs[0].path} takes images (B, C, H, W) beside boxes or key points, as torch.stack makes "
            f"them of a list, got {describe(inputs[0].value)}"
        )


def _check_keys(path: str, node: Any) -> None:
    """Keys become parts of paths, where 1 and "1" are the same and "" is none."""
    if isinstance(node, MutableMapping):
        names = [str(key) for key in node]
        if "" in names or len(set(names)) < len(names):
            raise MixError(
                f"{path or 'batch'} takes keys that differ as text, and none without, got {list(node)}"
            )


def _check_boxes(path: str, node: Any) -> None:
    """Boxes by another name, or in a list of their own, would be taken for targets of a batch."""
    if not isinstance(node, (list, tuple)):
        return
    named = [key for entry in node if isinstance(entry, Mapping) for key in entry if _means_boxes(key)]
    if named or _means_boxes(path):
        path = path or "batch"
        raise MixError(
            f"{path} takes boxes as a list of dicts, one for each image, that have 'boxes', or "
            f"kinds={{'{path}': 'pass'}}, got {repr(named[0]) if named else 'a list of boxes alone'}"
        )


def _means_boxes(name: Any) -> bool:
    return isinstance(name, str) and name.lower().endswith(("boxes", "bbox"))


def is_detection(node: Any) -> bool:
    """A list of dicts with boxes or key points, as torchvision's detection models take them.

    In one of them they can be missing, as data sets of COCO have it: that is said where they are joined.
    """
    return (
        isinstance(node, (list, tuple))
        and all(isinstance(entry, Mapping) for entry in node)
        and any({"boxes", "keypoints"} & set(entry) for entry in node)
    )


def _is_nest(node: Any) -> bool:
    if isinstance(node, Tensor):  # first, as compilers of torch 2.6 and before cannot ask for a dataclass
        return False
    if isinstance(node, MutableMapping):
        return True
    if isinstance(node, (list, tuple)):
        return not all(isinstance(part, (str, int, float)) for part in node)  # names, ids: one leaf
    return dataclasses.is_dataclass(node) and not isinstance(node, type)


def _children(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, MutableMapping):
        yield from ((str(key), value) for key, value in node.items())
    elif isinstance(node, tuple) and hasattr(node, "_fields"):
        yield from zip(node._fields, node, strict=True)
    elif isinstance(node, (list, tuple)):
        yield from ((str(place), value) for place, value in enumerate(node))
    else:
        yield from ((field.name, getattr(node, field.name)) for field in dataclasses.fields(node))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _check_kinds(kinds: Any) -> dict[str, Kind]:
    if kinds is None:
        return {}
    if not isinstance(kinds, Mapping):
        raise MixError(f"kinds takes a mapping from paths to kinds, got {describe(kinds)}")
    for path, kind in kinds.items():
        if not isinstance(path, str):
            raise MixError(f"kinds takes paths such as 'y.0', got {describe(path)}")
        if kind not in KINDS:
            raise MixError(f"kinds[{path!r}] takes one of {', '.join(KINDS)}, got {kind!r}")
    return dict(kinds)
