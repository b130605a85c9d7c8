"""The arms of a study: ways to mix, written as ``mixup:alpha=0.2,per=batch``.

An arm is ``none``, a method by the name of its file, ``choice`` (one of several methods for each batch) or
``two-loaders`` (the original paper's form), with options after a colon. Every arm that mixes takes ``until``,
the share of the training after which it stops to mix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import batchmix as bm
from batchmix.errors import MixError
from batchmix.methods import discover
from batchmix.study.options import UNTIL, Option, as_text, options_of

NONE, CHOICE, TWO_LOADERS = "none", "choice", "two-loaders"
HALF = {"cutmix": 0.5, "mixup": 0.5}  # what ``choice`` chooses from where nothing is said
AS_PUBLISHED: dict[str, Any] = {"per": "batch", "fold": False}  # Zhang et al. 2018, figure 1

NextBatch = Callable[[int], tuple[Any, Any]]
"""The batch of a step from a second loader."""


@dataclass(frozen=True)
class Arm:
    """One way to mix.

    Args:
        name: ``none``, ``choice``, ``two-loaders`` or a method.
        given: The options that are not at their default, in order of the signature.
    """

    name: str
    given: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        """The arm as ``parse_arm`` takes it; the same arm is always the same text."""
        options = ",".join(f"{name}={as_text(value)}" for name, value in self.given)
        return f"{self.name}:{options}" if options else self.name

    def settings(self) -> dict[str, Any]:
        """Every option with its value, for the record."""
        defaults = {name: option.default for name, option in options_for(self.name).items()}
        shares = HALF if self.name == CHOICE and not self._shares() else {}
        return {"method": self.name, **defaults, **shares, **dict(self.given)}

    def mixer(self, seed: int, steps: int) -> bm.Mixer:
        """What mixes in a run; for ``two-loaders`` what ``TwoLoaders`` mixes with.

        Args:
            seed: Of all draws.
            steps: Length of the run in batches.

        Raises:
            MixError: If an option is out of its range.
        """
        given = dict(self.given)
        options: dict[str, Any] = {
            "seed": seed,
            "schedule": bm.off_after(math.ceil(given.pop("until", UNTIL.default) * steps)),
        }
        if self.name == NONE:
            return bm.Mixup(0.0, **options)
        if self.name == TWO_LOADERS:
            return bm.Mixup(**given, **AS_PUBLISHED, **options)
        methods = methods_of_arms()
        if self.name == CHOICE:
            shares = {methods[name](seed=seed): share for name, share in (self._shares() or HALF).items()}
            rest = {name: value for name, value in given.items() if name not in methods}
            return bm.Choice(shares, **rest, **options)
        return methods[self.name](**given, **options)

    def _shares(self) -> dict[str, float]:
        """The probability of each method of a choice, as given."""
        return {name: value for name, value in self.given if name in methods_of_arms()}


def parse_arm(text: str) -> Arm:
    """Read an arm.

    Args:
        text: Such as ``"mixup:alpha=0.2,per=batch"``. A value of several numbers has commas in it:
            ``"cutmix:minmax=0.2,0.5"``. The name may be written as the class is: ``"CutMix"``.

    Raises:
        MixError: If there is no such arm or option, or a value is out of its range; one line that says what
            there is.

    Example:
        >>> str(parse_arm("mixup:per=batch,alpha=0.20"))
        'mixup:alpha=0.2,per=batch'
    """
    written, _, rest = text.strip().partition(":")
    name = written.lower()
    if name not in arm_names():
        raise MixError(f"ARM takes one of {', '.join(arm_names())}, got {written!r}")
    options = options_for(name)
    found: dict[str, Any] = {}
    for key, value in _pairs(rest):
        if key in found:
            raise MixError(f"the arm {name} takes each option once, got {key!r} twice")
        if key not in options:
            raise MixError(f"the arm {name} takes {', '.join(options) or 'no options'}, got {key!r}")
        found[key] = options[key].read(f"{key} of the arm {name}", value)
    if name == CHOICE and {key: found[key] for key in methods_of_arms() if key in found} == HALF:
        found = {key: value for key, value in found.items() if key not in HALF}
    # What is at its default is left out, so that the same arm is always the same text.
    given = [(key, found[key]) for key, o in options.items() if found.get(key, o.default) != o.default]
    arm = Arm(name, tuple(given))
    try:
        arm.mixer(seed=0, steps=1)
    except MixError as error:
        raise MixError(f"in the arm {text}: {error}") from None
    return arm


def parse_arms(texts: Sequence[str]) -> list[Arm]:
    """Read the arms of a study, which are to be different.

    Raises:
        MixError: As for ``parse_arm``, or if two arms are the same.
    """
    found: dict[Arm, str] = {}
    for text in texts:
        arm = parse_arm(text)
        if arm in found:
            raise MixError(f"ARM takes arms that differ, got {found[arm]!r} and {text!r}, which are the same")
        found[arm] = text
    return list(found)


def methods_of_arms() -> dict[str, type[bm.Mixer]]:
    """The methods that are done before the model; a study hands out no plan."""
    return {name: method for name, method in discover().items() if not method.weighs_afterwards}


def arm_names() -> list[str]:
    """What an arm can be."""
    return [NONE, *sorted(methods_of_arms(), key=lambda name: (name != "mixup", name)), CHOICE, TWO_LOADERS]


def options_for(name: str) -> dict[str, Option]:
    """The options of an arm, by name, in order."""
    if name == NONE:
        return {}
    if name == TWO_LOADERS:
        taken = options_of(bm.Mixup)
        return {key: taken[key] for key in ("alpha", "p")} | {"until": UNTIL}
    methods = methods_of_arms()
    if name == CHOICE:
        shares = {key: Option(float, 0.0) for key, method in methods.items() if method.whole_plan}
        return options_of(bm.Choice) | shares | {"until": UNTIL}
    return options_of(methods[name]) | {"until": UNTIL}


class TwoLoaders:
    """mixup as published: two loaders, and one weight a batch.

    Args:
        mixup: What draws the weights, ``per="batch"`` and not folded.
        second: The batch of the second loader at a step.
        num_classes: K, for dense one-hot targets as published; a MixedTarget if left out, which is the same
            to cross entropy and goes into any other loss.

    Source: Zhang et al. 2018, arXiv:1710.09412, figure 1.
    """

    def __init__(self, mixup: bm.Mixer, second: NextBatch, num_classes: int | None = None) -> None:
        self.mixup, self.second, self.num_classes = mixup, second, num_classes

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, bm.MixedTarget | Tensor]:
        """The batch mixed with that of the second loader, and their target."""
        if not self.mixup.settings()["p"]:  # the mixing is over: the second loader is not asked any more
            return self.mixup(x, y)
        x, target = self.mixup.between((x, y), self.second(self.mixup.step))
        return x, target if self.num_classes is None else target.dense(self.num_classes)

    def settings(self, step: int | None = None) -> dict[str, float]:
        """As those of the mixup."""
        return self.mixup.settings(step)

    def state_dict(self) -> dict[str, int]:
        """As that of the mixup."""
        return self.mixup.state_dict()

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.mixup.load_state_dict(state)


def check_on_images(arm: Arm, size: int) -> None:
    """Mix a few images, so that a method that is for something else is refused before anything trains.

    Raises:
        MixError: If the arm cannot mix images (B, 3, size, size) with class ids.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, 3, size, size, generator=generator)
    try:
        arm.mixer(seed=0, steps=1)(x, torch.arange(8) % 4)
    except MixError as error:
        raise MixError(f"the arm {arm} does not mix images with class ids: {error}") from None


def _pairs(text: str) -> list[tuple[str, str]]:
    """``"a=1,b=2,3"`` as ``[("a", "1"), ("b", "2,3")]``."""
    pairs: list[tuple[str, str]] = []
    for piece in text.split(",") if text else []:
        key, equals, value = piece.partition("=")
        if equals:
            pairs.append((key.strip(), value.strip()))
        elif pairs:
            pairs[-1] = pairs[-1][0], f"{pairs[-1][1]},{piece.strip()}"
        else:
            raise MixError(f"options of an arm take the form name=value, got {piece!r}")
    return pairs
