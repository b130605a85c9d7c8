"""SnapMix: a box of the partner is pasted at another size; labels weigh what their parts mean to the net.

How to use: give it class activation maps, a callable of images and labels: for a net of convolutions ``body``
and a linear ``head``, ``def cam(x, y): return torch.einsum("bchw,bc->bhw", body(x).relu(), head.weight[y])``.
Then ``x, target, factor = SnapMix(cam)(x, y)`` and
``loss = (factor * F.cross_entropy(model(x), target, reduction="none")).mean()``.
Suggested values: ``alpha`` 5, for classes that differ in small parts; a pretrained net, since the maps of an
untrained one say nothing.
Technical details: a box of the partner is stretched to a box of another size, drawn apart, in the sample. The
label of the sample weighs the share of its activation outside of the box, that of the partner the share
inside of its own box. The two do not sum to 1, and no mix of two labels can hold them; so ``target`` has them
divided by their sum, and ``factor`` is that sum, (B,). A loss of one value a sample times ``factor`` is the
published loss for any loss. Maps are moved to a minimum of 0 first; where one is constant the share of pixels
counts. If one of a pair of boxes is empty, the sample stays as it is, with factor 1. Departures: each
sample has a pair of boxes of its own, where the authors' code draws one pair for the batch. Pixels are
resized between their centres (half-pixel convention). A pair of one class weighs the sum of both weights, as
published; the authors' code counts it twice. The pasted pixels are not the partner's at the same places, so
this is no plan and no ``Mixer``.
Paper: Huang, Wang and Tao 2021, SnapMix: Semantically Proportional Mixing for Augmenting Fine-grained Data,
arXiv:2012.04846.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from batchmix.core.batches import Leaf, check_lengths
from batchmix.core.boxes import box_masks, sample_boxes
from batchmix.core.plan import as_rows, describe
from batchmix.core.saliency import at_pixels, check_images, maps_of
from batchmix.core.sampling import Policy, check_alpha, check_choice, sample_lam, sample_partner
from batchmix.core.schedules import Schedule
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError
from batchmix.mixer import Mixer

Cam = Callable[[Tensor, Tensor], Tensor]
"""From images (B, C, H, W) and class ids (B,) to the activation map of that class, (B, h, w)."""


class SnapBatch(NamedTuple):
    """A batch mixed by SnapMix: what ``factor * loss(model(x), target)`` takes, one value a sample."""

    x: Tensor
    target: MixedTarget
    factor: Tensor


class SnapMix:
    """SnapMix of a batch with a shuffled version of itself.

    Args:
        cam: From images and class ids to class activation maps, (B, h, w) of any resolution; called on every
            batch that is mixed, without a graph. Keep the net in ``eval()`` there, or its running statistics
            move.
        alpha: Shape of the Beta densities of both boxes, >= 0; 0 mixes nothing.
        p: Probability that a batch is mixed.
        partner: ``"shuffle"``, ``"derangement"``, ``"roll"``, ``"other-class"`` or ``"same-class"``.
        schedule: Factor as a function of the step, for ``p``, or a mapping for ``"p"`` and ``"alpha"``.
        seed: Of all draws; ``torch.initial_seed()`` if left out.
        rank: This process's place among those that have batches of their own, as for ``Mixer``.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> def cam(x, y):  # of a net: see "How to use"
        ...     return x.mean(1)
        >>> snapmix = SnapMix(cam, seed=0)
        >>> x, target, factor = snapmix(torch.rand(8, 3, 32, 32), torch.randint(10, (8,)))
        >>> logits = torch.zeros(8, 10)
        >>> loss = (factor * F.cross_entropy(logits, target, reduction="none")).mean()

    Source: Huang et al. 2021, arXiv:2012.04846.
    """

    def __init__(
        self,
        cam: Cam,
        alpha: float = 5.0,
        *,
        p: float = 1.0,
        partner: Policy = "shuffle",
        schedule: Schedule | Mapping[str, Schedule] | None = None,
        seed: int | None = None,
        rank: int | None = None,
    ) -> None:
        if not callable(cam):
            raise MixError.of("cam", cam, "a callable of images and class ids")
        self.cam = cam
        self.draws = _Boxes(alpha, partner, p=p, schedule=schedule, seed=seed, rank=rank)

    def __call__(self, x: Tensor, y: Tensor, *, step: int | None = None) -> SnapBatch:
        """Mix a batch with a shuffled version of itself.

        Args:
            x: Images, (B, C, H, W), floating point. Not modified.
            y: Class ids, (B,).
            step: Draw as at this step of the whole run; the own one stays.

        Returns:
            The mixed images (``x`` itself where the batch is not mixed), the target with weights that sum to
            1, and the factor (B,) float32 for each sample's loss.

        Raises:
            MixError: If ``x`` and ``y`` are not a batch of images and class ids, or ``cam`` returns no maps.
        """
        check_images(x)
        check_lengths([Leaf("x", x, "input"), Leaf("y", y, "class")])
        if y.dim() != 1 or y.is_floating_point():
            raise MixError(f"y takes class ids (B,), got {describe(y)}")
        drawn = self.draws.next(x, y, step)
        if drawn is None:
            ones = torch.ones(len(x), dtype=torch.float32, device=x.device)
            return SnapBatch(x, MixedTarget(y, y, ones), ones)
        partner, boxes, sources = drawn
        size = (x.shape[2], x.shape[3])
        maps = at_pixels(maps_of(self.cam, x, y, name="cam"), size).to(x.device)
        own, own_area = box_masks(boxes, size)
        outside, outside_area = box_masks(sources, size)
        mixed = partner != torch.arange(len(x), device=x.device)
        mixed &= (own_area < 1) & (outside_area < 1)
        mine = torch.where(mixed, _share(maps, own, own_area), 1.0)
        theirs = torch.where(mixed, _share(maps[partner], ~outside, 1 - outside_area), 0.0)
        factor = mine + theirs
        lam = torch.where(factor > 0, mine / factor.where(factor > 0, torch.ones_like(factor)), own_area)
        paste = _stretch(x[partner], sources, boxes)
        x = torch.where(own | as_rows(~mixed, 4), x, paste)
        return SnapBatch(x, MixedTarget(y, y[partner], lam), factor)

    @property
    def step(self) -> int:
        """Number of batches drawn so far."""
        return self.draws.step

    def state_dict(self) -> dict[str, int]:
        """All that has to be kept to go on with the same draws: ``{"seed": ..., "step": ...}``."""
        return self.draws.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.draws.load_state_dict(state)


class _Boxes(Mixer):
    """Seed, step and schedules of a SnapMix; two boxes of a pair are no plan."""

    hyperparameters: ClassVar[tuple[str, ...]] = ("alpha",)

    def __init__(self, alpha: float, partner: Policy, **options: Any) -> None:
        self.alpha = check_alpha(alpha)
        check_choice("partner", partner, get_args(Policy))
        self.partner = partner
        super().__init__(**options)

    def _names(self) -> tuple[str, ...]:
        return ("p", *self.hyperparameters)  # boxes are drawn for whole batches, without p_sample

    def next(self, x: Tensor, y: Tensor, step: int | None) -> tuple[Tensor, Tensor, Tensor] | None:
        """Partners, boxes to paste into and boxes to take; None where the batch is not mixed."""
        draws = self._take(step)
        settings = self.settings(draws.step)
        if draws.coin >= settings["p"] or not self.mixes(alpha=settings["alpha"]):
            return None
        generator, size = draws.generator(x.device), (x.shape[2], x.shape[3])
        partner = sample_partner(len(x), self.partner, labels=y, generator=generator)
        boxes, sources = (
            sample_boxes(
                sample_lam(settings["alpha"], len(x), fold=False, generator=generator),
                size,
                generator=generator,
            )
            for _ in range(2)
        )
        return partner.to(x.device), boxes.to(x.device), sources.to(x.device)


def _share(maps: Tensor, where: Tensor, area: Tensor) -> Tensor:
    """Share of each map (B, H, W) that lies where a mask (B, 1, H, W) is true."""
    maps = maps - maps.amin((1, 2), keepdim=True)
    total = maps.sum((1, 2))
    share = (maps * where.squeeze(1)).sum((1, 2)) / total.where(total > 0, torch.ones_like(total))
    return torch.where(total > 0, share.clamp(0, 1), area)


def _stretch(x: Tensor, sources: Tensor, boxes: Tensor) -> Tensor:
    """Images that show, inside their box, what their source box shows; bilinear, edges repeated."""
    places = []
    for axis in (0, 1):
        side = x.shape[2 + axis]
        start, end = (boxes[:, 2 * axis + end].view(-1, 1).float() for end in (0, 1))
        low, high = (sources[:, 2 * axis + end].view(-1, 1).float() for end in (0, 1))
        pixel = torch.arange(side, dtype=torch.float32, device=x.device).view(1, -1) + 0.5
        place = low + (pixel - start) * (high - low) / (end - start).clamp(min=1)
        place = torch.minimum(torch.maximum(place, low + 0.5), (high - 0.5).maximum(low + 0.5))
        places.append(2 * place / side - 1)  # as grid_sample counts: -1 and 1 are the edges of the image
    rows, columns = places
    size = (len(x), x.shape[2], x.shape[3])
    grid = torch.stack([columns.unsqueeze(1).expand(size), rows.unsqueeze(2).expand(size)], 3)
    wide = x if x.dtype == torch.float64 else x.float()
    out = F.grid_sample(
        wide, grid.to(wide.dtype), mode="bilinear", padding_mode="border", align_corners=False
    )
    return out.to(x.dtype)
