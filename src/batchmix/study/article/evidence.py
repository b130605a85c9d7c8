"""All that the page is made from: the records of the studies and of three measurements."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from batchmix._version import __version__
from batchmix.errors import DataError
from batchmix.files import make_folder, read_json, write_whole
from batchmix.recipe.machine import busy_share, describe_machine
from batchmix.study.article.presets import CLAIMS, FEW, LOADERS, MANY, MORE
from batchmix.study.records import REMOVE_IT, Study, read_study

LOADING, ONE_HOT, DUPLICATES = "loading", "one-hot", "duplicates"
KEYS = ("settings", "found", "machine", "batchmix", "command", "date")


@dataclass(frozen=True)
class Evidence:
    """The records, and nothing else.

    Attributes:
        claims: All arms at one budget, on few images.
        few: none and mixup at other budgets, on few images.
        many: none and mixup at several budgets, on many images.
        loading: What ``measure_loading`` found.
        one_hot: What ``measure_one_hot`` found.
        duplicates: What ``measure_duplicates`` found.
        measurements: The three records whole: with machine, command and date.
        notes: What the folder's README.md says of them below its title; "" where there is none.
        loaders: One loader and two by more seeds; None where there are none.
        more: The same of none, mixup, and mixup with one weight for the batch.
    """

    claims: Study
    few: Study
    many: Study
    loading: dict[str, Any]
    one_hot: dict[str, Any]
    duplicates: dict[str, Any]
    measurements: dict[str, dict[str, Any]]
    notes: str = ""
    loaders: Study | None = None
    more: Study | None = None

    @property
    def studies(self) -> dict[str, Study]:
        """The studies, by the names of their folders."""
        more = {LOADERS: self.loaders, MORE: self.more}
        found = {name: study for name, study in more.items() if study is not None}
        return {CLAIMS: self.claims, FEW: self.few, MANY: self.many, **found}


def read_evidence(folder: Path) -> Evidence:
    """Read the folder that ``run_article`` filled.

    Raises:
        DataError: If a part is missing or broken; the message names it.
    """
    measurements = {name: read_measurement(folder, name) for name in (LOADING, ONE_HOT, DUPLICATES)}
    for name, measurement in measurements.items():
        if measurement is None:
            raise DataError(f"found no study of the article in {folder}: there is no {_path(folder, name)}")
    whole = {name: measurement for name, measurement in measurements.items() if measurement is not None}
    return Evidence(
        claims=read_study(folder / CLAIMS),
        few=read_study(folder / FEW),
        many=read_study(folder / MANY),
        loading=whole[LOADING]["found"],
        one_hot=whole[ONE_HOT]["found"],
        duplicates=whole[DUPLICATES]["found"],
        measurements=whole,
        notes=_notes(folder / "README.md"),
        loaders=_study_if_any(folder / LOADERS),
        more=_study_if_any(folder / MORE),
    )


def measure(
    folder: Path,
    name: str,
    make: Callable[..., dict[str, Any]],
    settings: Mapping[str, Any],
    command: str,
    device: torch.device,
) -> dict[str, Any]:
    """Make a measurement and write its record, unless there is one with the same settings.

    Args:
        folder: Where the records go.
        name: Of the measurement.
        make: What measures; called with no argument.
        settings: What the measurement depends on, for the record.
        command: As typed, for the record.
        device: Where it is made, for the record.

    Returns:
        The record.

    Raises:
        DataError: If the record cannot be written, or the one that is there is broken.
    """
    settings = json.loads(json.dumps(dict(settings)))  # as they are read again
    before = read_measurement(folder, name)
    if before is not None and before["settings"] == settings:
        return before
    busy = busy_share()
    record = {
        "settings": settings,
        "found": make(),
        "machine": describe_machine(device),
        "busy_before": round(busy, 2),
        "batchmix": __version__,
        "command": command,
        "date": time.strftime("%Y-%m-%d"),
    }
    path = _path(folder, name)
    make_folder(path.parent)
    write_whole(path, [(json.dumps(record) + "\n").encode()])
    return record


def read_measurement(folder: Path, name: str) -> dict[str, Any] | None:
    """The record of a measurement, or None where there is none.

    Raises:
        DataError: If the file is broken.
    """
    path = _path(folder, name)
    if not path.exists():
        return None
    return read_json(path, KEYS, "a measurement", REMOVE_IT)


def _study_if_any(folder: Path) -> Study | None:
    return read_study(folder) if folder.exists() else None


def _notes(readme: Path) -> str:
    return readme.read_text(encoding="utf-8").partition("\n")[2].strip() if readme.exists() else ""


def _path(folder: Path, name: str) -> Path:
    return folder / "measured" / f"{name}.json"
