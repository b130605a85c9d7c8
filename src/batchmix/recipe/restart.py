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


def continued(folder: Path, world: World) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """What a folder holds of a run: the summary of one that is done, the state of one that is not.

    The first rank looks: what it finds holds for all, who read the same file.

    Raises:
        DataError: If a file is there and can't be read.
    """
    found = world.told([name for name in ("summary.json", "checkpoint.pt") if (folder / name).exists()])
    if "summary.json" in found:
        return _summary(folder), None
    return None, load_checkpoint(folder / "checkpoint.pt") if found else None


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
