"""The density that the mixing weights come from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from batchmix.errors import MixError
from batchmix.pictures.canvas import INK, axes_at, new_figure
from batchmix.pictures.checks import as_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FAINT = "#666666"
# Okabe and Ito's palette, which stays distinct under the common colour blindnesses, and a dark grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#444444")
DASHES = (0, (4, 2))
# Curves in one row of the key.
KEY_COLUMNS = 3
# Above this a Beta density is a spike at a half, and there is nothing left to see.
LARGEST_ALPHA = 10_000.0


def draw_beta(alpha: float | Sequence[float] = 0.4, fold: bool = False) -> Figure:
    """Draw the density that the mixing weights come from.

    For ``alpha`` below 1 the density is infinite at 0 and at 1: the y axis is cut there, and a line beside
    the title says so.

    Args:
        alpha: Shape of Beta(alpha, alpha), > 0, or up to seven of them to compare. At 0 there is no density:
            every weight is 1.
        fold: Draw also, dashed, the density of ``max(lam, 1-lam)``, which is what a folded mixup draws from.

    Returns:
        A figure with one axes: lam from 0 to 1, and the density.

    Raises:
        MixError: If an ``alpha`` is not a number in (0, 10000].

    Example:
        >>> draw_beta(0.4).axes[0].get_xlabel()
        'lam, the weight of the sample itself'

    Source: Gugger 2018, "Mixup data augmentation", fast.ai, second picture; paper: arXiv:1710.09412.
    """
    alphas = _alphas(alpha)
    single = len(alphas) == 1
    entries = len(alphas) + fold
    key_rows = math.ceil(entries / KEY_COLUMNS) if entries > 1 else 0
    figure = new_figure(6.4, 3.5 + 0.25 * key_rows)
    axes = axes_at(figure, 0.8, 0.6, 5.4, 2.5)
    for number, colour in zip(alphas, COLOURS, strict=False):
        _draw_density(axes, number, fold, colour, shade=single)
    if fold:
        # An empty line, for the key alone: dashes mean the same in every colour.
        colour, name = (COLOURS[0], "folded: max(lam, 1 − lam)") if single else (FAINT, "folded")
        axes.plot([], [], color=colour, linewidth=2, linestyle=DASHES, label=name)
    _dress_density(axes, alphas, key_rows, _top(alphas, fold))
    return figure


def beta_density(lam: Tensor, alpha: float) -> Tensor:
    """Compute the density of Beta(alpha, alpha).

    Args:
        lam: Where, any shape, in [0, 1].
        alpha: Shape of the density, > 0.

    Returns:
        The shape of ``lam``, float64; infinite at 0 and 1 where ``alpha`` is below 1.

    Raises:
        MixError: If ``alpha`` is not a number in (0, 10000].

    Example:
        >>> beta_density(torch.tensor([0.0, 0.5, 1.0]), 2.0)
        tensor([0.0000, 1.5000, 0.0000], dtype=torch.float64)
    """
    (alpha,) = _alphas((alpha,))
    lam = lam.double()
    power = torch.full_like(lam, alpha - 1)
    # xlogy, because at alpha 1 the ends are 0 * log(0), which has to be 0.
    logs = torch.xlogy(power, lam) + torch.xlogy(power, 1 - lam)
    return (logs + math.lgamma(2 * alpha) - 2 * math.lgamma(alpha)).exp()


def _alphas(alpha: Any) -> list[float]:
    """One number or several, as a list."""
    takes = "a number > 0 and at most 10000, or up to seven of them"
    several = isinstance(alpha, Sequence) and not isinstance(alpha, str)
    alphas = list(alpha) if several else [alpha]
    if not 1 <= len(alphas) <= len(COLOURS):
        raise MixError.of("alpha", alpha, takes)
    numbers = [as_number("alpha", one, 0.0, LARGEST_ALPHA, takes) for one in alphas]
    if min(numbers) == 0:
        raise MixError.of("alpha", alpha, f"{takes} (at 0 every weight is 1 and there is no density)")
    return numbers


def _draw_density(axes: Axes, alpha: float, fold: bool, colour: str, *, shade: bool) -> None:
    """Draw one curve, and its folded half dashed."""
    # The cosine puts points close together at the ends, where the curve is steep; the ends stay out.
    lam = (1 - torch.linspace(0, math.pi, 2003, dtype=torch.float64).cos()[1:-1]) / 2
    density = beta_density(lam, alpha)
    axes.plot(lam.numpy(), density.numpy(), color=colour, linewidth=2, label=f"alpha = {alpha:g}")
    if not fold:
        return
    # The middle one of an odd number of points is a half, by the symmetry that rounding may miss.
    middle = len(lam) // 2
    right, folded = lam[middle:].numpy(), 2 * density[middle:].numpy()
    axes.plot(right, folded, color=colour, linewidth=2, linestyle=DASHES)
    if shade:
        axes.fill_between(right, folded, color=colour, alpha=0.12, linewidth=0)


def _dress_density(axes: Axes, alphas: list[float], key_rows: int, top: float) -> None:
    """Axes, title and key; the y axis ends where the curves that go to infinity have left the picture."""
    pad = 8 + 18 * key_rows
    title = f"Beta({alphas[0]:g}, {alphas[0]:g})" if len(alphas) == 1 else "Beta(alpha, alpha)"
    axes.set_title(title, size=14, color=INK, loc="left", pad=pad)
    if min(alphas) < 1:
        which = "" if max(alphas) < 1 else "alpha < 1: "
        axes.set_title(f"{which}infinite at 0 and 1, cut here", size=11, color=FAINT, loc="right", pad=pad)
    if key_rows:
        axes.legend(
            ncols=KEY_COLUMNS,
            loc="lower left",
            bbox_to_anchor=(-0.02, 0.98),
            frameon=False,
            fontsize=11,
            labelcolor=INK,
            handlelength=2.2,
        )
    axes.set(xlim=(0, 1), ylim=(0, top), xticks=[0, 0.25, 0.5, 0.75, 1])
    axes.locator_params(axis="y", nbins=5)
    axes.set_xlabel("lam, the weight of the sample itself", size=12, color=INK)
    axes.set_ylabel("density", size=12, color=INK)
    axes.tick_params(labelsize=11, colors=INK)
    axes.spines[["top", "right"]].set_visible(False)


def _top(alphas: list[float], fold: bool) -> float:
    """Where the y axis ends: above the finite peaks, and above the infinite ones but for the last 3%."""
    peaks = [beta_density(torch.tensor(0.5 if alpha >= 1 else 0.03), alpha) for alpha in alphas]
    return 1.1 * max(1.0, float(max(peaks))) * (2 if fold else 1)
