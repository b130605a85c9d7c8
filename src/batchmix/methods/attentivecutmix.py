"""Attentive CutMix: the cells of the partner that a network attends to most are pasted into every image.

How to use: give it the attention of a trained network, a callable from images (B, C, H, W) to maps (B, h, w).
With a torchvision ResNet-50,
``body = nn.Sequential(*list(resnet50(weights="DEFAULT").eval().children())[:-2])``, that is
``AttentiveCutMix(lambda x: body(x).mean(1))``, or a function of that content where the mixer has to be
pickled. Then ``x, y = mixer(x, y)`` before the model, during training only. The network is called on every
batch that is mixed, without a graph; keep it in ``eval()``, or its running statistics move.
Suggested values: ``grid`` 7 and ``cells`` 6, the paper's for images of 224 pixels.
Technical details: the image is cut into ``grid`` x ``grid`` cells, of which the partner's ``cells`` with the
largest mean attention are pasted where they were; the label's weight is the exact share of pixels that stay,
also where the sides are no multiples of ``grid``. An image of fewer pixels than ``grid`` on a side has one
cell a pixel there. The only randomness is who is whose partner. Departure from the paper: without an
``attention`` of yours the map is the fine-grained saliency of Montabone and Soto 2010, which needs no
network. Two batches cannot be mixed ``between`` each other, since a method sees the first of them only.
Paper: Walawalkar, Shen, Liu and Savvides 2020, Attentive CutMix: An Enhanced Data Augmentation Approach for
Deep Learning Based Image Classification, arXiv:2003.13048.
"""

from __future__ import annotations

from typing import ClassVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Unpack

from batchmix.core.masks import draw_partners, mean_of, plan_of
from batchmix.core.plan import MixPlan
from batchmix.core.saliency import Look, fine_grained, maps_of
from batchmix.core.sampling import Policy, check_choice, check_count
from batchmix.errors import MixError
from batchmix.mixer import Mixer, MixerOptions


class AttentiveCutMix(Mixer):
    """Attentive CutMix of a batch with a shuffled version of itself.

    The most attended cells of sample ``partner[i]`` replace the same cells of sample i; ``lam`` is the share
    of pixels that stay, ``1 - cells / grid**2`` where ``grid`` divides the sides.

    Args:
        attention: From images (B, C, H, W) to maps (B, h, w) of any resolution.
        grid: Cells on each side, >= 1.
        cells: Number of cells to paste, from 0 to ``grid**2``.
        partner: ``"shuffle"``, ``"derangement"``, ``"roll"``, ``"other-class"`` or ``"same-class"``.
        options: ``p``, ``p_sample``, ``schedule``, ``seed``, ``rank`` and ``normalize``, as for ``Mixer``.

    Raises:
        MixError: If an argument is not of the form above, or the samples are not images.

    Example:
        >>> mixer = AttentiveCutMix(lambda x: x.mean(1), grid=4, cells=2, partner="roll", seed=0)
        >>> x, y = mixer(torch.rand(8, 3, 32, 32), torch.randint(10, (8,)))
        >>> y.lam.unique()
        tensor([0.8750])

    Source: Walawalkar et al. 2020, arXiv:2003.13048.
    """

    pastes: ClassVar[bool] = True

    mixes_between: ClassVar[bool] = False

    def __init__(
        self,
        attention: Look = fine_grained,
        *,
        grid: int = 7,
        cells: int = 6,
        partner: Policy = "shuffle",
        **options: Unpack[MixerOptions],
    ) -> None:
        if not callable(attention):
            raise MixError.of("attention", attention, "a callable from images to maps")
        self.grid = check_count("grid", grid)
        check_choice("partner", partner, get_args(Policy))
        self.attention = attention
        self.cells = check_count("cells", cells, 0, self.grid**2)
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
        """Draw partners; the cells are where the partners are attended. See ``Mixer.sample``."""
        maps = maps_of(self.attention, x, name="attention").to(generator.device)
        height, width = x.shape[2:]
        partner = draw_partners(x, y, self.partner, per="sample", between=False, generator=generator)
        means = _means_of_cells(maps, (height, width), (min(self.grid, height), min(self.grid, width)))
        attended = self._attended(means)[partner]
        row, column = (
            torch.arange(side, device=maps.device) * cells // side
            for side, cells in zip((height, width), attended.shape[1:], strict=True)
        )
        mask = ~attended[:, row][:, :, column].unsqueeze(1)
        return plan_of(partner, mask, mean_of(mask), per="sample", between=False)

    def _attended(self, means: Tensor) -> Tensor:
        """The cells of largest mean attention, (B, rows, columns) bool."""
        flat = means.flatten(1)
        top = flat.topk(min(self.cells, flat.shape[1]), dim=1).indices
        return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, top, value=True).view_as(means)


def _means_of_cells(maps: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Mean of maps (B, h, w) over the cells of images (H, W), (B, rows, columns); maps of cells stay."""
    sides = zip((*maps.shape[1:], *size), (*grid, *grid), strict=True)
    if all(side % cells == 0 for side, cells in sides):
        return F.adaptive_avg_pool2d(maps.unsqueeze(1), grid).squeeze(1)
    if maps.shape[1:] == grid:
        return maps
    (row, in_row), (column, in_column) = (
        _pixels_of_cells(pixels, cells, maps.device) for pixels, cells in zip(size, grid, strict=True)
    )
    if maps.shape[1:] != size:
        maps = F.adaptive_avg_pool2d(maps.unsqueeze(1), size).squeeze(1)
    taken = maps[:, row][..., column]  # (B, rows, pixels of a cell, columns, pixels of a cell)
    there = in_row[:, :, None, None] & in_column
    return taken.where(there, torch.zeros_like(taken)).sum((2, 4)) / there.sum((1, 3))


def _pixels_of_cells(pixels: int, cells: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The pixels of each cell along a side, (cells, most), and which of them are its: some have one less."""
    first = -(torch.arange(cells + 1, device=device) * -pixels // cells)
    pixel = first[:-1, None] + torch.arange(-(-pixels // cells), device=device)
    return pixel.clamp(max=pixels - 1), pixel < first[1:, None]
