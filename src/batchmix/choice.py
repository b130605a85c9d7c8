"""One of several methods, for every batch or for every sample."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from batchmix.core.plan import MixPlan, as_rows, describe
from batchmix.core.sampling import check_choice, check_probability
from batchmix.errors import MixError
from batchmix.mixer import Draws, Mixer, MixerOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

PerChoice = Literal["batch", "sample"]


class Choice(Mixer):
    """Draws one of several methods; what is left of the probabilities to 1 means no mixing.

    The methods keep their own arguments (``alpha``, ``p``, schedules); seed and step are those of the choice.

    Args:
        methods: The probability of each method, >= 0, at most 1 together.
        per: Choose for each ``"batch"``, or for each ``"sample"``.
        options: ``p``, ``p_sample``, ``schedule`` and ``seed``, as for ``Mixer``. A schedule can name a
            method by its class, ``{"CutMix": bm.ramp(0, 1, steps=1000)}``, as the factor of its probability.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> import batchmix as bm
        >>> mixer = Choice({bm.Mixup(0.4): 0.5, bm.CutMix(1.0): 0.3}, seed=0)  # a fifth of batches unmixed
        >>> x, y = mixer(torch.rand(8, 3, 32, 32), torch.randint(10, (8,)))
    """

    def __init__(
        self,
        methods: Mapping[Mixer, float],
        *,
        per: PerChoice = "batch",
        **options: Unpack[MixerOptions],
    ) -> None:
        if not isinstance(methods, Mapping) or not methods:
            raise MixError(f"methods takes a mapping from methods to probabilities, got {describe(methods)}")
        for method in methods:
            if not isinstance(method, Mixer):
                raise MixError(f"methods takes methods such as Mixup(0.4) as keys, got {describe(method)}")
        check_choice("per", per, get_args(PerChoice))
        self.methods = dict(zip(_names_of(list(methods)), methods, strict=True))
        self.probabilities = {
            name: check_probability(methods[method], f"methods[{name}]")
            for name, method in self.methods.items()
        }
        self.per = per
        given = list(self.probabilities.values())
        if sum(given) > 1 + 1e-9:
            raise MixError.of("methods", given, "probabilities of at most 1 together")
        super().__init__(**options)

    def _names(self) -> tuple[str, ...]:
        return (*super()._names(), *self.methods)

    def _value(self, name: str) -> float:
        return self.probabilities[name] if name in self.methods else super()._value(name)

    def _sample(
        self, draws: Draws, x: Tensor, y: Tensor | None, between: bool, settings: dict[str, float]
    ) -> MixPlan | None:
        ends = _cumulated(settings)
        if self.per == "batch":
            which = draws.fork("choice").coin
            for (name, method), end in zip(self.methods.items(), ends, strict=True):
                if which < end:
                    return method._plan(draws.fork(name), x, y, between)
            return None
        generator = draws.generator(x.device)
        drawn = torch.rand(len(x), generator=generator, device=generator.device)
        plans = [method._plan(draws.fork(name), x, y, between) for name, method in self.methods.items()]
        chosen = torch.bucketize(drawn, torch.tensor(ends, device=drawn.device), right=True)
        return _merge(plans, chosen)


def _names_of(methods: list[Mixer]) -> list[str]:
    """Class names; of two methods of one class the second is ``Mixup_2``."""
    names: list[str] = []
    for method in methods:
        name = type(method).__name__
        earlier = sum(other.partition("_")[0] == name for other in names)
        names.append(f"{name}_{earlier + 1}" if earlier else name)
    return names


def _cumulated(settings: dict[str, float]) -> list[float]:
    """Where the share of each method ends."""
    ends = list(accumulate(settings.values()))
    if ends[-1] > 1 + 1e-9:
        raise MixError.of("schedule", settings, "factors that leave probabilities of at most 1 together")
    return ends


def _merge(plans: list[MixPlan | None], chosen: Tensor) -> MixPlan:
    """One plan in which sample i follows ``plans[chosen[i]]``, or stays as it is where there is none."""
    plan = MixPlan.identity(len(chosen), chosen.device)
    partner, lam, mask = plan.partner, plan.lam, plan.mask
    for place, other in enumerate(plans):
        if other is None:
            continue
        other = other.to(chosen.device)
        here = chosen == place
        if mask is not None or other.mask is not None:
            mask = _merge_masks(mask, lam, other, here)
        partner = torch.where(here, other.partner, partner)
        lam = torch.where(here, other.lam, lam)
    return MixPlan(partner, lam, mask)


def _merge_masks(mask: Tensor | None, lam: Tensor, other: MixPlan, here: Tensor) -> Tensor:
    """Masks of all samples; one that is blended as a whole has its ``lam`` at every position."""
    ndim = (other.mask if other.mask is not None else mask).dim()  # type: ignore[union-attr]
    old = as_rows(lam, ndim) if mask is None else mask
    new = as_rows(other.lam, ndim) if other.mask is None else other.mask
    if old.dtype != new.dtype:
        old, new = old.float(), new.float()
    return torch.where(as_rows(here, ndim), new, old)
