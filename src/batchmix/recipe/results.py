"""The table of results, made from the records that runs wrote and from nothing else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from batchmix.errors import DataError
from batchmix.files import is_number, put_between, read_json_lines
from batchmix.recipe.config import TrainConfig, preset_of

Record = Mapping[str, Any]

MACHINE = ("device", "cpu", "cores", "isa", "torch")
SCORES = ("accuracy", "accuracy_tta", "loss", "confidence", "ece", "train_seconds")
CONFIG = tuple(field.name for field in dataclasses.fields(TrainConfig) if field.name != "seed")
SAME = ("preset", *CONFIG, "kernel", "ranks", "device", "cpu", "cores")  # of the runs in one row
NEEDED = ("preset", "mix", "alpha", "epochs", "images", "seed", *MACHINE, *SCORES)
GOAL_ACCURACY, GOAL_SECONDS = 0.94, 360  # the article's headline,
GOAL_SEEDS, GOAL_CORES = 5, 2  # a mean of so many, on a CPU of so many cores
DIGITS = 6  # of a mean accuracy that is held against a goal: records were rounded to float32
AIM_AT_IT = ("cpu", "cpu-avx512", "cpu-bf16", "fast-bf16")  # presets
CHANGED = " (changed)"  # behind the name of a preset that has other settings today
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def read_records(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """All records of files of JSON lines, in their order.

    Raises:
        DataError: If a file is missing, or a line is not a record.
    """
    records = []
    for path in paths:
        lines = read_json_lines(path, NEEDED, "a record of a run on CIFAR-10")
        for number, record in enumerate(lines, start=1):
            for name in SCORES:
                if not is_number(record[name]):
                    raise DataError(f"{path}:{number} is not a record of a run: {name} is {record[name]!r}")
            # An older version did not know all of it.
            run = {**TrainConfig().as_dict(), "ranks": 1, **record}
            # A preset may have changed since, or its name: what a run did is in its settings.
            records.append({**run, "preset": preset_of(run) or run["preset"] + CHANGED})
    if not records:
        raise DataError(f"found no records in {', '.join(map(str, paths))}")
    return records


def table(records: Sequence[Record], *, presets_only: bool = False) -> str:
    """A Markdown table, a row for all runs that differ in their seed alone, and what it says in words.

    Args:
        records: What ``read_records`` gave.
        presets_only: Whether runs of other settings than a preset has today are counted, but not shown.

    Raises:
        DataError: If a run is there twice, or there is nothing to show.
    """
    shown = [record for record in records if not (presets_only and _is_changed(record))]
    if not shown:
        raise DataError(f"found {len(records)} records, none with the settings of a preset")
    left_out, records = len(records) - len(shown), shown
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(str(record.get(name)) for name in SAME), []).append(record)
    for group in groups.values():
        seeds = [record["seed"] for record in group]
        if len(set(seeds)) < len(seeds):
            raise DataError(f"the records hold a run twice: {group[0]['mix']}, seeds {sorted(seeds)}")
    machines = list(dict.fromkeys(_machine(group[0]) for group in groups.values()))
    head = ["preset", "mixing", "epochs", "seeds", "accuracy", "with TTA", "loss", "confidence", "ECE"]
    head += ["training"] if len(machines) == 1 else ["training", "on"]
    rows = [_row(group, machines) for group in groups.values()]
    paired = (_against_none(group, records) for group in groups.values())
    words = [line for line in (*paired, _goal(list(groups.values()))) if line is not None]
    return "\n".join(
        [_line(head), "|---" * len(head) + "|", *rows, "", *words, _note(shown, machines, left_out)]
    )


def insert_table(text: str, made: str) -> str:
    """Put a table between the two marks of a document.

    Raises:
        DataError: If the marks are not there.
    """
    return put_between(text, BEGIN, END, made)


def interval(values: Sequence[float]) -> float:
    """Half the width of the 95% interval of the mean, by Student's t; nan for a single value."""
    if len(values) < 2:
        return math.nan
    from scipy.stats import t

    quantile: float = t.ppf(0.975, len(values) - 1)
    return quantile * stdev(values) / math.sqrt(len(values))


def mean_cell(group: Sequence[Record], name: str, scale: float, digits: int) -> str:
    """The mean over runs and its interval, as a cell of a table."""
    values = [scale * record[name] for record in group]
    half = interval(values)
    return f"{mean(values):.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")


def _is_changed(record: Record) -> bool:
    return str(record["preset"]).endswith(CHANGED)


def _is_compiled(record: Record) -> bool:
    """Whether the run compiled its net, which ``auto`` does on a GPU; its seconds hold that."""
    mode: str = record.get("compile", "off")
    device: str = record["device"]
    return mode != "off" and (mode != "auto" or device != "cpu")


def _row(group: Sequence[Record], machines: Sequence[str]) -> str:
    first = group[0]
    processes = f", {first['ranks']} processes" if first.get("ranks", 1) > 1 else ""
    cells = [
        f"{first['preset']}{processes}",
        mixing_in_words(first, ", "),
        f"{first['epochs']:g}",
        _runs(sorted(record["seed"] for record in group)),
        f"{mean_cell(group, 'accuracy', 100, 2)} %",
        f"{mean_cell(group, 'accuracy_tta', 100, 2)} %",
        mean_cell(group, "loss", 1, 3),
        f"{mean_cell(group, 'confidence', 100, 1)} %",
        mean_cell(group, "ece", 1, 3),
        f"{mean_cell(group, 'train_seconds', 1, 0)} s{' with compilation' if _is_compiled(first) else ''}",
    ]
    return _line(cells if len(machines) == 1 else [*cells, f"M{machines.index(_machine(first)) + 1}"])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _note(shown: Sequence[Record], machines: Sequence[str], left_out: int) -> str:
    """How to read the table, and where its runs were made."""
    named = machines if len(machines) == 1 else [f"M{i}: {name}" for i, name in enumerate(machines, 1)]
    torches = sorted({record["torch"] for record in shown})
    note = (
        "Mean over the seeds and its 95% interval. TTA: logits averaged over mirrored and shifted views. "
        "ECE: expected calibration error, how far confidence is from accuracy. "
        f"Made on {'; '.join(named)}, torch {', '.join(torches)}."
    )
    if any(map(_is_changed, shown)):
        note += f" Where it says{CHANGED}, the preset has other settings today."
    if left_out:
        note += f" {left_out} more runs on record have settings that no preset has today."
    return note


def _against_none(group: Sequence[Record], records: Sequence[Record]) -> str | None:
    """What mixing changed, by pairs of runs that differ in mixing alone; None where there are none."""
    first = group[0]
    if first["mix"] == "none":
        return None
    same = [name for name in SAME if name not in ("mix", "preset")]  # the same settings under any name
    plain = {
        record["seed"]: record
        for record in records
        if record["mix"] == "none" and all(record.get(name) == first.get(name) for name in same)
    }
    pairs = [(record, plain[record["seed"]]) for record in group if record["seed"] in plain]
    if len(pairs) < 2:
        return None
    changes = [
        f"{name} {mean(gaps):+.{digits}f} ± {interval(gaps):.{digits}f}{unit}"
        for name, key, scale, digits, unit in (
            ("accuracy", "accuracy", 100, 2, " points"),
            ("with TTA", "accuracy_tta", 100, 2, " points"),
            ("loss", "loss", 1, 3, ""),
            ("confidence", "confidence", 100, 1, " points"),
            ("ECE", "ece", 1, 3, ""),
        )
        for gaps in [[scale * (mixed[key] - unmixed[key]) for mixed, unmixed in pairs]]
    ]
    arm = f"{first['preset']}, {mixing_in_words(first, ' ')}"
    return f"{arm} minus none, paired by seed (n = {len(pairs)}): {', '.join(changes)}.\n"


def mixing_in_words(record: Record, between: str) -> str:
    """What mixed, with the number that shapes it; "none" if nothing did."""
    if record["mix"] == "none":
        return "none"
    if record["mix"] == "cutmix" and record.get("square"):
        return f"cutmix{between}{record['square']} pixels"
    return f"{record['mix']}{between}alpha {record['alpha']:g}"


def _goal(groups: Sequence[Sequence[Record]]) -> str | None:
    """Which runs with mixing reached the recipe's goal, in a sentence; None where none aims at it."""
    reached: list[str] = []
    missed: list[str] = []
    for group in groups:
        if not _aims_at_goal(group[0]):
            continue
        accuracy = round(mean(record["accuracy_tta"] for record in group), DIGITS)
        slowest = max(record["train_seconds"] for record in group)
        came = f"{mean_cell(group, 'accuracy_tta', 100, 3)}%"
        found = f"{group[0]['preset']} ({came}, {slowest:.0f} s at most, {len(group)} seeds)"
        passed = accuracy >= GOAL_ACCURACY and slowest <= GOAL_SECONDS and len(group) >= GOAL_SEEDS
        (reached if passed else missed).append(found)
    if not reached and not missed:
        return None
    verdict = f"is reached by {', '.join(reached)}" if reached else f"is not reached by {', '.join(missed)}"
    return (
        f"The goal, {GOAL_ACCURACY:.0%} with mixup in at most {GOAL_SECONDS} s of training on two CPU cores "
        f"(mean of {GOAL_SEEDS} seeds, with TTA), {verdict}"
        + (f"; not by {', '.join(missed)}.\n" if reached and missed else ".\n")
    )


def _aims_at_goal(record: Record) -> bool:
    return (
        record["mix"] != "none"
        and record["images"] >= 50_000
        and record["device"] == "cpu"
        and record["cores"] == GOAL_CORES
        and record["preset"] in AIM_AT_IT
    )


def _runs(seeds: Sequence[int]) -> str:
    consecutive = seeds == list(range(seeds[0], seeds[0] + len(seeds)))
    if len(seeds) == 1:
        return f"{seeds[0]}"
    return f"{seeds[0]} to {seeds[-1]}" if consecutive else ", ".join(map(str, seeds))


def _machine(record: Record) -> str:
    device = "" if record["device"] == "cpu" else f"{record['device']}, "
    return f"{device}{record['cores']} cores of {record['cpu']} ({record['isa']})"
