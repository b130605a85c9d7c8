"""mixup: every sample becomes a weighted mean of itself and a partner.

How to use: ``x, y = Mixup(0.4)(x, y)`` before the model, during training only.

Suggested values: ``alpha`` 0.2 to 0.4 for short budgets, up to 1 for long ones; little or no label smoothing
beside it, since both ask the net for less confident predictions.

Technical details: ``lam ~ Beta(alpha, alpha)``, one for each sample, folded to ``max(lam, 1 - lam)``, so that
no two mixes of a batch are the same and the larger weight stays with the sample itself. The paper has one
``lam`` for the batch, not folded: ``Mixup(per="batch", fold=False)``; and two loaders: ``mixup.between(first,
second)``.

Paper: Zhang, Cisse, Dauphin and Lopez-Paz 2018, mixup: Beyond Empirical Risk Minimization, arXiv:1710.09412;
per sample and folded: Gugger 2018, Mixup data augmentation, fast.ai.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import Tensor

from batchmix.core.masks import check_pairing, draw_partners, plan_of_weights
from batchmix.core.normalizing import Normalize
from batchmix.core.plan import MixPlan
from batchmix.core.sampling import Per, Policy, check_alpha, check_flag, sample_lam
from batchmix.core.schedules import Schedule
from batchmix.errors import MixError
from batchmix.mixer import Mixer, check_mixer, methods_in


class Mixup(Mixer):
    """mixup of a batch with a shuffled version of itself.

    Row i becomes ``lam[i]*x[i] + (1-lam[i])*x[partner[i]]`` with ``lam ~ Beta(alpha, alpha)``, and the target
    becomes a ``MixedTarget`` of both. A sample that is its own partner has ``lam`` 1, unless one ``lam``
    holds for the batch.

    Args:
        alpha: Shape of the Beta density, >= 0; the larger, the stronger the mixing; 0 mixes nothing.
        per: A ``lam`` for each ``"sample"``, for each ``"pair"`` of mutual partners, or for the ``"batch"``.
        fold: ``lam = max(lam, 1-lam)``: no two mixes of a batch are the same image, and the larger weight
            stays with the sample itself.
        p: Probability that a batch is mixed.
        p_sample: Probability that a sample of a mixed batch is mixed, each for itself.
        partner: ``"shuffle"``, ``"derangement"`` (nobody its own partner), ``"roll"`` (the previous one),
            ``"other-class"`` or ``"same-class"``.
        schedule: Factor as a function of the step, for ``p``, or a mapping for ``"p"``, ``"p_sample"`` and
            ``"alpha"``: ``schedule=bm.off_after(1000)`` ends the mixing after 1,000 batches.
        seed: Of all draws; ``torch.initial_seed()`` if left out.
        rank: This process's place among those that have batches of their own, where ``torch.distributed``
            does not tell it, as for ``Mixer``.
        normalize: ``bm.Normalize(mean, std)`` or ``(mean, std)``: uint8 images come out mixed and normalised,
            in one pass.

    Raises:
        MixError: If an argument is not of the form above.

    Example:
        >>> mixup = Mixup(alpha=0.4, seed=0)
        >>> x, y = mixup(torch.rand(8, 3, 32, 32), torch.randint(10, (8,)))
        >>> x.shape, len(y), bool((y.lam >= 0.5).all())
        (torch.Size([8, 3, 32, 32]), 8, True)

    Source: Zhang et al. 2018, arXiv:1710.09412; per sample and folded: Gugger 2018, fast.ai.
    """

    takes: ClassVar[str] = "any samples"

    reads_pixels: ClassVar[bool] = False

    hyperparameters: ClassVar[tuple[str, ...]] = ("alpha",)

    def __init__(
        self,
        alpha: float = 0.4,
        *,
        per: Per = "sample",
        fold: bool = True,
        p: float = 1.0,
        p_sample: float = 1.0,
        partner: Policy = "shuffle",
        schedule: Schedule | Mapping[str, Schedule] | None = None,
        seed: int | None = None,
        rank: int | None = None,
        normalize: Normalize | tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        self.alpha = check_alpha(alpha)
        check_pairing(per, partner)
        self.per = per
        self.fold = check_flag("fold", fold)
        self.partner = partner
        super().__init__(p=p, p_sample=p_sample, schedule=schedule, seed=seed, rank=rank, normalize=normalize)

    def sample(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        between: bool = False,
        generator: torch.Generator,
        **settings: float,
    ) -> MixPlan:
        """Draw partners, then weights. See ``Mixer.sample``."""
        partner = draw_partners(x, y, self.partner, per=self.per, between=between, generator=generator)
        lam = sample_lam(
            settings["alpha"], len(x), per=self.per, fold=self.fold, partner=partner, generator=generator
        )
        return plan_of_weights(partner, lam, per=self.per, between=between)


def given_or_mixup(mixer: Any, options: Mapping[str, Any]) -> Mixer:
    """The mixer that an adapter was given, or the ``Mixup`` of the number, or of the options, in its place.

    Args:
        mixer: A mixer, the ``alpha`` of ``Mixup``, or None.
        options: Those of ``Mixup``; none beside a mixer.

    Raises:
        MixError: If it is neither, or a mixer was given beside options, or an option is out of its range.
    """
    if isinstance(mixer, Real) and not isinstance(mixer, bool):
        if "alpha" in options:
            raise MixError(f"alpha takes one number, got {mixer} and alpha={options['alpha']}")
        mixer, options = None, {"alpha": mixer, **options}
    return given_or_made(mixer, options, Mixup)


def given_or_made(mixer: Any, options: Mapping[str, Any], make: Callable[..., Mixer]) -> Mixer:
    """The mixer that an adapter was given, or what ``make`` makes of the options in its place."""
    if mixer is None:
        return make(**options)
    if options and isinstance(mixer, Mixer):
        raise MixError.of("mixer", mixer, f"all options itself, or None where {', '.join(options)} is given")
    return check_needs_no_plan(check_mixer(mixer, "bm.Mixup(0.4)"))


def check_needs_no_plan(mixer: Mixer) -> Mixer:
    """Return ``mixer``, or raise a MixError if it is a ``TransMix``, or a choice that has one.

    It weighs labels after the forward pass, by the plan, which an adapter does not hand out: without that it
    is CutMix.
    """
    for method in methods_in(mixer):
        if method.weighs_afterwards:
            raise MixError(
                "mixer takes a method that is done before the model, such as bm.CutMix(1.0), got "
                f"{type(method).__name__}, which weighs labels after it: call it in a step of your own, "
                "plan = mixer.plan(x), mixer(x, y, plan=plan), then mixer.reweigh(y, plan, attention)"
            )
    return mixer
