"""One of several methods, for every batch or for every sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor
from typing_extensions import Unpack

from batchmix.core.draws import Draws
from batchmix.core.normalizing import Normalize
from batchmix.core.plan import MixPlan, as_rows, describe, spread
from batchmix.core.sampling import check_choice, check_probability
from batchmix.errors import MixError, shorten
from batchmix.mixer import Mixer, MixerOptions, methods_in

PerChoice = Literal["batch", "sample"]
Method = TypeVar("Method", bound=Mixer)  # for type checkers no dict[Mixup, float] is a Mapping[Mixer, float]


class Choice(Mixer):
    """Draws one of several methods; what is left of the probabilities to 1 means no mixing.

    The methods keep their own arguments (``alpha``, ``p``, schedules); seed, rank and step are the choice's.

    Args:
        methods: The probability of each method, >= 0, at most 1 together. (Not ``EnergyMixup`` and
            ``TokenCutMix``: they do more than a plan can say.)
        per: Choose for each ``"batch"``, or for each ``"sample"``.
        options: ``p``, ``p_sample``, ``schedule``, ``seed``, ``rank`` and ``normalize``, as for ``Mixer``;
            the last is that of all methods. A schedule can name a method by its class,
            ``{"CutMix": bm.ramp(0, 1, steps=1000)}``, as the factor of its probability.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> import batchmix as bm
        >>> mixer = Choice({bm.Mixup(0.4): 0.5, bm.CutMix(1.0): 0.3}, seed=0)  # a fifth of batches unmixed
        >>> x, y = mixer(torch.rand(8, 3, 32, 32), torch.randint(10, (8,)))
    """

    def __init__(
        self,
        methods: Mapping[Method, float],
        *,
        per: PerChoice = "batch",
        **options: Unpack[MixerOptions],
    ) -> None:
        if not isinstance(methods, Mapping) or not methods:
            raise MixError(f"methods takes a mapping from methods to probabilities, got {describe(methods)}")
        for method in methods:
            if not isinstance(method, Mixer):
                raise MixError(f"methods takes methods such as Mixup(0.4) as keys, got {describe(method)}")
            if not method.whole_plan:
                name = type(method).__name__
                raise MixError(f"methods takes ones that a plan says all about, got {name}, which does more")
            if method.normalize is not None:
                raise MixError(
                    "methods takes ones without normalize, which the choice has for all of them, "
                    f"got {shorten(method)}"
                )
        check_choice("per", per, get_args(PerChoice))
        names = _names_of(methods)
        self.methods: dict[str, Mixer] = dict(zip(names, methods, strict=True))
        self.probabilities = {
            name: check_probability(probability, f"methods[{name}]")
            for name, probability in zip(names, methods.values(), strict=True)
        }
        self.per = per
        given = list(self.probabilities.values())
        if sum(given) > 1 + 1e-9:
            raise MixError.of("methods", given, "probabilities of at most 1 together")
        super().__init__(**options)
        if self.normalize is not None:
            for mixer in self.methods.values():
                mixer._check_normalize(self.normalize)

    def _check_between(self) -> None:
        super()._check_between()
        for method in methods_in(self):
            if type(method).between is not Mixer.between:  # as KMixup's, which matches them first
                raise MixError(
                    "between takes methods that mix two batches as they come, "
                    f"got a Choice with {type(method).__name__}"
                )

    def _names(self) -> tuple[str, ...]:
        return (*super()._names(), *self.methods)

    def _value(self, name: str) -> float:
        return self.probabilities[name] if name in self.methods else super()._value(name)

    def _always_pastes(self) -> bool:
        return all(method._always_pastes() for method in self.methods.values())

    def _sample(
        self,
        draws: Draws,
        x: Tensor,
        y: Tensor | None,
        between: bool,
        settings: dict[str, float],
        normalize: Normalize | None,
    ) -> MixPlan | None:
        ends = _cumulated(settings)
        if self.per == "batch":
            which = draws.fork("choice").coin
            for (name, method), end in zip(self.methods.items(), ends, strict=True):
                if which < end:
                    return method._plan(draws.fork(name), x, y, between, normalize)
            return None
        plans = [
            method._plan(draws.fork(name), x, y, between, normalize) if settings[name] > 0 else None
            for name, method in self.methods.items()
        ]
        generator = draws.generator(x.device)
        drawn = torch.rand(len(x), generator=generator, dtype=torch.float32, device=generator.device)
        before = torch.zeros_like(drawn, dtype=torch.int64)  # how many methods' shares end before the draw
        for end in ends:
            before += drawn >= end
        return _merge(plans, before.to(x.device))  # where the plans are


def _names_of(methods: Iterable[Mixer]) -> list[str]:
    """Class names; of two methods of one class the second is ``Mixup_2``."""
    names: list[str] = []
    of_class: Counter[str] = Counter()
    for method in methods:
        name = type(method).__name__
        of_class[name] += 1
        names.append(name if of_class[name] == 1 else f"{name}_{of_class[name]}")
    return names


def _cumulated(settings: dict[str, float]) -> list[float]:
    """Where the share of each method ends."""
    ends = list(accumulate(settings.values()))
    if ends[-1] > 1 + 1e-9:
        raise MixError.of("schedule", settings, "factors that leave probabilities of at most 1 together")
    return ends


def _merge(plans: list[MixPlan | None], chosen: Tensor) -> MixPlan | None:
    """One plan in which sample i follows ``plans[chosen[i]]``, or stays as it is where there is none."""
    drawn = {place: plan for place, plan in enumerate(plans) if plan is not None}
    if not drawn:
        return None
    merged = MixPlan.identity(len(chosen), chosen.device)
    partner, lam = merged.partner, merged.lam
    mask, window = _nothing_of(list(drawn.values()), len(chosen))
    for place, plan in drawn.items():
        here = chosen == place
        partner = torch.where(here, plan.partner, partner)
        lam = torch.where(here, plan.lam, lam)
        if mask is not None:
            mask = torch.where(as_rows(here, mask.dim()), _mask_like(mask, plan), mask)
        if window is not None and plan.window is not None:
            # One of fewer ends is of the last positions alone: the first stay whole.
            first = window.shape[1] - plan.window.shape[1]
            ends = torch.cat([window[:, :first], plan.window], 1)
            window = torch.where(here.unsqueeze(1), ends, window)
    return MixPlan(partner, lam, mask, window)


def _nothing_of(plans: list[MixPlan], count: int) -> tuple[Tensor | None, Tensor | None]:
    """The mask and the window of samples that stay as they are, if any of the plans has one."""
    masks = [plan.mask for plan in plans if plan.mask is not None]
    if not masks:
        return None, None
    largest = max(masks, key=Tensor.dim)
    # Boolean, an exact paste, where all methods paste; weights where one of them blends.
    pastes = all(plan.mask is not None and plan.mask.dtype == torch.bool for plan in plans)
    dtype = torch.bool if pastes else torch.float32
    mask = torch.ones(count, *largest.shape[1:], dtype=dtype, device=largest.device)
    ends = [plan.window.shape[1] for plan in plans if plan.window is not None]
    if not ends:
        return mask, None
    axes = max(ends) // 2
    window = torch.zeros(count, 2 * axes, dtype=torch.int64, device=mask.device)
    for axis in range(axes):
        window[:, 2 * axis + 1] = mask.shape[mask.dim() - axes + axis]
    return mask, window


def _mask_like(mask: Tensor, plan: MixPlan) -> Tensor:
    """The plan's mask with the dtype and dimensions of another; its ``lam`` where it has none."""
    own = as_rows(plan.lam, mask.dim()) if plan.mask is None else spread(plan.mask, mask.dim())
    return own.to(mask.dtype)
