"""Runs that torchrun starts again: the same command finds what there is, and goes on from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchmix.errors import DataError, MixError, shorten
from batchmix.files import read_json
from batchmix.recipe.training import load_checkpoint
from batchmix.scale.world import World

AUTO = Path("auto")
"""``--resume auto``: the run lies in ``--out`` itself, and goes on if it was begun."""


def found(
    resume: Path | None,
    out: Path,
    world: World,
    asked: Mapping[str, Any],
    images: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """What ``--resume`` goes on with: the summary of a run that is done, or the state of one that is not.

    Args:
        resume: As given.
        out: As given, the folder of the run if ``resume`` is ``AUTO``.
        world: Of ``AUTO`` the first rank looks, and what it finds holds for all, who read the same file.
        asked: The settings, ``exact`` among them; those of the run have to be the same if it is ``AUTO``.
        images: What says which images a folder holds, the same as those of the run; None for CIFAR-10.

    Raises:
        DataError: If a file is missing that was named, or can't be read.
        MixError: If settings or images differ.
    """
    if resume is None:
        return None, None
    if resume != AUTO:
        if (resume / "summary.json").exists() and not (resume / "checkpoint.pt").exists():
            raise DataError(
                f"--resume takes a stopped run, the one in {resume} is done: its summary.json has the results"
            )
        state = load_checkpoint(resume / "checkpoint.pt")
        same_images(images, state["config"], state, resume)
        return None, state
    here = world.told([name for name in ("summary.json", "checkpoint.pt") if (out / name).exists()])
    if "summary.json" in here:
        done = _summary(out)
        same_images(images, done, done, out)
        same_settings(asked, done, out)
        return done, None
    if not here:
        return None, None
    state = load_checkpoint(out / "checkpoint.pt")
    same_images(images, state["config"], state, out)
    same_settings(asked, {**state["config"], "exact": state.get("exact", False)}, out)
    return None, state


def known(kind: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """The settings of a stopped run, all of which this version knows.

    Args:
        kind: The config that is made from them, a dataclass.
        values: What the run wrote of it.

    Raises:
        DataError: If there is one that the config does not have.
    """
    strange = values.keys() - {field.name for field in dataclasses.fields(kind)}
    if strange:
        raise DataError(
            "--resume takes a run of this version or an older one, got one with settings that it "
            f"does not have: {', '.join(sorted(strange))}"
        )
    return values


def _summary(folder: Path) -> dict[str, Any]:
    needed = ("mix", "seed", "accuracy", "loss")
    return {"folder": str(folder), **read_json(folder / "summary.json", needed, "the summary of a run")}


def same_images(
    images: Mapping[str, Any] | None, config: Mapping[str, Any], kept: Mapping[str, Any], folder: Path
) -> None:
    """Refuse to go on with a run of other images.

    Args:
        images: As for ``found``.
        config: Of the run; the one on a folder names a model.
        kept: What the run wrote of its images. Their number and classes are compared, not their pixels.
        folder: Of the run.

    Raises:
        MixError: If they differ; the message names what does.
    """
    if (images is None) != ("model" not in config):
        takes, on = ("folder:PATH", "a folder") if images is None else ("nothing", "CIFAR-10")
        raise MixError(f"--data takes {takes} to go on with the run in {folder}, which is on {on}")
    for name, value in (images or {}).items():
        if kept.get(name, value) != value:
            raise MixError(
                f"--data takes the images of the run in {folder}, "
                f"whose {name} are {shorten(kept[name])}, got {shorten(value)}"
            )


def same_settings(asked: Mapping[str, Any], kept: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with a run of other settings.

    Raises:
        MixError: If they differ; the message names the first that does.
    """
    for name, value in asked.items():
        if kept.get(name, value) != value:  # what an older version did not know is as it was
            raise MixError(
                f"--resume auto takes the settings of the run in {folder}, "
                f"whose {name} is {kept.get(name)!r}, got {value!r}"
            )
