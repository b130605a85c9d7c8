"""GridMix: the cells of a grid come from the image or from its partner.

How to use: ``x, y = GridMix(1.0)(x, y)`` before the model, during training only.

Suggested values: ``alpha`` 1; ``cells`` 4 on images of 32 pixels, 7 on those of 224.

Technical details: of ``cells`` times ``cells`` cells the sample keeps a share ``lam ~ Beta(alpha, alpha)``,
to the nearest whole number; which ones is drawn without replacement. Where the image's sides are not
multiples of ``cells``, cells differ by a pixel, and the label's weight is the exact share of pixels that
stay. Every sample has a grid of its own. The paper adds a second loss, on the label of each patch: it needs a
head of its own in the net, and only the mixing is here. What OpenMixup calls ``gridmix``, after Dobrynin's
GridMixup, is another algorithm: a lattice of equal holes, at the same places in all images. On series
(B, C, T) the cells are stretches of time, on videos (B, C, T, H, W) they are the same in every frame.

Paper: Baek, Bang, Shim 2021, "GridMix: Strong regularization through local context mapping", Pattern
Recognition 109.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Unpack

from batchmix.core.masks import check_pairing, draw_partners, draws_of, mean_of, plan_of, size_of
from batchmix.core.plan import MixPlan
from batchmix.core.sampling import Per, Policy, check_alpha, check_count, check_flag, sample_lam
from batchmix.mixer import Mixer, MixerOptions


class GridMix(Mixer):
    """GridMix of a batch with a shuffled version of itself.

    Sample i keeps some cells of a regular grid and has those of sample ``partner[i]`` elsewhere. The plan's
    ``lam`` is the exact share of pixels that stay.

    Args:
        alpha: Shape of the Beta density, >= 0; 0 mixes nothing.
        cells: Number of cells along each side, >= 1.
        per: A draw of cells for each ``"sample"``, for each ``"pair"`` of mutual partners, or for the
            ``"batch"``.
        fold: ``lam = max(lam, 1-lam)``: at least half of the cells stay.
        partner: ``"shuffle"``, ``"derangement"``, ``"roll"``, ``"other-class"`` or ``"same-class"``.
        options: ``p``, ``p_sample``, ``schedule``, ``seed``, ``rank`` and ``normalize``, as for ``Mixer``.

    Raises:
        MixError: If an argument is not of the form above, or samples have no positions.

    Example:
        >>> gridmix = GridMix(alpha=1.0, cells=4, seed=0)
        >>> x, y = gridmix(torch.rand(8, 3, 32, 32), torch.randint(10, (8,)))
        >>> bool((y.lam * 16 == (y.lam * 16).round()).all())
        True

    Source: Baek et al. 2021, Pattern Recognition 109, section 3.
    """

    pastes: ClassVar[bool] = True

    reads_pixels: ClassVar[bool] = False

    hyperparameters: ClassVar[tuple[str, ...]] = ("alpha",)

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        cells: int = 4,
        per: Per = "sample",
        fold: bool = False,
        partner: Policy = "shuffle",
        **options: Unpack[MixerOptions],
    ) -> None:
        self.alpha = check_alpha(alpha)
        self.cells = check_count("cells", cells)
        check_pairing(per, partner)
        self.per = per
        self.fold = check_flag("fold", fold)
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
        """Draw partners, then weights, then cells. See ``Mixer.sample``."""
        size = size_of(x)
        partner = draw_partners(x, y, self.partner, per=self.per, between=between, generator=generator)
        lam = sample_lam(settings["alpha"], draws_of(self.per, len(x)), fold=self.fold, generator=generator)
        mask = self._spread(self._cells(lam, len(size), generator), size)
        return plan_of(partner, mask, mean_of(mask), per=self.per, between=between)

    def _cells(self, lam: Tensor, axes: int, generator: torch.Generator) -> Tensor:
        """True for a share ``lam`` (N,) of the cells: (N, 1, cells, cells) or (N, 1, cells)."""
        count = self.cells**axes
        drawn = torch.rand(len(lam), count, generator=generator, dtype=lam.dtype, device=lam.device)
        own: Tensor = drawn.argsort(1) < (lam * count).round().unsqueeze(1)
        return own.view(len(lam), 1, *[self.cells] * axes)

    def _spread(self, cells: Tensor, size: tuple[int, ...]) -> Tensor:
        """Every cell over its pixels."""
        for axis, side in enumerate(size, start=2):
            cells = cells.index_select(axis, torch.arange(side, device=cells.device) * self.cells // side)
        return cells
