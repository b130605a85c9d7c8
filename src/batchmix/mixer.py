"""The only state between batches: a seed, and the number of batches drawn so far."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from batchmix.core.blending import blend
from batchmix.core.plan import MixPlan, describe
from batchmix.core.sampling import check_alpha, check_probability
from batchmix.core.schedules import Schedule
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError


class Mixer:
    """What every method is built on: draws a plan for each batch, and applies it.

    The draws of a step are a function of (seed, rank, worker, step) alone: ranks and DataLoader workers draw
    apart, a resumed run draws what the unbroken one would have drawn, and torch's global generator is never
    read or moved.

    Args:
        p: Probability that a batch is mixed.
        schedule: Factor as a function of the step, as in ``torch.optim.lr_scheduler.LambdaLR``: a callable
            for ``p``, or a mapping from names of hyperparameters (``"p"``, ``"alpha"``) to callables.
        seed: Of all draws; ``torch.initial_seed()`` if left out, so that ``torch.manual_seed`` sets it.

    Attributes:
        step: Number of batches drawn so far; assign to it to start elsewhere.

    Raises:
        MixError: If an argument is not of the form above.
    """

    hyperparameters: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes that a schedule can change, besides ``p``; each is a number >= 0."""

    def __init__(
        self,
        *,
        p: float = 1.0,
        schedule: Schedule | Mapping[str, Schedule] | None = None,
        seed: int | None = None,
    ) -> None:
        self.p = check_probability(p)
        self.schedule = self._check_schedule(schedule)
        self.seed = torch.initial_seed() if seed is None else _check_count("seed", seed)
        self.step = 0

    # What a method provides

    def sample(
        self, shape: torch.Size, *, between: bool, generator: torch.Generator, **settings: float
    ) -> MixPlan:
        """Draw one plan on the generator's device. Methods implement it; it changes nothing.

        Args:
            shape: Of the batch, (B, ...).
            between: The partner of sample i is sample i of a second batch.
            generator: Source of all randomness.
            settings: The value of each of ``hyperparameters`` at this step.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how a plan is drawn")

    def mixes(self, **settings: float) -> bool:
        """Whether these hyperparameters mix at all; ``alpha`` 0 does not."""
        return all(value > 0 for value in settings.values())

    # What a user calls

    def __call__(self, x: Tensor, y: Tensor, *, plan: MixPlan | None = None) -> tuple[Tensor, MixedTarget]:
        """Mix a batch with a shuffled version of itself.

        Args:
            x: Samples, (B, ...), floating point; not modified.
            y: Targets, (B, ...): class ids, soft labels or values.
            plan: Replay this draw, without a new one.

        Returns:
            The mixed samples, like ``x`` (``x`` itself where the batch is not mixed), and their target.

        Raises:
            MixError: If ``x`` and ``y`` are not batches of the same length on the same device.
        """
        _check_pair(x, y)
        if plan is None:
            plan = self._draw(x)
            if plan is None:
                return x, MixedTarget(y, y, torch.ones(len(y), device=y.device))
        return blend(x, plan), MixedTarget.from_plan(y, plan)

    def plan(self, x: Tensor) -> MixPlan:
        """Draw the next plan for the batch ``x`` (B, ...), to replay on whatever belongs to it.

        Example:
            >>> import batchmix as bm
            >>> mixup = bm.Mixup(seed=0)
            >>> x, teacher = torch.rand(4, 3, 8, 8), torch.rand(4, 10)
            >>> plan = mixup.plan(x)
            >>> mixed, soft = bm.blend(x, plan), bm.blend(teacher, plan)
        """
        _check_batch("x", x)
        plan = self._draw(x)
        return MixPlan.identity(len(x), x.device) if plan is None else plan

    def between(
        self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, MixedTarget]:
        """Mix two batches, sample by sample: the original paper's form, with two loaders.

        Args:
            first: ``(x1, y1)``, whose weight is ``lam``.
            second: ``(x2, y2)`` of the same shapes.

        Returns:
            ``lam*x1 + (1-lam)*x2`` and the target of both; ``.dense(num_classes)`` gives the paper's one-hot.

        Raises:
            MixError: If the two batches do not have the same shapes.

        Example:
            >>> import batchmix as bm
            >>> mixup = bm.Mixup(alpha=0.4, per="batch", fold=False, seed=0)  # as published
            >>> one = torch.rand(4, 3), torch.tensor([0, 1, 2, 0])
            >>> two = torch.rand(4, 3), torch.tensor([2, 2, 1, 0])
            >>> x, y = mixup.between(one, two)

        Source: Zhang et al. 2018, arXiv:1710.09412, figure 1.
        """
        (x1, y1), (x2, y2) = first, second
        _check_pair(x1, y1)
        _check_pair(x2, y2)
        if x1.shape != x2.shape:
            raise MixError(f"second takes samples like the first's, {describe(x1)}, got {describe(x2)}")
        plan = self._draw(x1, between=True)
        if plan is None:
            return x1, MixedTarget(y1, y2, torch.ones(len(y1), device=y1.device))
        return blend(x1, plan, other=x2), MixedTarget(y1, y2, plan.lam)

    def settings(self, step: int | None = None) -> dict[str, float]:
        """The hyperparameters at ``step``, the next one if left out: ``{"p": ..., "alpha": ...}``."""
        step = self.step if step is None else step
        return {name: self._setting(name, step) for name in ("p", *self.hyperparameters)}

    def state_dict(self) -> dict[str, int]:
        """All that has to be kept to go on with the same draws: ``{"seed": ..., "step": ...}``."""
        return {"seed": self.seed, "step": self.step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where ``state_dict`` was taken.

        Raises:
            MixError: If ``state`` is not what ``state_dict`` returns.
        """
        if set(state) != {"seed", "step"}:
            raise MixError(f"state takes the keys 'seed' and 'step', got {sorted(state)}")
        seed, step = _check_count("seed", state["seed"]), _check_count("step", state["step"])
        self.seed, self.step = seed, step

    def __repr__(self) -> str:
        shown = {name: value for name, value in vars(self).items() if value not in (None, {})}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    # How a draw is made

    def _draw(self, x: Tensor, *, between: bool = False) -> MixPlan | None:
        """The next plan, or None where the batch is not mixed, which is known without asking the device."""
        settings = self.settings()
        seed, coin = self._randomness()
        self.step += 1
        p = settings.pop("p")
        if coin >= p or not self.mixes(**settings):
            return None
        # Other devices (mps, xpu) have no gamma sampler or no generator of their own to rely on.
        device = x.device if x.device.type in ("cpu", "cuda") else torch.device("cpu")
        generator = torch.Generator(device).manual_seed(seed)
        return self.sample(x.shape, between=between, generator=generator, **settings).to(x.device)

    def _randomness(self) -> tuple[int, float]:
        """A generator's seed and a number in [0, 1) for this (seed, rank, worker, step)."""
        worker = get_worker_info()
        # A worker's own seed differs from worker to worker and from epoch to epoch.
        place = f"{self.seed}/{_rank()}/{'' if worker is None else worker.seed}/{self.step}"
        digest = hashlib.blake2b(place.encode(), digest_size=16).digest()
        return int.from_bytes(digest[:8], "big") >> 1, int.from_bytes(digest[8:15], "big") / 2**56

    def _setting(self, name: str, step: int) -> float:
        value: float = getattr(self, name)
        factor = self.schedule.get(name)
        if factor is None:
            return value
        times = factor(step)
        if not isinstance(times, (int, float)):
            raise MixError.of(f"schedule[{name!r}] at step {step}", times, "a number")
        check = check_probability if name == "p" else check_alpha
        return check(value * times, f"{name} times schedule[{name!r}] at step {step}")

    def _check_schedule(self, schedule: Any) -> dict[str, Schedule]:
        if schedule is None:
            return {}
        if callable(schedule):
            return {"p": schedule}
        names = ("p", *self.hyperparameters)
        if not isinstance(schedule, Mapping) or not set(schedule) <= set(names):
            raise MixError(
                f"schedule takes a callable of the step, or one for each of {', '.join(names)}, "
                f"got {describe(schedule)}"
            )
        for name, factor in schedule.items():
            if not callable(factor):
                raise MixError.of(f"schedule[{name!r}]", factor, "a callable of the step")
        return dict(schedule)


def _rank() -> int:
    """This process's place among those that train together; 0 where there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    return 0


def _check_count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise MixError.of(name, value, "a whole number >= 0")
    return value


def _check_batch(name: str, value: Any) -> None:
    if not isinstance(value, Tensor) or value.dim() == 0:
        raise MixError(f"{name} takes a tensor (B, ...), got {describe(value)}")
    if not len(value):
        raise MixError(f"{name} takes at least one sample, got {describe(value)}")


def _check_pair(x: Any, y: Any) -> None:
    _check_batch("x", x)
    _check_batch("y", y)
    if len(x) != len(y):
        raise MixError(f"y takes as many targets as x has samples: {len(x)}, got {len(y)}")
    if x.device != y.device:
        raise MixError(f"y takes the device of x: {x.device}, got {y.device}")
    if not x.is_floating_point():
        raise MixError(f"x takes floating point samples, such as x.float() / 255, got {describe(x)}")
