"""Drop-ins for ``torchvision.transforms.v2.MixUp`` and ``CutMix``.

Use it::

    from batchmix.adapters.torchvision import MixUp

    mixup = MixUp(alpha=0.4)

    def collate(samples):
        return mixup(*default_collate(samples))

    loader = DataLoader(train_set, batch_size=64, shuffle=True, collate_fn=collate)
    for images, labels in loader:
        loss = F.cross_entropy(model(images), labels)

Where is the batch intercepted? Where torchvision's transforms stand: on a whole batch, after the loader or in
its ``collate_fn``. (``batchmix.MixCollate`` is the collate function whose draws do not depend on workers; a
schedule takes it there, since each worker sees its own batches only.)

How is the loss reached? The labels become a MixedTarget, which torch's losses take as it stands. With
``num_classes`` they become (B, num_classes) probabilities, as torchvision's do.

How is evaluation left untouched? The transform belongs to the training loader alone. Where it has
``normalize``, uint8 images of evaluation are normalised by ``batchmix.Normalize`` itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from batchmix.core.plan import describe
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError, needs
from batchmix.methods.cutmix import CutMix as CutMixMixer
from batchmix.methods.mixup import Mixup as MixupMixer
from batchmix.methods.mixup import given_or_made
from batchmix.mixer import Mixer

with needs("torchvision"):
    from torchvision import tv_tensors
    from torchvision.transforms import v2
    from torchvision.transforms.v2._utils import _parse_labels_getter, is_pure_tensor

__all__ = ["CutMix", "MixUp"]

PICTURES = (tv_tensors.Image, tv_tensors.Video)


class _BatchTransform(v2.Transform):
    """What both share: find the images and the labels of a batch, and let a mixer mix them."""

    method: ClassVar[Callable[..., Mixer]]

    def __init__(
        self,
        alpha: float | None = None,
        num_classes: int | None = None,
        *,
        labels_getter: str | Callable[[Any], Any] = "default",
        mixer: Mixer | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        given = options if alpha is None else {"alpha": alpha, **options}
        self.mixer = given_or_made(mixer, given, self._made)
        if num_classes is not None and (not isinstance(num_classes, int) or num_classes < 1):
            raise MixError.of("num_classes", num_classes, "a whole number >= 1, or None")
        if labels_getter != "default" and not callable(labels_getter):
            raise MixError.of("labels_getter", labels_getter, "'default' or a callable of the batch")
        self.num_classes = num_classes
        self._labels_getter = _parse_labels_getter(labels_getter)

    def _made(self, alpha: float = 1.0, **options: Any) -> Mixer:
        return type(self).method(alpha, **options)

    def forward(self, *inputs: Any) -> Any:
        """Mix a batch.

        Args:
            inputs: Images (B, C, H, W) or videos (B, T, C, H, W), floating point (uint8 images with
                ``normalize``), and labels, (B,) class ids or (B, K) probabilities: ``(images, labels)``, or a
                dict or nest of these. If the batch has images or videos as tv_tensors, they are what is
                mixed, else its first tensor besides the labels. All else is handed on.

        Returns:
            The batch in the same structure.

        Raises:
            MixError: If images or labels are not found, or there are boxes, masks or keypoints.
        """
        batch = inputs if len(inputs) > 1 else inputs[0]
        leaves, structure = tree_flatten(batch)
        _refuse_the_unmixable(leaves)
        labels = self._labels_of(batch)
        place_of_labels = _place_of(leaves, labels)
        places = _places_of_images(leaves, labels, takes_uint8=self.mixer.normalize is not None)
        images = [leaves[place].as_subclass(Tensor) for place in places]
        mixed, target = self.mixer(images, labels if labels.dim() == 1 else labels.float())
        for place, image in zip(places, mixed, strict=True):
            is_plain = is_pure_tensor(leaves[place])
            leaves[place] = image if is_plain else tv_tensors.wrap(image, like=leaves[place])
        leaves[place_of_labels] = target if self.num_classes is None else target.dense(self.num_classes)
        return tree_unflatten(leaves, structure)

    def get_extra_state(self) -> dict[str, int]:
        """The mixer's state, as part of this module's ``state_dict``."""
        return self.mixer.state_dict()

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take the mixer's state from this module's ``state_dict``."""
        self.mixer.load_state_dict(state)

    def extra_repr(self) -> str:
        """What stands between the brackets."""
        return f"{self.mixer!r}, num_classes={self.num_classes}"

    def _labels_of(self, batch: Any) -> Tensor:
        pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        if pair and isinstance(batch[1], MixedTarget):
            raise MixError("labels takes a batch that is not mixed yet, got a MixedTarget")
        try:
            labels = self._labels_getter(batch)
        except (ValueError, IndexError):  # torchvision's own words advise what this class has not
            got = f"the keys {', '.join(map(repr, batch))}" if isinstance(batch, Mapping) else describe(batch)
            raise MixError(
                "batch takes labels beside the images, second in a pair or under a key with 'label' in it, "
                f"or labels_getter=... that finds them, got {got}"
            ) from None
        if not isinstance(labels, Tensor) or labels.dim() not in (1, 2):
            raise MixError(f"labels takes (B,) class ids or (B, K) probabilities, got {describe(labels)}")
        return labels


class MixUp(_BatchTransform):
    """mixup of a batch, in the place of ``torchvision.transforms.v2.MixUp``.

    Unlike there, every sample has a ``lam`` and a random partner of its own, and the global generator stays
    where it is; ``per="batch", fold=False, partner="roll"`` gives the draws of torchvision's distribution.

    Args:
        alpha: Shape of the Beta density, >= 0; 1, torchvision's default, if left out.
        num_classes: K, for (B, K) probabilities in the labels' place; a MixedTarget if left out.
        labels_getter: Finds the labels, ``"default"`` as torchvision does: the second part of the batch, or
            what has "label" in its key.
        mixer: Any method or choice, in the place of ``alpha`` and ``options``.
        options: The other options of ``batchmix.Mixup``: ``per``, ``fold``, ``p``, ``p_sample``, ``partner``,
            ``schedule``, ``seed``, ``normalize``.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> import torch
        >>> mixup = MixUp(alpha=0.4, num_classes=10, seed=0)
        >>> images, labels = mixup(torch.rand(4, 3, 8, 8), torch.tensor([3, 1, 4, 1]))
        >>> labels.shape
        torch.Size([4, 10])
    """

    method = MixupMixer


class CutMix(_BatchTransform):
    """CutMix of a batch, in the place of ``torchvision.transforms.v2.CutMix``.

    Unlike there, every sample has a box and a random partner of its own; ``per="batch", partner="roll"``
    gives one box for the batch.

    Args:
        alpha: Shape of the Beta density, >= 0; 1, torchvision's default, if left out.
        num_classes: K, for (B, K) probabilities in the labels' place; a MixedTarget if left out.
        labels_getter: Finds the labels, as for ``MixUp``.
        mixer: Any method or choice, in the place of ``alpha`` and ``options``.
        options: The other options of ``batchmix.CutMix``: ``per``, ``fold``, ``minmax``, ``p``, ``p_sample``,
            ``partner``, ``schedule``, ``seed``, ``normalize``.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> import torch
        >>> cutmix = CutMix(seed=0)
        >>> images, labels = cutmix(torch.rand(4, 3, 8, 8), torch.tensor([3, 1, 4, 1]))
        >>> type(labels).__name__
        'MixedTarget'
    """

    method = CutMixMixer


def _refuse_the_unmixable(leaves: list[Any]) -> None:
    for leaf in leaves:
        if isinstance(leaf, tv_tensors.TVTensor) and not isinstance(leaf, PICTURES):
            raise MixError(
                f"batch takes images or videos and labels, got {type(leaf).__name__}: "
                "mix masks and boxes with mixer.mix(batch, kinds=...)"
            )
        if type(leaf).__module__.partition(".")[0] == "PIL":
            raise MixError(f"batch takes tensors, such as from v2.ToImage(), got a PIL {type(leaf).__name__}")


def _place_of(leaves: list[Any], labels: Tensor) -> int:
    """Where the mixed labels go."""
    for place, leaf in enumerate(leaves):
        if leaf is labels:
            return place
    raise MixError(
        "labels_getter takes a callable that returns a tensor of the batch itself, "
        f"got another {describe(labels)}"
    )


def _places_of_images(leaves: list[Any], labels: Tensor, *, takes_uint8: bool) -> list[int]:
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, PICTURES)]
    if not places:
        pure = (place for place, leaf in enumerate(leaves) if is_pure_tensor(leaf) and leaf is not labels)
        places = list(pure)[:1]
    if not places:
        raise MixError("batch takes images (B, C, H, W) beside the labels, got none")
    for place in places:
        image = leaves[place]
        if not (image.is_floating_point() or (takes_uint8 and image.dtype == torch.uint8)):
            raise MixError(
                "images takes floating point, such as from v2.ToDtype(torch.float32, scale=True), "
                f"got {describe(image.as_subclass(Tensor))}"
            )
        ndim = 5 if isinstance(image, tv_tensors.Video) else 4
        if image.dim() != ndim:
            raise MixError(
                f"images takes a batch of {ndim} dimensions, got {describe(image.as_subclass(Tensor))}"
            )
    return places
