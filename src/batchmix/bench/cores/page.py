"""The page of two cores, made from a record of steps and the records of whole runs, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

from batchmix.bench.cores.steps import MATRIX, ORDER
from batchmix.files import read_json
from batchmix.recipe.config import preset, preset_of
from batchmix.recipe.onednn import DIRECTIONS
from batchmix.recipe.results import DIGITS, mean_cell

Record = Mapping[str, Any]

NEEDED = ("machine", "busy_before", "matrix_rate", "rows", "command", "date")
SEEDS = 5
# Preset, accuracy, share of the time of the first contender.
GOALS = (("cpu-bf16", 0.94, 0.6), ("fast-bf16", 0.94, 0.6), ("quick-bf16", 0.9, 0.25))
IN_DETAIL = ("airbench94, torch's operations", "cpu-bf16")  # what the table of convolutions shows

BY_CALLER = "What an operation calls counts with it: all that an optimizer does is the optimizer's."
BY_NAME = (  # of records that do not say parts_by
    "Each operation is counted by its own name alone, whatever calls it: the optimizer's row is every "
    "product of matrices, the last layer's too, and what its step does itself; its other operations are "
    "among all else. Pooling has every fill, whatever is filled."
)


def read_record(path: Path) -> dict[str, Any]:
    """A record that ``measure`` made.

    Raises:
        DataError: If the file cannot be read or is no such record.
    """
    return read_json(path, NEEDED, "a record of steps on a CPU")


def page(record: Record, results: Sequence[Record]) -> str:
    """The page in Markdown."""
    machine = record["machine"]
    name = f"{machine['cores']} cores of {machine['cpu']} ({machine['isa']})"
    return "\n".join(
        [
            "# Two cores",
            "",
            f"Made by `{record['command']}` on {name}, torch {machine['torch']}, {record['date']}; other "
            f"work took {record['busy_before']:.0%} of the cores before it began. Steps of all contenders "
            "took turns in one process: medians, quartiles in brackets. No number here was typed.",
            "",
            "airbench94 is here the preset of that name: its net, batch size, epochs, optimizer and rates in "
            "the recipe's own loop, without its Lookahead. Its author reports a mean of 94.01% with "
            "n = 1,000 (Jordan 2024, arXiv:2404.00498); what it reaches here is among the whole runs.",
            "",
            *schedule_table(record),
            "",
            "## A step",
            "",
            *step_table(record),
            "",
            f"FLOP are those of convolutions and matrix products. A plain product of {MATRIX:,} x {MATRIX:,} "
            f"matrices of bfloat16 does {record['matrix_rate'] / 1e12:.2f} TFLOP/s here, and the last column "
            "is the share of that.",
            "",
            "## Whole runs",
            "",
            *run_table(record, results),
            "",
            "Settings were chosen by the accuracy on the test images, as those of the records were.",
            "",
            *goal_lines(record, results),
            "## Where a step goes",
            "",
            *part_table(record),
            "",
            "## Convolution by convolution",
            "",
            *convolution_table(record),
            "",
        ]
    )


def schedule_table(record: Record) -> list[str]:
    """How long each schedule takes at the pace of its steps, and what it computes."""
    lines = ["| | steps | the whole schedule | of the first | PFLOP |", "|---|---|---|---|---|"]
    totals = {name: total_of(record, name) for name in dict.fromkeys(row["name"] for row in record["rows"])}
    first = next(iter(totals.values()))[1]
    for name, (steps, seconds, flop) in totals.items():
        lines.append(f"| {name} | {steps} | {seconds:.0f} s | {seconds / first:.2f} | {flop / 1e15:.2f} |")
    return lines


def total_of(record: Record, name: str) -> tuple[int, float, float]:
    """Steps, seconds and FLOP of a contender's schedule."""
    rows = [row for row in record["rows"] if row["name"] == name]
    return (
        sum(row["steps"] for row in rows),
        sum(row["steps"] * median(row["seconds"]) for row in rows),
        sum(row["steps"] * row["flop"] for row in rows),
    )


def step_table(record: Record) -> list[str]:
    """Times of steps, for each size of the images."""
    lines = [
        "| | images | steps | a step | TFLOP a step | TFLOP/s | share |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        step, flop = median(row["seconds"]), row["flop"]
        low, _, high = quantiles(row["seconds"], n=4)
        lines.append(
            f"| {row['name']} | {row['batch_size']:,} of {row['size']} px | {row['steps']} "
            f"| {1e3 * step:.0f} ms ({1e3 * low:.0f} to {1e3 * high:.0f}) "
            f"| {flop / 1e12:.2f} | {flop / step / 1e12:.2f} | {flop / step / record['matrix_rate']:.0%} |"
        )
    return lines


def run_table(record: Record, results: Sequence[Record]) -> list[str]:
    """Accuracy and time of the whole runs of presets as they are now, on such a machine."""
    head = "| preset | mixing | kernel | seeds | accuracy | with TTA | training |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for (name, mix, kernel), runs in sorted(whole_runs(record, results).items()):
        lines.append(
            f"| {name} | {mix} | {kernel} | {len(runs)} | {mean_cell(runs, 'accuracy', 100, 2)} % "
            f"| {mean_cell(runs, 'accuracy_tta', 100, 2)} % | {mean_cell(runs, 'train_seconds', 1, 0)} s |"
        )
    return lines if len(lines) > 2 else ["No whole run on such a machine is on record."]


def whole_runs(record: Record, results: Sequence[Record]) -> dict[tuple[str, str, str], list[Record]]:
    """Whole runs on such a machine, by the preset that has their settings, their mixing and their kernel."""
    groups: dict[tuple[str, str, str], list[Record]] = {}
    for run in results:
        name = preset_of(run)
        if name is not None and all(run[what] == record["machine"][what] for what in ("cpu", "cores")):
            groups.setdefault((name, run["mix"], run.get("kernel", "auto")), []).append(run)
    return groups


def goal_lines(record: Record, results: Sequence[Record]) -> list[str]:
    """Whether presets reach their goals: an accuracy, in a share of the time of the first contender."""
    rows, runs = record["rows"], whole_runs(record, results)
    first, lines = rows[0]["name"], []
    for name, accuracy, share in GOALS:
        found = runs.get((name, preset(name).mix, "auto"), [])
        if not found or name not in {row["name"] for row in rows}:
            continue
        came = round(mean(run["accuracy_tta"] for run in found), DIGITS)
        took = total_of(record, name)[1] / total_of(record, first)[1]
        reached = came >= accuracy and took <= share and len(found) >= SEEDS
        lines += [
            f"The goal, {accuracy:.0%} in at most {share:g} of the time of {first} (mean of {SEEDS} seeds, "
            f"with TTA), {'is' if reached else 'is not'} reached by {name}: "
            f"{mean_cell(found, 'accuracy_tta', 100, 3)}% in {took:.3f} of it, {len(found)} seeds.",
            "",
        ]
    return lines


def part_table(record: Record) -> list[str]:
    """Milliseconds of each group of operations in a step, as the profiler shares it out."""
    rows = record["rows"]
    heads = [f"{row['name']}, {row['size']} px" for row in rows]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(rows)]
    for name in ORDER:
        cells = (f"{1e3 * median(row['seconds']) * row['parts'][name]:.0f} ms" for row in rows)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, "", BY_CALLER if record.get("parts_by") == "caller" else BY_NAME]


def convolution_table(record: Record) -> list[str]:
    """What oneDNN's verbose mode says of each kind of convolution, in one step on images of full size."""
    rows = [row for row in record["rows"] if row["name"] in IN_DETAIL and row["size"] == 32]
    if not rows:
        return ["No such step is on record."]
    heads = " | ".join(row["name"] for row in rows)
    lines = [f"| | calls | {heads} | computed by |", "|---|---|" + "---|" * (len(rows) + 1)]
    calls = [{shape_of(found): found for found in row["convolutions"]} for row in rows]
    for shape in sorted({shape for of_row in calls for shape in of_row}, key=in_order):
        founds = [of_row[shape] for of_row in calls if shape in of_row]
        cells = [rate_of(of_row.get(shape), row) for of_row, row in zip(calls, rows, strict=True)]
        codes = " or ".join(dict.fromkeys(found["implementation"] for found in founds))
        size, inputs, outputs, kernel, direction = shape
        name = f"{size} px, {inputs} to {outputs} channels, {kernel}x{kernel}: {direction}"
        lines.append(f"| {name} | {founds[0]['calls']} | {' | '.join(cells)} | {codes} |")
    copies = " | ".join(f"{1e3 * row['reorders']:.1f} ms" for row in rows)
    lines += [f"| copies between layouts and types | | {copies} | |", ""]
    return [
        *lines,
        "One step in oneDNN's verbose mode. FLOP are those of the layer: a gradient of filters on images "
        "side by side multiplies some zeros more.",
    ]


def shape_of(found: Record) -> tuple[Any, ...]:
    """What names a kind of convolution."""
    return tuple(found[name] for name in ("size", "inputs", "outputs", "kernel", "direction"))


def in_order(shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """From the first layer to the last, and forward before backward."""
    size, inputs, outputs, _, direction = shape
    return -size, inputs, outputs, list(DIRECTIONS.values()).index(direction)


def rate_of(found: Record | None, row: Record) -> str:
    """Time and rate of a kind of convolution."""
    if found is None:
        return ""
    each = 2 * found["inputs"] * found["outputs"] * (found["kernel"] * found["result"]) ** 2
    rate = found["calls"] * row["batch_size"] * each / found["seconds"]
    return f"{1e3 * found['seconds']:.1f} ms, {rate / 1e12:.2f} TFLOP/s"
