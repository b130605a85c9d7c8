"""What a study is asked for: arms, seeds and budgets, and the settings that all of its runs share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from batchmix.errors import MixError
from batchmix.recipe.config import MOST_EPOCHS, PRESETS, TrainConfig
from batchmix.study.arms import parse_arms

OF_THE_ARM = ("mix", "alpha", "per", "fold", "mix_until", "p_sample", "square")
OF_THE_RUN = ("epochs", "images", "seed")
OF_NO_STUDY = ("tta",)  # each test image is seen in one view; earlier versions kept it, to no effect
SHARED = tuple(f.name for f in fields(TrainConfig) if f.name not in (*OF_THE_ARM, *OF_THE_RUN, *OF_NO_STUDY))
"""The fields of the recipe's config that all runs of a study have in common."""

RECIPE = "recipe"
LONGEST_KEY = 235  # characters: a file name has 255, and a record in writing takes 20 of them


class RecipeConfig(TrainConfig):
    """The recipe's config for other images than those of CIFAR-10."""

    most_images: ClassVar[int] = 10**9
    largest_size: ClassVar[int] = 1024


@dataclass(frozen=True)
class Run:
    """One run of a study: what it differs in from the others."""

    arm: str
    seed: int
    images: int
    epochs: float

    @property
    def key(self) -> str:
        """Name of its record, fit for a file name."""
        arm = re.sub(r"[^\w.=,-]", "+", self.arm)
        epochs = f"{self.epochs:g}"
        if float(epochs) != self.epochs:  # else two budgets would share a record
            epochs = repr(self.epochs)
        key = f"{self.images}x{epochs}-{arm}-seed{self.seed}"
        if len(key) <= LONGEST_KEY:
            return key
        code = hashlib.sha256(key.encode()).hexdigest()[:12]
        return f"{key[: LONGEST_KEY - 1 - len(code)]}-{code}"

    @property
    def work(self) -> float:
        """Images to train on."""
        return self.images * self.epochs


@dataclass(frozen=True)
class StudyPlan:
    """All runs of a study: every arm with every seed at every budget.

    Args:
        arms: As ``parse_arm`` takes them, all different; the first is what the others are compared with.
        seeds: Of initial weights, data order, augmentation and mixing.
        epochs: Budgets, each a number of passes over the training images.
        images: How many training images, the same ones for all runs.
        data: Name of the image set, as for ``load_images``; unused by a task of the user's own.
        size: Pixels of an image's side; as the image set has them if left out.
        task: ``"recipe"``, or ``"module:function"``.
        config: Values of ``SHARED`` fields of the recipe's config; the others are those of its preset cpu.
        source: What the file of a task was, as ``batchmix.study.task.digest`` has it, or the images of a
            folder, as ``batchmix.data.image_sets.digest`` has them; None where that is not known.

    Raises:
        MixError: If something is not of this form; the message names it.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    epochs: tuple[float, ...]
    images: int
    data: str | None = "cifar10"
    size: int | None = None
    task: str = RECIPE
    config: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "arms", tuple(map(str, parse_arms(self.arms))))
        object.__setattr__(self, "epochs", tuple(map(float, self.epochs)))
        for name in ("arms", "seeds", "epochs"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise MixError.of(name, values, "one or more values, each once")
        for seed in self.seeds:
            if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
                raise MixError.of("seeds", seed, "whole numbers in [0, 2**32)")
        for epochs in self.epochs:
            if not 0 < epochs <= MOST_EPOCHS:
                raise MixError.of("epochs", epochs, f"numbers in (0, {MOST_EPOCHS}]")
        if self.task == RECIPE:
            object.__setattr__(self, "config", shared_config(self.config, self.size))
            for run in self.runs():
                self.recipe_config(run)

    def runs(self) -> list[Run]:
        """All runs, seed by seed, so that a study that is stopped is balanced."""
        return [
            Run(arm, seed, self.images, epochs)
            for seed in self.seeds
            for epochs in sorted(self.epochs)
            for arm in self.arms
        ]

    def recipe_config(self, run: Run) -> RecipeConfig:
        """The recipe's config of a run; what mixes is not in it."""
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in self.config.items()}
        return RecipeConfig(mix="none", epochs=run.epochs, images=run.images, seed=run.seed, **values)

    def as_dict(self) -> dict[str, Any]:
        """The plan as JSON takes it."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in ((f.name, getattr(self, f.name)) for f in fields(self))
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StudyPlan:
        """The plan that ``as_dict`` wrote."""
        lists = {name: tuple(values[name]) for name in ("arms", "seeds", "epochs")}
        return cls(**{**values, **lists})

    def extended(self, asked: StudyPlan) -> StudyPlan:
        """This plan with the arms, seeds and epochs of another added.

        Raises:
            MixError: If the two differ in anything else, or in the arm that others are compared with.
        """
        for name in ("task", "data", "size", "images", "config"):
            _check_same(name, getattr(self, name), getattr(asked, name))
        if None not in (self.source, asked.source) and self.source != asked.source:
            what = f"{self.data} before its images" if self.task == RECIPE else f"{self.task} before its file"
            raise MixError(f"--out holds a study of {what} changed: take another folder")
        if asked.arms[0] != self.arms[0]:
            raise MixError(
                f"--out holds a study whose first arm is {self.arms[0]}, which the others are compared with, "
                f"got {asked.arms[0]} first: name {self.arms[0]} first, or take another folder"
            )
        lists = {
            name: tuple(dict.fromkeys((*getattr(self, name), *getattr(asked, name))))
            for name in ("arms", "seeds", "epochs")
        }
        source = self.source or asked.source
        return replace(self, source=source, **lists)  # type: ignore[arg-type]


def shared_config(given: Mapping[str, Any], size: int | None) -> dict[str, Any]:
    """The settings all runs share: those given, and those of the preset cpu.

    Raises:
        MixError: If there is no such setting, or ``size`` is out of its range.
    """
    for name in given:
        if name not in (*SHARED, *OF_NO_STUDY):
            raise MixError(f"config takes {', '.join(SHARED)}, got {name!r}")
    standard: dict[str, Any] = PRESETS["cpu"].config.as_dict()
    if size is not None and "sizes" not in given:
        if not 16 <= size <= RecipeConfig.largest_size:
            raise MixError.of("size", size, f"a number of pixels in [16, {RecipeConfig.largest_size}]")
        standard["sizes"] = [size]
    chosen = {name: given.get(name, standard[name]) for name in SHARED}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in chosen.items()}


def _check_same(name: str, before: Any, now: Any) -> None:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys((*before, *now)):
            _check_same(key.replace("_", "-"), before.get(key), now.get(key))
    elif before != now:
        raise MixError(f"--out holds a study with {name} {before}, got {now}: take another folder")
