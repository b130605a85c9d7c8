"""TransMix: CutMix for vision transformers, whose labels are weighed by what the net attended to.

How to use: draw a plan, mix by it, and weigh the labels after the forward pass: ``plan = transmix.plan(x)``,
``x, y = transmix(x, y, plan=plan)``, then ``logits`` and ``attention`` from the model, and
``y = transmix.reweigh(y, plan, attention, prefix=1)`` before the loss. ``attention`` is the class token's, of
the last block: (B, heads, tokens). With timm, ``block = model.blocks[-1].attn``, ``block.fused_attn = False``
and ``block.attn_drop.register_forward_hook(lambda module, args, out: seen.append(args[0][:, :, 0]))`` put it
into a list ``seen``. With transformers, load the model with ``attn_implementation="eager"``, call it with
``output_attentions=True`` and take ``output.attentions[-1][:, :, 0]``.
Suggested values: ``alpha`` 1; half of the batches TransMix and half mixup, by a ``Choice``.
Technical details: ``plan`` and call are CutMix's, per sample. The new weight is the share of the class
token's attention, its mean over the heads, that falls on own pixels; the paper's equation is taken as
written. ``reweigh`` takes the plan of any method for images: where it has a mask, also a soft one, a patch
counts for both by the mask's mean over it; where it has none, as mixup's, the target is handed back.
Departures from the authors' code: it takes the mean of this weight and the share of pixels, which is
``share=0.5`` here; and its mask is the nearest pixel to each patch, where it is averaged over the patch here,
so that a patch of two images counts for both.
Paper: Chen, Sun, He, Torr, Yuille and Bai 2022, TransMix: Attend to Mix for Vision Transformers,
arXiv:2111.09833.
"""

from __future__ import annotations

from typing import ClassVar, get_args

import torch
from torch import Tensor
from typing_extensions import Unpack

from batchmix.core.attention import reweigh
from batchmix.core.boxes import sample_boxes
from batchmix.core.masks import draw_partners, plan_of_boxes
from batchmix.core.plan import MixPlan
from batchmix.core.saliency import check_images
from batchmix.core.sampling import (
    Policy,
    check_alpha,
    check_choice,
    check_probability,
    sample_lam,
)
from batchmix.core.targets import MixedTarget
from batchmix.mixer import Mixer, MixerOptions


class TransMix(Mixer):
    """CutMix of a batch with a shuffled version of itself, and weights by attention afterwards.

    Args:
        alpha: Shape of the Beta density of the share that a box leaves, >= 0; 0 mixes nothing.
        share: Of the attention in the labels' new weight, in [0, 1]; the rest is the share of pixels.
        partner: ``"shuffle"``, ``"derangement"``, ``"roll"``, ``"other-class"`` or ``"same-class"``.
        options: ``p``, ``p_sample``, ``schedule``, ``seed``, ``rank`` and ``normalize``, as for ``Mixer``.

    Raises:
        MixError: If an argument is not of the form above, or the samples are not images.

    Example:
        >>> transmix = TransMix(seed=0)
        >>> x, y = torch.rand(8, 3, 32, 32), torch.randint(10, (8,))
        >>> plan = transmix.plan(x)
        >>> x, y = transmix(x, y, plan=plan)
        >>> attention = torch.rand(8, 3, 1 + 64).softmax(-1)  # 3 heads; the class token, and 8 x 8 patches
        >>> y = transmix.reweigh(y, plan, attention, prefix=1)

    Source: Chen et al. 2022, arXiv:2111.09833.
    """

    pastes: ClassVar[bool] = True

    reads_pixels: ClassVar[bool] = False

    hyperparameters: ClassVar[tuple[str, ...]] = ("alpha",)

    weighs_afterwards: ClassVar[bool] = True

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        share: float = 1.0,
        partner: Policy = "shuffle",
        **options: Unpack[MixerOptions],
    ) -> None:
        self.alpha = check_alpha(alpha)
        self.share = check_probability(share, "share")
        check_choice("partner", partner, get_args(Policy))
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
        """Draw partners, then weights, then boxes. See ``Mixer.sample``."""
        check_images(x)
        size = (x.shape[2], x.shape[3])
        partner = draw_partners(x, y, self.partner, per="sample", between=between, generator=generator)
        lam = sample_lam(settings["alpha"], len(x), fold=False, generator=generator)
        boxes = sample_boxes(lam, size, generator=generator)
        return plan_of_boxes(partner, boxes, size, per="sample", between=between)

    def reweigh(
        self,
        target: MixedTarget,
        plan: MixPlan,
        attention: Tensor,
        *,
        prefix: int = 0,
        grid: tuple[int, int] | None = None,
    ) -> MixedTarget:
        """The target with weights by attention, of which ``share`` counts; see ``batchmix.reweigh``.

        Args:
            target: Of the mixed batch.
            plan: What it was mixed by.
            attention: Of the class token: (B, heads, tokens) or (B, tokens).
            prefix: Number of tokens before the patches, such as 1 for the class token.
            grid: Rows and columns of patches, where these are not square.

        Raises:
            MixError: If the shapes do not fit together.
        """
        return reweigh(target, plan, attention, prefix=prefix, grid=grid, share=self.share)
