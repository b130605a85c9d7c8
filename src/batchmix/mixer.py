"""The only state between batches: a seed, and the number of batches drawn so far."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.context import get_spawning_popen
from numbers import Real
from typing import Any, ClassVar, TypedDict, overload

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from batchmix.core.applying import apply_plan, check_images, count_in_use, unmixed
from batchmix.core.batches import (
    Kinds,
    Leaf,
    check_lengths,
    lead_of,
    leaves_of,
    leaves_of_pair,
    rebuild,
    target_of,
)
from batchmix.core.blending import blend
from batchmix.core.draws import Draws, rank
from batchmix.core.normalizing import Normalize
from batchmix.core.plan import MixPlan, check_plan, describe
from batchmix.core.sampling import check_alpha, check_count, check_probability
from batchmix.core.schedules import Schedule
from batchmix.core.targets import MixedTarget
from batchmix.errors import MixError

_taking = threading.Lock()  # of the module, as a mixer's own could not be copied or sent


def _unlock() -> None:
    global _taking
    _taking = threading.Lock()


if hasattr(os, "register_at_fork"):  # a child has no thread to give back what was taken as it was forked
    os.register_at_fork(after_in_child=_unlock)

WHOLE_SAMPLES = ("any samples", "samples with values as targets")  # what methods take that cut nothing
FOR_IMAGES = ("images", *WHOLE_SAMPLES)  # and what those take that images can be given to


class MixerOptions(TypedDict, total=False):
    """What every method takes beside its own arguments; ``Mixer`` says what each means."""

    p: float
    p_sample: float
    schedule: Schedule | Mapping[str, Schedule] | None
    seed: int | None
    rank: int | None
    normalize: Normalize | tuple[Sequence[float], Sequence[float]] | None


class Mixer:
    """What every method is built on: draws a plan for each batch, and applies it.

    The draws of a step are a function of (seed, rank, worker, step) alone, on one kind of device: ranks and
    DataLoader workers draw apart, a resumed run draws what the unbroken one would have drawn, and torch's
    global generator is never read or moved.

    Args:
        p: Probability that a batch is mixed.
        p_sample: Probability that a sample of a mixed batch is mixed, each for itself. One left alone keeps a
            partner of weight 0, whose infinities and NaN a blend still sees.
        schedule: Factor as a function of the step, as in ``torch.optim.lr_scheduler.LambdaLR``: a callable
            for ``p``, or a mapping from names of hyperparameters (``"p"``, ``"p_sample"``, ``"alpha"``) to
            callables.
        seed: Of all draws; ``torch.initial_seed()`` if left out, so that ``torch.manual_seed`` sets it.
        rank: This process's place among those that have batches of their own; if left out that in
            ``torch.distributed``. Processes that share a batch, as under tensor or pipeline parallelism, take
            the same one: ``mesh["dp"].get_local_rank()``.
        normalize: A ``Normalize``, or a pair ``(mean, std)``: images come as uint8 and leave as normalised
            floats, mixed or not, in one read and one write where there is a kernel for it. A method that
            looks at pixels is given the normalised images. Floats beside the images are mixed as they are.

    Attributes:
        step: Number of batches drawn so far, a whole number >= 0; assign to it to start elsewhere.

    Raises:
        MixError: If an argument or attribute is not of the form above.

    Example: (a method of one's own)
        >>> class Half(Mixer):
        ...     def sample(self, x, y=None, *, between=False, generator, **settings):
        ...         partner = torch.randperm(len(x), generator=generator, device=generator.device)
        ...         return MixPlan(partner, torch.full((len(x),), 0.5, device=generator.device))
        >>> x, y = Half(p=0.5, seed=0)(torch.rand(4, 3), torch.tensor([0, 1, 2, 0]))
    """

    takes: ClassVar[str] = "images"
    """The kind of samples that a method is for."""

    whole_plan: ClassVar[bool] = True
    """Whether ``blend`` by the plan is all of the mixing; only then can the method be one of a ``Choice``."""

    pastes: ClassVar[bool] = False
    """Whether every position is the sample's or its partner's as it is, so that class ids of positions are
    pasted with it. They are then handed back as they are where a batch is not mixed."""

    reads_pixels: ClassVar[bool] = True
    """Whether ``sample`` reads the values of ``x``. Where images are normalised, a method that does not is
    given their shape alone, and they are not normalised for the draw."""

    mixes_between: ClassVar[bool] = True
    """Whether ``between`` can mix two batches. Not where partners' values are read, of which ``sample`` sees
    one batch only."""

    weighs_afterwards: ClassVar[bool] = False
    """Whether labels are weighed after the model, by the plan. An adapter hands out none, and refuses it."""

    hyperparameters: ClassVar[tuple[str, ...]] = ()
    """Names of the attributes that a schedule can change, besides ``p`` and ``p_sample``; numbers >= 0."""

    _sent: tuple[int, int | None] | None = None  # the rank of who sent it, and the process that it came to

    def __init__(
        self,
        *,
        p: float = 1.0,
        p_sample: float = 1.0,
        schedule: Schedule | Mapping[str, Schedule] | None = None,
        seed: int | None = None,
        rank: int | None = None,
        normalize: Normalize | tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        self.normalize = self._check_normalize(normalize)
        self.p = check_probability(p)
        self.p_sample = check_probability(p_sample, "p_sample")
        self.schedule = schedule
        self.rank = rank
        self.seed = torch.initial_seed() if seed is None else seed
        self.step = 0

    @property
    def seed(self) -> int:
        """Of all draws, a whole number >= 0."""
        return self._seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self._seed = check_count("seed", seed, 0)

    @property
    def schedule(self) -> Mapping[str, Schedule]:
        """Factors by the names of what they change; a callable that is assigned is that of ``p``."""
        return self._schedule

    @schedule.setter
    def schedule(self, schedule: Schedule | Mapping[str, Schedule] | None) -> None:
        self._schedule = self._check_schedule(schedule)

    @property
    def rank(self) -> int | None:
        """The place among the processes that was given, a whole number >= 0; None where it is looked up."""
        return self._rank

    @rank.setter
    def rank(self, rank: int | None) -> None:
        self._rank = None if rank is None else check_count("rank", rank, 0)

    @property
    def step(self) -> int:
        """Number of batches drawn so far, a whole number >= 0."""
        return self._step

    @step.setter
    def step(self, step: int) -> None:
        self._step = check_count("step", step, 0)

    # What a method provides

    def sample(
        self, x: Tensor, y: Tensor | None, *, between: bool, generator: torch.Generator, **settings: float
    ) -> MixPlan:
        """Draw one plan on the generator's device. Methods implement it; it changes nothing.

        Args:
            x: The samples, (B, ...); most methods read their shape alone.
            y: The targets, (B, ...), or None where there are none or more than one.
            between: The partner of sample i is sample i of a second batch.
            generator: Source of all randomness.
            settings: The value of each of ``hyperparameters`` at this step.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how a plan is drawn")

    def mixes(self, **settings: float) -> bool:
        """Whether these hyperparameters mix at all; ``alpha`` 0 does not."""
        return all(value > 0 for value in settings.values())

    # What a user calls

    # Any: class ids of positions are a tensor where they are pasted, and no type tells them from other ids.
    @overload
    def __call__(
        self,
        x: Tensor,
        y: Tensor,
        *,
        kinds: Kinds | None = None,
        plan: MixPlan | None = None,
        step: int | None = None,
    ) -> tuple[Tensor, MixedTarget | Any]: ...

    @overload
    def __call__(
        self,
        x: Any,
        y: Any,
        *,
        kinds: Kinds | None = None,
        plan: MixPlan | None = None,
        step: int | None = None,
    ) -> tuple[Any, Any]: ...

    def __call__(
        self,
        x: Any,
        y: Any,
        *,
        kinds: Kinds | None = None,
        plan: MixPlan | None = None,
        step: int | None = None,
    ) -> tuple[Any, Any]:
        """Mix a batch with a shuffled version of itself.

        Args:
            x: Samples, (B, ...), floating point (uint8 images with ``normalize``), or several in a tuple,
                list, dict or dataclass.
            y: Targets, (B, ...): class ids, soft labels or values; or several; None where there are none.
            kinds: What a leaf is where that is in doubt, by its path: ``{"y.mask": "segmentation"}``.
            plan: Replay this draw, without a new one.
            step: Draw as at this step of the whole run, the same in every worker; ``self.step`` stays.

        Returns:
            The mixed samples, like ``x`` (``x`` itself where the batch is not mixed and not normalised), and
            their target: a MixedTarget in the place of each target.

        Raises:
            MixError: If ``x`` and ``y`` are not batches of the same length on the same device, or the kind of
                a leaf is in doubt.

        Example:
            >>> import batchmix as bm
            >>> x = {"image": torch.rand(4, 3, 8, 8), "age": torch.rand(4, 1)}
            >>> x, (shape, size) = bm.Mixup(seed=0)(x, (torch.tensor([0, 1, 2, 0]), torch.rand(4)))
        """
        leaves = leaves_of_pair(x, y, self._kinds_of(x, kinds), channels=self._channels)
        mixed = self._mix(leaves, plan, step)
        return rebuild(x, mixed, root="x"), rebuild(y, mixed, root="y")

    def mix(
        self,
        batch: Any,
        *,
        kinds: Kinds | None = None,
        plan: MixPlan | None = None,
        step: int | None = None,
    ) -> Any:
        """Mix a batch that holds inputs and targets in one dict, tuple, list or dataclass.

        Args:
            batch: Its images and class ids are found; everything else takes a kind.
            kinds: What a leaf is, by its path: ``{"mask": "segmentation", "meta": "pass"}``.
            plan: Replay this draw, without a new one.
            step: As for a call.

        Returns:
            The same structure, mixed.

        Raises:
            MixError: If the kind of a leaf is in doubt, or the leaves do not belong to one batch.

        Example:
            >>> import batchmix as bm
            >>> label = torch.tensor([0, 1, 2, 0])
            >>> batch = {"image": torch.rand(4, 3, 8, 8), "label": label, "name": list("abcd")}
            >>> batch = bm.Mixup(seed=0).mix(batch, kinds={"name": "pass"})
            >>> type(batch["label"]).__name__
            'MixedTarget'
        """
        kinds = self._kinds_in(batch, kinds)
        mixed = self._mix(leaves_of(batch, kinds, channels=self._channels), plan, step)
        return rebuild(batch, mixed, root="")

    def plan(self, x: Tensor, y: Tensor | None = None, *, step: int | None = None) -> MixPlan:
        """Draw the next plan for the batch ``x`` (B, ...), to replay on whatever belongs to it.

        ``y`` is needed where partners are chosen by their targets, ``step`` as for a call.

        Example:
            >>> import batchmix as bm
            >>> mixup = bm.Mixup(seed=0)
            >>> x, teacher = torch.rand(4, 3, 8, 8), torch.rand(4, 10)
            >>> plan = mixup.plan(x)
            >>> mixed, soft = bm.blend(x, plan), bm.blend(teacher, plan)
        """
        check_lengths([Leaf("x", x, "input"), *([] if y is None else [Leaf("y", y, "soft")])])
        plan = self._draw(x, y, step=step)
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
            MixError: If the method takes one batch only, the two batches do not have the same shapes, or
                images are pasted that have a segmentation mask.

        Example:
            >>> import batchmix as bm
            >>> mixup = bm.Mixup(alpha=0.4, per="batch", fold=False, seed=0)  # as published
            >>> one = torch.rand(4, 3), torch.tensor([0, 1, 2, 0])
            >>> two = torch.rand(4, 3), torch.tensor([2, 2, 1, 0])
            >>> x, y = mixup.between(one, two)

        Source: Zhang et al. 2018, arXiv:1710.09412, figure 1.
        """
        self._check_between()
        (x1, y1), (x2, y2) = check_pair("first", first), check_pair("second", second)
        of_places = False
        for x, y in ((x1, y1), (x2, y2)):
            leaves = leaves_of_pair(x, y, channels=self._channels)
            of_places = of_places or leaves[-1].kind == "segmentation"
            check_lengths(leaves)
            check_images(leaves, self.normalize)
        if x1.shape != x2.shape:
            raise MixError(f"second takes samples like the first's, {describe(x1)}, got {describe(x2)}")
        plan = self._draw(x1, y1, between=True)
        if of_places and plan is not None and plan.mask is not None:
            raise MixError(
                f"first takes one target a sample where images are pasted, got {describe(y1)}: mix both "
                "batches as one, mixer(torch.cat([x1, x2]), torch.cat([y1, y2]))"
            )
        if plan is None:
            x1 = x1 if self.normalize is None else self.normalize(x1)
            return x1, MixedTarget(y1, y2, torch.ones(len(y1), device=y1.device))
        return self._join(x1, x2, plan), MixedTarget(y1, y2, plan.lam)

    def settings(self, step: int | None = None) -> dict[str, float]:
        """The hyperparameters at ``step``, the next one if left out: ``"p"``, ``"p_sample"``, ``"alpha"``."""
        step = self.step if step is None else check_count("step", step, 0)
        return {name: self._setting(name, step) for name in self._names()}

    def state_dict(self) -> dict[str, int]:
        """All that has to be kept to go on with the same draws: ``{"seed": ..., "step": ...}``."""
        return {"seed": self.seed, "step": self.step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where ``state_dict`` was taken.

        Raises:
            MixError: If ``state`` is not what ``state_dict`` returns.
        """
        if not isinstance(state, Mapping) or set(state) != {"seed", "step"}:
            raise MixError(f"state takes the keys 'seed' and 'step', got {describe(state)}")
        seed, step = check_count("seed", state["seed"], 0), check_count("step", state["step"], 0)
        self.seed, self.step = seed, step

    def __getstate__(self) -> dict[str, Any]:
        """As it is, and to a process that is being spawned with the rank of this one."""
        spawning = get_spawning_popen() is not None  # else it is a copy, or a file for whoever loads it
        return {**vars(self), "_sent": (rank(), None) if spawning else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        if self._sent is not None:
            self._sent = self._sent[0], os.getpid()

    def __repr__(self) -> str:
        held = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        held |= {name: getattr(self, name) for name in ("schedule", "seed", "rank", "step")}
        shown = {name: value for name, value in held.items() if value not in (None, {})}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    # How a draw is made

    def _mix(self, leaves: list[Leaf], plan: MixPlan | None, step: int | None) -> dict[str, Any]:
        """The new value of every leaf, by its path."""
        samples = check_lengths(leaves)
        check_images(leaves, self.normalize)
        if plan is None:
            drawn = self._draw_for(leaves, step)
            plan = MixPlan.identity(len(samples), samples.device) if drawn is None else drawn
        else:
            check_plan(plan, samples)
        if plan.is_identity:
            return unmixed(leaves, plan, self.normalize, pastes=self._always_pastes())
        return self._apply(leaves, plan)

    def _always_pastes(self) -> bool:
        """``pastes``, for all that is drawn; a method made of others asks them."""
        return self.pastes

    def _kinds_of(self, x: Any, kinds: Kinds | None) -> Kinds | None:
        """The user's kinds, with those that a method knows by itself."""
        return kinds

    def _kinds_in(self, batch: Any, kinds: Kinds | None) -> Kinds | None:
        """The same, of a batch that holds inputs and targets."""
        return kinds

    def _draw_for(self, leaves: list[Leaf], step: int | None) -> MixPlan | None:
        """The next plan for all leaves; a method that looks at more than the leading input overrides it."""
        return self._draw(lead_of(leaves), target_of(leaves), step=step)

    def _check_between(self) -> None:
        for method in methods_in(self):
            if not method.mixes_between:
                raise MixError(
                    f"between takes a method that does not look at partners, got {type(method).__name__}"
                )

    def _apply(self, leaves: list[Leaf], plan: MixPlan) -> dict[str, Any]:
        """Every leaf mixed by its kind; a method whose inputs are mixed in another way overrides it."""
        plan = count_in_use(leaves, plan)
        return {leaf.path: apply_plan(leaf, plan, self.normalize) for leaf in leaves}

    def _join(self, first: Tensor, second: Tensor, plan: MixPlan) -> Tensor:
        """Two batches mixed by a plan in which each sample has its own place for a partner."""
        return blend(first, plan, other=second, normalize=self.normalize)

    def _draw(
        self, x: Tensor, y: Tensor | None, *, between: bool = False, step: int | None = None
    ) -> MixPlan | None:
        """The next plan, or None where the batch is not mixed, which is known without asking the device."""
        draws = self._take(step)
        return self._plan(draws, x, y, between, self.normalize)

    def _plan(
        self, draws: Draws, x: Tensor, y: Tensor | None, between: bool, normalize: Normalize | None
    ) -> MixPlan | None:
        """The plan that follows from the randomness of a step."""
        settings = self.settings(draws.step)
        p, p_sample = settings.pop("p"), settings.pop("p_sample")
        if draws.coin >= p or p_sample == 0:
            return None
        plan = self._sample(draws, x, y, between, settings, normalize)
        if plan is None:
            return None
        if p_sample < 1:
            generator = draws.fork("p_sample").generator(plan.device)
            drawn = torch.rand(len(plan), generator=generator, dtype=torch.float32, device=plan.device)
            plan = plan.only(drawn < p_sample)
        return plan if plan.device == x.device else plan.to(x.device)

    def _sample(
        self,
        draws: Draws,
        x: Tensor,
        y: Tensor | None,
        between: bool,
        settings: dict[str, float],
        normalize: Normalize | None,
    ) -> MixPlan | None:
        if not self.mixes(**settings):
            return None
        seen = self._seen(x, normalize)
        return self.sample(seen, y, between=between, generator=draws.generator(x.device), **settings)

    def _seen(self, x: Tensor, normalize: Normalize | None) -> Tensor:
        """What the method is given to look at: images as they will be, or no more than their shape."""
        if normalize is None or x.dtype != torch.uint8:
            return x
        if self.reads_pixels:
            return normalize(x)
        return torch.zeros((), dtype=normalize.dtype, device=x.device).expand(x.shape)

    def _take(self, step: int | None) -> Draws:
        """Randomness of ``step`` or, once alone, of the next one: threads that share a mixer draw apart."""
        if step is not None:
            return self._draws(step)
        worker = get_worker_info()
        if worker is not None and counts_steps(self):
            raise MixError(
                "schedule takes a count of all workers' batches, got a mixer that is called in one of them: "
                "collate with batchmix.MixCollate, which keeps that count, or mix in the loop"
            )
        with _taking:
            step = self.step
            self.step = step + 1
        return self._draws_of(step, worker)

    def _draws(self, step: int | None) -> Draws:
        """Randomness of the next step of this (seed, rank, worker), or of ``step`` in any worker."""
        if step is None:
            return self._draws_of(self.step, get_worker_info())
        return self._draws_of(check_count("step", step, 0), None)

    def _draws_of(self, step: int, worker: Any) -> Draws:
        sender, receiver = self._sent or (None, None)
        own = rank(sender if receiver == os.getpid() else None, self.rank)  # not of one forked since
        # A worker's own seed differs from worker to worker and from epoch to epoch.
        return Draws.of(step, f"{self.seed}/{own}/{'' if worker is None else worker.seed}/{step}")

    @property
    def _channels(self) -> int:
        """Of the images that are normalised; 0 where none are."""
        return 0 if self.normalize is None else len(self.normalize.mean)

    def _check_normalize(self, normalize: Any) -> Normalize | None:
        found, name = Normalize.of(normalize), type(self).__name__
        if found is not None and self.takes not in FOR_IMAGES:
            raise MixError(f"normalize takes a method for images, got {name}, which is for {self.takes}")
        if found is not None and not self.whole_plan:
            raise MixError(f"normalize takes a method that a plan says all about, got {name}")
        return found

    def _names(self) -> tuple[str, ...]:
        return ("p", "p_sample", *self.hyperparameters)

    def _value(self, name: str) -> float:
        value: float = getattr(self, name)
        return value

    def _setting(self, name: str, step: int) -> float:
        check = check_alpha if name in self.hyperparameters else check_probability
        value = check(self._value(name), name)  # which may have been assigned since
        factor = self.schedule.get(name)
        if factor is None:
            return value
        times = factor(step)
        if not isinstance(times, Real):
            raise MixError.of(f"schedule[{name!r}] at step {step}", times, "a number")
        return check(value * times, f"{name} times schedule[{name!r}] at step {step}")

    def _check_schedule(self, schedule: Any) -> dict[str, Schedule]:
        if schedule is None:
            return {}
        if callable(schedule):
            return {"p": schedule}
        names = self._names()
        if not isinstance(schedule, Mapping) or not set(schedule) <= set(names):
            raise MixError(
                f"schedule takes a callable of the step, or one for each of {', '.join(names)}, "
                f"got {describe(schedule)}"
            )
        for name, factor in schedule.items():
            if not callable(factor):
                raise MixError.of(f"schedule[{name!r}]", factor, "a callable of the step")
        return dict(schedule)


def check_mixer(mixer: Any, example: str = "Mixup(0.4)") -> Mixer:
    """Return ``mixer``, or raise a MixError unless it is one."""
    if not isinstance(mixer, Mixer):
        raise MixError(f"mixer takes a method such as {example}, got {describe(mixer)}")
    return mixer


def methods_in(mixer: Mixer) -> Iterator[Mixer]:
    """The mixer itself and, of a choice, all the methods in it."""
    yield mixer
    methods = getattr(mixer, "methods", None)
    for method in methods.values() if isinstance(methods, Mapping) else ():
        yield from methods_in(method)


def counts_steps(mixer: Mixer) -> bool:
    """Whether what it draws depends on how many batches were drawn."""
    return any(method.schedule for method in methods_in(mixer))


def check_pair(name: str, pair: Any) -> tuple[Tensor, Tensor]:
    """Return ``pair``, or raise a MixError that names it unless it is samples and targets, two tensors."""
    if isinstance(pair, (tuple, list)) and [isinstance(part, Tensor) for part in pair] == [True, True]:
        return pair[0], pair[1]
    raise MixError(f"{name} takes a pair of tensors (x, y), got {describe(pair)}")
