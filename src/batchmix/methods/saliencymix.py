"""SaliencyMix: the part of the partner that draws the eye is pasted into every image, where it was.

How to use: ``x, y = SaliencyMix(1.0)(x, y)`` before the model, during training only. A saliency of your own
is a callable from images (B, C, H, W) to maps (B, h, w): ``SaliencyMix(1.0, saliency=my_maps)``; it is called
on every batch that is mixed, without a graph.
Suggested values: ``alpha`` 1; half of the batches (``p=0.5``) on small images; long budgets.
Technical details: the box is CutMix's, with its middle on the partner's most salient pixel and clipped at the
image's edge; the label's weight is the exact share of pixels that stay. The built-in saliency is of the kind
the paper takes, fine-grained after Montabone and Soto 2010, in plain torch for the whole batch. Departures:
it differs from OpenCV's in the points that its docstring names, bright and dark scaled alike above all; and
every sample has a weight and a box of its own, where the authors' code has one of each for the batch. Two
batches cannot be mixed ``between`` each other, since a method sees the first of them only.
Paper: Uddin, Monira, Shin, Chung and Bae 2021, SaliencyMix: A Saliency Guided Data Augmentation Strategy for
Better Regularization, arXiv:2006.01791.
"""

from __future__ import annotations

from typing import ClassVar, get_args

import torch
from torch import Tensor
from typing_extensions import Unpack

from batchmix.core.boxes import boxes_around
from batchmix.core.masks import draw_partners, plan_of_boxes
from batchmix.core.plan import MixPlan
from batchmix.core.saliency import Look, at_pixels, fine_grained, maps_of, peaks
from batchmix.core.sampling import Policy, check_alpha, check_choice, sample_lam
from batchmix.errors import MixError
from batchmix.mixer import Mixer, MixerOptions


class SaliencyMix(Mixer):
    """SaliencyMix of a batch with a shuffled version of itself.

    A box around the most salient pixel of sample ``partner[i]`` is pasted at the same place of sample i. The
    box leaves a share ``lam ~ Beta(alpha, alpha)`` of the image before it is clipped at the edges; the plan's
    ``lam`` is the exact share of pixels that stay.

    Args:
        alpha: Shape of the Beta density, >= 0; 0 mixes nothing.
        saliency: From images (B, C, H, W) to maps (B, h, w) of any resolution.
        partner: ``"shuffle"``, ``"derangement"``, ``"roll"``, ``"other-class"`` or ``"same-class"``.
        options: ``p``, ``p_sample``, ``schedule``, ``seed``, ``rank`` and ``normalize``, as for ``Mixer``.

    Raises:
        MixError: If an argument is not of the form above, or the samples are not images.

    Example:
        >>> saliencymix = SaliencyMix(alpha=1.0, seed=0)
        >>> x, y = saliencymix(torch.rand(8, 3, 32, 32), torch.randint(10, (8,)))
        >>> x.shape, len(y)
        (torch.Size([8, 3, 32, 32]), 8)

    Source: Uddin et al. 2021, arXiv:2006.01791, section 3.
    """

    pastes: ClassVar[bool] = True

    mixes_between: ClassVar[bool] = False

    hyperparameters: ClassVar[tuple[str, ...]] = ("alpha",)

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        saliency: Look = fine_grained,
        partner: Policy = "shuffle",
        **options: Unpack[MixerOptions],
    ) -> None:
        self.alpha = check_alpha(alpha)
        check_choice("partner", partner, get_args(Policy))
        if not callable(saliency):
            raise MixError.of("saliency", saliency, "a callable from images to maps")
        self.saliency = saliency
        self.partner = partner
        super().__init__(**options)

    def sample(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        between: bool = False,
        generator: torch.Generator,
        **settings: float,
    ) -> MixPlan:
        """Draw partners, then weights; a box goes where its partner is salient. See ``Mixer.sample``."""
        maps = maps_of(self.saliency, x, name="saliency").to(generator.device)
        size = (x.shape[2], x.shape[3])
        partner = draw_partners(x, y, self.partner, per="sample", between=False, generator=generator)
        lam = sample_lam(settings["alpha"], len(x), fold=False, generator=generator)
        middles = peaks(at_pixels(maps, size))[partner]
        boxes = boxes_around(lam, middles, size)
        return plan_of_boxes(partner, boxes, size, per="sample", between=False)
