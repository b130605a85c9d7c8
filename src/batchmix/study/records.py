"""The folder of a study: ``study.json`` says what was asked, ``runs/KEY.json`` what came of each run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchmix.errors import DataError
from batchmix.files import check_names, make_folder, read_json, write_whole
from batchmix.study.checks import OF_ASKED, OF_RECORD, check_values

Record = dict[str, Any]
Budget = tuple[int, float]

ASKED = ("arms", "seeds", "epochs", "images", "data", "task", "config", "command")
OUTCOME = ("status", "error", "machine", "command", "date")
OF_EVERY_RUN = (*OUTCOME, "arm", "seed", "task", "data", "images", "epochs")
RUN, REMOVE_IT = "the record of a run", "; remove it to make it anew"  # in messages
OF_A_DONE_RUN = ("accuracy", "loss", "confidence", "ece", "brier", "reliability", "curve", "train_seconds")


@dataclass(frozen=True)
class Study:
    """What was asked, and what came of it.

    Args:
        asked: The contents of ``study.json``.
        records: Those of the runs that ended, in the order in which they are asked for.
    """

    asked: dict[str, Any]
    records: list[Record]

    @property
    def arms(self) -> list[str]:
        """All arms, the baseline first."""
        return list(self.asked["arms"])

    @property
    def baseline(self) -> str:
        """The arm that the others are compared with."""
        return self.arms[0]

    @property
    def budgets(self) -> list[Budget]:
        """All budgets (images, epochs), the smallest first."""
        return [(self.asked["images"], float(epochs)) for epochs in sorted(self.asked["epochs"])]

    def done(self, arm: str, budget: Budget) -> dict[int, Record]:
        """The finished runs of an arm at a budget, by seed."""
        return {
            record["seed"]: record
            for record in self.records
            if record["status"] == "done" and record["arm"] == arm and _budget_of(record) == budget
        }

    @property
    def failed(self) -> list[Record]:
        """The runs that ended with an error."""
        return [record for record in self.records if record["status"] == "failed"]


def read_study(folder: Path) -> Study:
    """Read the folder of a study, finished or not.

    Raises:
        DataError: If a file is missing or broken; the message names it.
    """
    folder = Path(folder)
    asked = read_asked(folder)
    place = {name: {value: i for i, value in enumerate(asked[name])} for name in ("seeds", "epochs", "arms")}
    found = [_read_record(path) for path in sorted((folder / "runs").glob("*.json"))]
    records = [
        record
        for record in found
        if record["arm"] in place["arms"]
        and record["seed"] in place["seeds"]
        and record["epochs"] in place["epochs"]
        and record["images"] == asked["images"]
    ]
    records.sort(key=lambda r: (place["seeds"][r["seed"]], r["epochs"], place["arms"][r["arm"]]))
    return Study(asked, records)


def read_asked(folder: Path) -> dict[str, Any]:
    """What a study was asked for.

    Raises:
        DataError: If there is no study in the folder, or its file is broken.
    """
    path = folder / "study.json"
    if not path.exists():
        raise DataError(f"found no study in {folder}: there is no {path.name}")
    what = "what a study was asked"
    asked = read_json(path, ASKED, what, REMOVE_IT)
    check_values(path, asked, OF_ASKED, what, REMOVE_IT)
    return asked


def write_asked(folder: Path, asked: Mapping[str, Any]) -> None:
    """Write ``study.json``, and make the folder where there is none.

    Raises:
        DataError: If it cannot be written.
    """
    make_folder(folder / "runs")
    _write_json(folder / "study.json", asked)


def write_record(folder: Path, key: str, record: Mapping[str, Any]) -> None:
    """Write the record of a run.

    Raises:
        DataError: If it cannot be written.
    """
    _write_json(record_path(folder, key), record)


def read_record(folder: Path, key: str) -> Record | None:
    """The record of a run, or None where it has not ended.

    Raises:
        DataError: If the file is broken.
    """
    path = record_path(folder, key)
    return _read_record(path) if path.exists() else None


def record_path(folder: Path, key: str) -> Path:
    """Where the record of a run lies."""
    return folder / "runs" / f"{key}.json"


def _read_record(path: Path) -> Record:
    record = read_json(path, OF_EVERY_RUN, RUN, REMOVE_IT)
    if record["status"] not in ("done", "failed"):
        raise DataError(f"{path} is not {RUN}: its status is {record['status']!r}{REMOVE_IT}")
    if record["status"] == "done":
        check_names(path, record, OF_A_DONE_RUN, RUN, REMOVE_IT)
    check_values(path, record, OF_RECORD, RUN, REMOVE_IT)
    return record


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    write_whole(path, [(json.dumps(values, indent=1) + "\n").encode()])


def _budget_of(record: Record) -> Budget:
    return record["images"], float(record["epochs"])
