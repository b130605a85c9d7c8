"""Tabular CutMix: columns of every row are replaced by the partner's; nothing is blended.

How to use: ``x, y = TabularCutMix()(x, y)`` on rows (B, F), or on several tables of columns in a tuple or
dict, such as ``(categories, numbers)``; categories stay the integers they are. ``between`` and a ``Choice``
take one table of floats.

Suggested values: ``alpha`` 1, or ``rate=0.3``, as in SAINT's paper (0.1 in its code); one-hot columns of one
category in a group.

Technical details: every column, or every group of them, is taken from the partner with probability
``1 - lam``, ``lam ~ Beta(alpha, alpha)``; the label's weight is the exact share of columns that stay, or of
their weights. Several tables are counted as one, first columns first, and so are ``groups`` and ``weights``.
Departures from the papers: SAINT and VIME corrupt rows for pretraining, at a fixed rate and without labels;
here the labels are mixed too. VIME takes each column from a row of its own, here all are one partner's.

Paper: Somepalli et al. 2021, SAINT: Improved Neural Networks for Tabular Data via Row Attention and
Contrastive Pre-Training, arXiv:2106.01342; Yoon et al. 2020, VIME: Extending the Success of Self- and
Semi-supervised Learning to Tabular Domain, NeurIPS.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor
from typing_extensions import Unpack

from batchmix.core.applying import apply_plan
from batchmix.core.batches import Kinds, Leaf, lead_of, target_of
from batchmix.core.masks import draw_partners, who_stays
from batchmix.core.plan import MixPlan, describe
from batchmix.core.sampling import Policy, check_alpha, check_choice, check_probability, sample_lam
from batchmix.core.whole import paste
from batchmix.errors import MixError
from batchmix.mixer import Mixer, MixerOptions


class TabularCutMix(Mixer):
    """CutMix of columns.

    The plan's mask is (B, F), true where a column is the row's own, over the columns of all tables of ``x``.

    Args:
        alpha: Shape of the Beta density, >= 0; 0 mixes nothing.
        rate: Probability that a column is taken from the partner, instead of a draw by ``alpha`` for each
            row.
        groups: Columns that stay together, such as the one-hot columns of a category:
            ``[[3, 4, 5], [6, 7]]``.
        weights: How much each of the F columns counts in ``lam``, >= 0; all alike if left out.
        partner: ``"shuffle"``, ``"derangement"``, ``"roll"``, ``"other-class"`` or ``"same-class"``.
        options: ``p``, ``p_sample``, ``schedule`` and ``seed``, as for ``Mixer``.

    Raises:
        MixError: If an argument is not of the form above, or an input is not a table (B, F).

    Example:
        >>> cutmix = TabularCutMix(groups=[[0, 1, 2]], seed=0)
        >>> categories, numbers = torch.eye(3), torch.rand(3, 4)
        >>> (categories, numbers), y = cutmix((categories, numbers), torch.tensor([0, 1, 1]))
        >>> categories.sum(1)
        tensor([1., 1., 1.])

    Source: Somepalli et al. 2021, arXiv:2106.01342, section 3.2 (CutMix).
    """

    takes: ClassVar[str] = "tables"

    pastes: ClassVar[bool] = True

    hyperparameters: ClassVar[tuple[str, ...]] = ("alpha",)

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        rate: float | None = None,
        groups: Sequence[Sequence[int]] | None = None,
        weights: Sequence[float] | None = None,
        partner: Policy = "shuffle",
        **options: Unpack[MixerOptions],
    ) -> None:
        self.alpha = check_alpha(alpha)
        self.rate = None if rate is None else check_probability(rate, "rate")
        self.groups = None if groups is None else _check_groups(groups)
        self.weights = None if weights is None else _check_weights(weights)
        check_choice("partner", partner, get_args(Policy))
        self.partner = partner
        super().__init__(**options)

    def _kinds_of(self, x: Any, kinds: Kinds | None) -> Kinds:
        """All of ``x`` are columns, integers too, but for what the user names."""
        return {"x": "input", **(kinds or {})}

    def sample(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        between: bool = False,
        generator: torch.Generator,
        **settings: float,
    ) -> MixPlan:
        """Draw partners, then shares, then columns. See ``Mixer.sample``."""
        if x.dim() != 2 or not x.shape[1]:
            raise MixError(f"x takes rows of columns (B, F), all >= 1, got {describe(x)}")
        (count, columns), device = x.shape, generator.device
        partner = draw_partners(x, y, self.partner, per="sample", between=between, generator=generator)
        if self.rate is None:
            stay = sample_lam(settings["alpha"], count, fold=False, generator=generator)
        else:
            stay = torch.full((count,), 1 - self.rate, dtype=torch.float32, device=device)
        drawn = torch.rand(count, columns, generator=generator, dtype=torch.float32, device=device)
        if self.groups is not None:
            drawn = drawn[:, _to(device, self._first_of_group(columns), torch.int64)]
        mask = drawn < stay.unsqueeze(1)
        own = who_stays(partner, per="sample", between=between)
        if own is not None:
            mask = mask | own.unsqueeze(1)
        return MixPlan(partner, self._share(mask), mask)

    def _share(self, mask: Tensor) -> Tensor:
        """The weight of the columns that are the row's own, (B,) float32."""
        if self.weights is None:
            return mask.double().mean(1).float()
        if len(self.weights) != mask.shape[1]:
            raise MixError(f"weights takes one number a column, {mask.shape[1]}, got {len(self.weights)}")
        weights = _to(mask.device, self.weights, torch.float64)
        taken = (~mask * weights).sum(1) / math.fsum(self.weights)
        # The row that is all its partner's has weight 0 whatever the rounding of the sum.
        return torch.where(mask.any(1), 1 - taken, 0).clamp(min=0).float()

    def _first_of_group(self, columns: int) -> list[int]:
        """For each column the one whose draw it follows: the first of its group, or itself."""
        first = list(range(columns))
        for group in self.groups or ():
            if max(group) >= columns:
                raise MixError(f"groups takes columns below {columns}, as x has, got {max(group)}")
            for column in group:
                first[column] = group[0]
        return first

    def _draw_for(self, leaves: list[Leaf], step: int | None) -> MixPlan | None:
        """One plan over the columns of all tables."""
        tables = _tables(leaves)
        columns = sum(leaf.value.shape[1] for leaf in tables)
        shape_of_all = lead_of(leaves).new_empty(()).expand(len(tables[0].value), columns)
        return self._draw(shape_of_all, target_of(leaves), step=step)

    def _apply(self, leaves: list[Leaf], plan: MixPlan) -> dict[str, Any]:
        """Every table by its part of the mask."""
        tables = _tables(leaves)
        widths = [leaf.value.shape[1] for leaf in tables]
        if plan.mask is None or plan.mask.dim() != 2 or plan.mask.shape[1] != sum(widths):
            raise MixError(f"plan takes one with a mask (B, {sum(widths)}), got {describe(plan.mask)}")
        mixed = {leaf.path: apply_plan(leaf, plan) for leaf in leaves if leaf.kind != "input"}
        for leaf, mask in zip(tables, torch.split(plan.mask, widths, 1), strict=True):
            mixed[leaf.path] = paste(leaf.value, mask, plan.partner)
        return mixed


def _tables(leaves: list[Leaf]) -> list[Leaf]:
    lead_of(leaves)  # says so if there is none
    tables = [leaf for leaf in leaves if leaf.kind == "input"]
    for leaf in tables:
        if leaf.value.dim() != 2:
            raise MixError(f"{leaf.path} takes rows of columns (B, F), got {describe(leaf.value)}")
    return tables


def _to(device: torch.device, values: Sequence[float], dtype: torch.dtype) -> Tensor:
    """Numbers of the host on a device, without waiting for it."""
    tensor = torch.tensor(values, dtype=dtype, device="cpu")  # not torch's default device
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _check_groups(groups: Any) -> tuple[tuple[int, ...], ...]:
    takes = "lists of columns, each column in one list at most, such as [[3, 4, 5], [6, 7]]"
    if not isinstance(groups, (list, tuple)) or not all(isinstance(group, (list, tuple)) for group in groups):
        raise MixError.of("groups", groups, takes)
    named = [column for group in groups for column in group]
    whole = all(isinstance(column, int) and column >= 0 for column in named)
    if not whole or len(set(named)) != len(named) or not all(groups):
        raise MixError.of("groups", groups, takes)
    return tuple(tuple(group) for group in groups)


def _check_weights(weights: Any) -> tuple[float, ...]:
    takes = "a finite number >= 0 for each column, not all 0"
    if hasattr(weights, "tolist"):  # a tensor or an array
        weights = weights.tolist()
    if not isinstance(weights, (list, tuple)):
        raise MixError.of("weights", weights, takes)
    numbers = all(isinstance(value, (int, float)) and 0 <= value < math.inf for value in weights)
    if not numbers or not sum(weights):
        raise MixError.of("weights", weights, takes)
    return tuple(float(value) for value in weights)
