"""k-mixup: groups of k samples are mixed along the shortest way from one group to the other.

How to use: ``x, y = KMixup(1.0, k=8)(x, y)`` before the model, during training only; needs scipy.

Suggested values: ``k`` 2 to 32, well below half of the batch; the larger ``k``, the nearer the partners, so
that a larger ``alpha`` can be afforded. ``k=1`` is mixup with partners drawn as a ring.

Technical details: the batch is put in a random order and cut into groups of ``k``; a group's partners are the
next ``k`` of that order, assigned one to one with the least sum of squared distances (an exact optimal
transport). Departures from the paper: both groups come from one batch, so that every sample is the partner of
exactly one; ``k`` is at most half of the batch, since a group matched with itself mixes nothing; the last
group may be smaller. The assignment is solved on the CPU: the distances, k*k numbers a group, are copied
there at every step, and a GPU is waited for.

Paper: Greenewald et al. 2021, k-Mixup Regularization for Deep Learning via Optimal Transport,
arXiv:2106.02933.
"""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from typing_extensions import Unpack

from batchmix.core.masks import plan_of_weights
from batchmix.core.plan import MixPlan
from batchmix.core.sampling import check_alpha, check_choice, check_count, check_flag, sample_lam
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError, needs
from batchmix.mixer import Mixer, MixerOptions, check_pair

PerGroup = Literal["batch", "group", "sample"]


class KMixup(Mixer):
    """mixup between groups of k samples, matched by optimal transport.

    Row i becomes ``lam[i]*x[i] + (1-lam[i])*x[partner[i]]``, where the partners of a group of ``k`` samples
    are those of another group, each to each, so that the sum of ``|x[i] - x[partner[i]]|**2`` is the least.

    Args:
        alpha: Shape of the Beta density, >= 0; 0 mixes nothing.
        k: Samples a group, >= 1; half of the batch where that is less.
        per: A ``lam`` for each ``"group"``, for each ``"sample"``, or for the ``"batch"``.
        fold: ``lam = max(lam, 1-lam)``.
        options: ``p``, ``p_sample``, ``schedule``, ``seed``, ``rank`` and ``normalize``, as for ``Mixer``.

    Raises:
        MixError: If an argument is not of the form above, or samples are not finite.
        ModuleNotFoundError: At the first batch, where scipy is not installed.

    Example:
        >>> kmixup = KMixup(alpha=1.0, k=2, seed=0)
        >>> x, y = kmixup(torch.rand(8, 3, 8, 8), torch.randint(10, (8,)))
        >>> len(y), len(y.lam.unique())
        (8, 4)

    Source: Greenewald et al. 2021, arXiv:2106.02933, section 2.
    """

    takes: ClassVar[str] = "any samples"

    hyperparameters: ClassVar[tuple[str, ...]] = ("alpha",)

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        k: int = 8,
        per: PerGroup = "group",
        fold: bool = False,
        **options: Unpack[MixerOptions],
    ) -> None:
        self.alpha = check_alpha(alpha)
        self.k = check_count("k", k)
        check_choice("per", per, get_args(PerGroup))
        self.per = per
        self.fold = check_flag("fold", fold)
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
        """Draw groups, match them, then draw weights. See ``Mixer.sample``."""
        count = len(x)
        order = torch.randperm(count, generator=generator, device=generator.device)
        k = min(self.k, count) if between else max(1, min(self.k, count // 2))
        own = torch.arange(count, device=generator.device)
        partner = own if between else match(x, x, order, order.roll(-k), k)
        lam = self._weights(order, k, settings["alpha"], generator)
        return plan_of_weights(partner, lam, per=self.per, between=between)

    def between(
        self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, MixedTarget]:
        """Mix two batches, the paper's form: random groups of the first with random groups of the second.

        ``b`` of the target, the partners' labels, are in the order of the match. See ``Mixer.between``.
        """
        (x1, y1), (x2, y2) = check_pair("first", first), check_pair("second", second)
        if x1.shape == x2.shape and all(part.dim() and len(part) == len(x1) > 0 for part in (x1, y1, y2)):
            second = self._matched(x1, x2, y2)
        return super().between(first, second)  # which says what is wrong with others

    def _matched(self, x1: Tensor, x2: Tensor, y2: Tensor) -> tuple[Tensor, Tensor]:
        """The second batch, in the order in which the first one's samples are matched with it."""
        draws = self._draws(None)  # the first order is the one that ``sample`` will draw
        one, two = (
            torch.randperm(len(x1), generator=generator, device=generator.device)
            for generator in (drawn.generator(x1.device) for drawn in (draws, draws.fork("match")))
        )
        first, second = (self._seen(x, self.normalize) for x in (x1, x2))
        partner = match(first, second, one, two, self.k).to(x2.device)
        return x2[partner], y2[partner]

    def _weights(self, order: Tensor, k: int, alpha: float, generator: torch.Generator) -> Tensor:
        """A weight for each sample; members of a group stand side by side in ``order``."""
        count = len(order)
        if self.per != "group":
            return sample_lam(alpha, count, per=self.per, fold=self.fold, generator=generator)
        lam = sample_lam(alpha, -(-count // k), fold=self.fold, generator=generator)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(count, device=order.device))
        return lam[place // k]


def match(x: Tensor, other: Tensor, order: Tensor, other_order: Tensor, k: int) -> Tensor:
    """Whom each sample of ``x`` is matched with: groups of ``k``, in the two orders, at the least distance.

    Args:
        x: (B, ...), floating point.
        other: (B, ...), which the partners are from.
        order: (B,) int64, a permutation, cut into groups of ``k``.
        other_order: (B,) int64, the same of ``other``.
        k: Samples a group.

    Returns:
        (B,) int64 on the device of ``order``, a permutation: the row of ``other`` for each row of ``x``.
    """
    with needs("cli"):
        from scipy.optimize import linear_sum_assignment
    left, right = (part.detach().reshape(len(part), -1).float() for part in (x, other))
    groups = list(zip(_split(order, k), _split(other_order, k), strict=True))
    distances = [
        torch.cdist(
            left[rows.to(x.device)],
            right[columns.to(x.device)],
            compute_mode="donot_use_mm_for_euclid_dist",  # which loses small distances between large values
        ).square()
        for rows, columns in groups
    ]
    costs = torch.cat([distance.flatten() for distance in distances]).cpu()  # one copy to the host for all
    if not costs.isfinite().all():
        raise MixError("x takes finite samples, which distances can be taken of, got some that are not")
    partner, start = torch.empty_like(order), 0
    for rows, columns in groups:
        size = len(rows)
        cost = costs[start : start + size * size].view(size, size)
        start += size * size
        _, chosen = linear_sum_assignment(cost.numpy())
        partner[rows] = columns[torch.from_numpy(chosen).to(columns.device)]
    return partner


def _split(order: Tensor, k: int) -> list[Tensor]:
    return [order[start : start + k] for start in range(0, len(order), k)]
