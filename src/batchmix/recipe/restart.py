"""Runs that torchrun starts again: the same command finds what there is, and goes on from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchmix.errors import DataError, MixError
from batchmix.recipe.training import load_checkpoint
from batchmix.scale.world import World

AUTO = Path("auto")
"""``--resume auto``: the run lies in ``--out`` itself, and goes on if it was begun."""


def found(
    resume: Path | None, out: Path, world: World, asked: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """What ``--resume`` goes on with: the summary of a run that is done, or the state of one that is not.

    Args:
        resume: As given.
        out: As given, the folder of the run if ``resume`` is ``AUTO``.
        world: Of ``AUTO`` the first rank looks, and what it finds holds for all, who read the same file.
        asked: The settings, ``exact`` among them; those of the run have to be the same if it is ``AUTO``.

    Raises:
        DataError: If a file is missing that was named, or can't be read.
        MixError: If settings differ.
    """
    if resume is None:
        return None, None
    if resume != AUTO:
        return None, load_checkpoint(resume / "checkpoint.pt")
    here = world.told([name for name in ("summary.json", "checkpoint.pt") if (out / name).exists()])
    if "summary.json" in here:
        done = _summary(out)
        same_settings(asked, done, out)
        return done, None
    if not here:
        return None, None
    state = load_checkpoint(out / "checkpoint.pt")
    same_settings(asked, {**state["config"], "exact": state.get("exact", False)}, out)
    return None, state


def _summary(folder: Path) -> dict[str, Any]:
    try:
        return {"folder": str(folder), **json.loads((folder / "summary.json").read_text())}
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {folder / 'summary.json'}: {error}") from None


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
